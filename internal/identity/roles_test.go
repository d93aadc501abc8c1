package identity_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"kiln/internal/aws/policy"
	"kiln/internal/identity"
	"kiln/internal/lambda"
)

const (
	trust   = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"lambda.amazonaws.com"},"Action":"sts:AssumeRole"}]}`
	basic   = "arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole"
	readers = policyOfReaders
)

func says(err error) string {
	if e := lambda.AsError(err); e != nil {
		return e.Code + ": " + e.Message
	}
	return fmt.Sprint(err)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// allows tells what the rights say to an action.
func allows(rights identity.Rights, action string) policy.Decision {
	r := &policy.Request{Action: action, Resource: "arn:aws:lambda:us-east-1:123456789012:function:f"}
	return policy.Decide(r, rights.Policies...)
}

func TestRoles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, done := open(t, dir)
	ctx := t.Context()
	role, err := s.CreateRole(ctx, identity.Role{Account: ours, Name: "Worker", Path: "/app/", Trust: trust, MaxSession: 3600})
	must(t, err)
	_, err = s.CreateRole(ctx, identity.Role{Account: theirs, Name: "Worker", Path: "/", Trust: trust})
	must(t, err)
	own, err := s.CreatePolicy(ctx, identity.ManagedPolicy{Account: ours, Name: "own", Path: "/"}, readers)
	must(t, err)
	arn := own.ARN().String()
	inline := func(name, document string) error {
		return s.ChangeRole(ctx, ours, "Worker", func(r *identity.Role) error {
			if r.Inline == nil {
				r.Inline = map[string]string{}
			}
			r.Inline[name] = document
			return nil
		})
	}
	must(t, inline("in", strings.Replace(readers, "lambda:Get*", "lambda:Invoke*", 1)))
	must(t, s.AttachPolicy(ctx, ours, "Worker", arn))
	must(t, s.AttachPolicy(ctx, ours, "Worker", arn)) // again is no change
	must(t, s.AttachPolicy(ctx, ours, "Worker", basic))

	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"the same name":         {second(s.CreateRole(ctx, identity.Role{Account: ours, Name: "Worker", Trust: trust})), "EntityAlreadyExists: Role with name Worker already exists."},
		"in another case":       {second(s.CreateRole(ctx, identity.Role{Account: ours, Name: "worker", Trust: trust})), "EntityAlreadyExists: Role with name worker already exists."},
		"no trust":              {second(s.CreateRole(ctx, identity.Role{Account: ours, Name: "x", Trust: "{}"})), "MalformedPolicyDocument: Syntax errors in policy."},
		"trust in resources":    {second(s.CreateRole(ctx, identity.Role{Account: ours, Name: "x", Trust: strings.Replace(trust, `"Action"`, `"Resource":"*","Action"`, 1)})), "MalformedPolicyDocument: Has prohibited field Resource"},
		"boundary":              {second(s.CreateRole(ctx, identity.Role{Account: ours, Name: "x", Trust: trust, Boundary: "arn:aws:iam::123456789012:policy/no"})), "NoSuchEntity: Scope ARN: arn:aws:iam::123456789012:policy/no does not exist or is not attachable."},
		"long trust":            {second(s.CreateRole(ctx, identity.Role{Account: ours, Name: "x", Trust: strings.Replace(trust, "lambda", strings.Repeat("l", 4096), 1)})), "LimitExceeded: Cannot exceed quota for ACLSizePerRole: 4096"},
		"found by another case": {second(s.FindRole(ours, "worker")), "NoSuchEntity: The role with name worker cannot be found."},
		"attached, no role":     {s.AttachPolicy(ctx, ours, "no", basic), "NoSuchEntity: The role with name no cannot be found."},
		"attached, no policy":   {s.AttachPolicy(ctx, ours, "Worker", basic+"s"), "NoSuchEntity: Policy " + basic + "s does not exist or is not attachable."},
		"another's policy":      {s.AttachPolicy(ctx, theirs, "Worker", arn), "NoSuchEntity: Policy " + arn + " does not exist or is not attachable."},
		"not attached":          {s.DetachPolicy(ctx, theirs, "Worker", basic), "NoSuchEntity: Policy " + basic + " was not found."},
		"inline, a principal":   {inline("x", strings.Replace(trust, `"Action"`, `"Resource":"*","Action"`, 1)), "MalformedPolicyDocument: Policy document should not specify a principal."},
		"inline, too long":      {inline("x", strings.Replace(readers, "Get*", strings.Repeat("G", 10240), 1)), "LimitExceeded: Maximum policy size of 10240 bytes exceeded for role Worker"},
		"deleted, attached":     {s.DeleteRole(ctx, ours, "Worker"), "DeleteConflict: Cannot delete entity, must detach all policies first."},
		"policy, same name":     {second(s.CreatePolicy(ctx, identity.ManagedPolicy{Account: ours, Name: "OWN", Path: "/"}, readers)), "EntityAlreadyExists: A policy called OWN already exists. Duplicate names are not allowed."},
		"policy, too long":      {second(s.CreatePolicy(ctx, identity.ManagedPolicy{Account: ours, Name: "x", Path: "/"}, strings.Replace(readers, "Get*", strings.Repeat("G", 6144), 1))), "LimitExceeded: Cannot exceed quota for PolicySize: 6144"},
		"policy in use":         {s.DeletePolicy(ctx, ours, arn), "DeleteConflict: Cannot delete a policy attached to entities."},
		"AWS's policy":          {s.DeletePolicy(ctx, ours, basic), "AccessDeniedException: The policy " + basic + " is AWS's and cannot be changed."},
		"no policy":             {s.DeletePolicy(ctx, ours, arn+"s"), "NoSuchEntity: Policy " + arn + "s was not found."},
		"default version":       {s.DeletePolicyVersion(ctx, ours, arn, "v1"), "DeleteConflict: Cannot delete the default version of a policy."},
		"no version":            {s.SetDefaultVersion(ctx, ours, arn, "v2"), "NoSuchEntity: Policy " + arn + " version v2 does not exist or is not attachable."},
	} {
		if got := says(c.err); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, c.want)
		}
	}
	check := func(when string) {
		t.Helper()
		rights, ok := s.RoleRights("arn:aws:iam::123456789012:role/app/Worker")
		if !ok || allows(rights, "lambda:InvokeFunction") != policy.Allowed || allows(rights, "lambda:GetFunction") != policy.Allowed || allows(rights, "logs:PutLogEvents") != policy.Allowed || allows(rights, "lambda:DeleteFunction") != policy.Silent {
			t.Errorf("%s: the role has %+v, %v", when, rights, ok)
		}
		if _, ok := s.RoleRights("arn:aws:iam::123456789012:role/Worker"); ok {
			t.Errorf("%s: the role is found without its path", when)
		}
		if r := s.Role(ours, "Worker"); r == nil || r.ID != role.ID || !strings.HasPrefix(r.ID, "AROA") || len(r.ID) != 20 {
			t.Errorf("%s: %+v", when, r)
		}
	}
	check("at once")
	done()
	s, done = open(t, dir)
	defer func() { done() }()
	check("after a restart")

	// Versions: what counts changes, and there are five at most.
	for i := 2; i <= 5; i++ {
		_, err := s.CreatePolicyVersion(ctx, ours, arn, strings.Replace(readers, "lambda:Get*", fmt.Sprintf("lambda:List%d", i), 1), i == 3)
		must(t, err)
	}
	if _, err := s.CreatePolicyVersion(ctx, ours, arn, readers, false); code(err) != "LimitExceeded" {
		t.Errorf("a sixth version: %v", err)
	}
	rights, _ := s.RoleRights("arn:aws:iam::123456789012:role/app/Worker")
	if allows(rights, "lambda:List3") != policy.Allowed || allows(rights, "lambda:GetFunction") != policy.Silent {
		t.Errorf("the default version does not count: %+v", rights)
	}
	must(t, s.DetachPolicy(ctx, ours, "Worker", arn))
	if err := s.DeletePolicy(ctx, ours, arn); code(err) != "DeleteConflict" {
		t.Errorf("deleted with versions: %v", err)
	}
	for _, v := range []string{"v1", "v2", "v4", "v5"} {
		must(t, s.DeletePolicyVersion(ctx, ours, arn, v))
	}
	if v, err := s.CreatePolicyVersion(ctx, ours, arn, readers, false); err != nil || v.ID != "v6" {
		t.Errorf("a number is given twice: %+v %v", v, err)
	}
	must(t, s.DeletePolicyVersion(ctx, ours, arn, "v6"))
	must(t, s.DeletePolicy(ctx, ours, arn))
	must(t, s.DetachPolicy(ctx, ours, "Worker", basic))
	if err := s.DeleteRole(ctx, ours, "Worker"); says(err) != "DeleteConflict: Cannot delete entity, must delete policies first." {
		t.Error(err)
	}
	must(t, s.ChangeRole(ctx, ours, "Worker", func(r *identity.Role) error { delete(r.Inline, "in"); return nil }))
	must(t, s.DeleteRole(ctx, ours, "Worker"))
	if s.Role(ours, "Worker") != nil || s.Role(theirs, "Worker") == nil {
		t.Error("the wrong role is gone")
	}
}

func second[T any](_ T, err error) error { return err }

// Every policy of AWS that is here can be read, and is found by its ARN.
func TestManagedPolicies(t *testing.T) {
	t.Parallel()
	s, done := open(t, t.TempDir())
	defer done()
	list := s.Policies(ours)
	if len(list) < 40 {
		t.Errorf("there are %d", len(list))
	}
	for _, p := range list {
		if _, err := policy.Parse(policy.Identity, []byte(p.Document())); err != nil {
			t.Errorf("%s: %v", p.ARN(), err)
		}
		if s.Policy(theirs, p.ARN().String()) != p || len(p.ID) != 20 || p.Created.IsZero() {
			t.Errorf("%s is not found, or is not whole: %+v", p.ARN(), p)
		}
	}
}

func TestSessions(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, done := open(t, dir)
	ctx := t.Context()
	create := func() *identity.Role {
		t.Helper()
		r, err := s.CreateRole(ctx, identity.Role{Account: ours, Name: "r", Path: "/", Trust: trust, Inline: map[string]string{"p": strings.Replace(readers, "lambda:Get*", "lambda:*", 1)}})
		must(t, err)
		return r
	}
	role := create()
	plain, err := s.Assume(role, identity.Session{Name: "me", Lasts: time.Hour})
	must(t, err)
	limited, err := s.Assume(role, identity.Session{Name: "me", Lasts: time.Hour, Policies: []string{readers}, PolicyARNs: []string{basic}})
	must(t, err)
	check := func(when string) {
		t.Helper()
		for _, c := range []identity.Credential{plain, limited} {
			got, ok := s.Session(c.Principal.AccessKey, c.Token)
			if !ok || got != c || got.Principal.ARN != "arn:aws:sts::123456789012:assumed-role/r/me" || got.Principal.UserID != role.ID+":me" || got.Principal.Role != "arn:aws:iam::123456789012:role/r" || time.Until(got.Expires) > time.Hour {
				t.Errorf("%s: %+v, %v", when, got, ok)
			}
		}
		one, ok1 := s.Rights(plain.Principal.AccessKey)
		other, ok2 := s.Rights(limited.Principal.AccessKey)
		if !ok1 || !ok2 || one.All || one.Limits != nil || len(other.Limits) != 2 || allows(one, "lambda:DeleteFunction") != policy.Allowed {
			t.Errorf("%s: %+v and %+v", when, one, other)
		}
		for name, c := range map[string]struct{ key, token string }{
			"another's token": {plain.Principal.AccessKey, limited.Token},
			"another's key":   {limited.Principal.AccessKey, plain.Token},
			"no token":        {plain.Principal.AccessKey, ""},
			"nonsense":        {plain.Principal.AccessKey, "c2Vzc2lvbg=="},
			"cut":             {plain.Principal.AccessKey, plain.Token[:len(plain.Token)-4]},
		} {
			if _, ok := s.Session(c.key, c.token); ok {
				t.Errorf("%s: %s is let in", when, name)
			}
		}
	}
	check("at once")
	done()
	s, done = open(t, dir)
	defer func() { done() }()
	if _, ok := s.Rights(plain.Principal.AccessKey); ok {
		t.Error("a session has rights before its token came")
	}
	check("after a restart")

	for name, c := range map[string]struct {
		session identity.Session
		code    string
	}{
		"no policy":      {identity.Session{Policies: []string{"{}"}}, "MalformedPolicyDocument"},
		"missing policy": {identity.Session{PolicyARNs: []string{basic + "s"}}, "NoSuchEntity"},
	} {
		if _, err := s.Assume(role, c.session); code(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}

	// A role that is made anew is another.
	must(t, s.ChangeRole(ctx, ours, "r", func(r *identity.Role) error { clear(r.Inline); return nil }))
	must(t, s.DeleteRole(ctx, ours, "r"))
	gone := func(when string) {
		t.Helper()
		if _, ok := s.Session(plain.Principal.AccessKey, plain.Token); ok {
			t.Errorf("%s: the session goes on", when)
		}
		if _, ok := s.Rights(plain.Principal.AccessKey); ok {
			t.Errorf("%s: the session has rights", when)
		}
	}
	gone("deleted")
	create()
	gone("made anew")
}

func TestRoleNames(t *testing.T) {
	t.Parallel()
	s, done := open(t, t.TempDir())
	defer done()
	for _, name := range []string{"a.b", "a+b", "a=b", "a,b", "a@b", "a-b", "a_b", "a2eb", "Ab"} {
		_, err := s.CreateRole(t.Context(), identity.Role{Account: ours, Name: name, Path: "/", Trust: trust})
		must(t, err)
		if s.Role(ours, name) == nil {
			t.Errorf("%s is not found", name)
		}
	}
	if n := len(s.Roles(ours, "/")); n != 9 {
		t.Errorf("%d roles", n)
	}
	for text, want := range map[string]identity.RoleARN{
		"arn:aws:iam::123456789012:role/a":    {Account: ours, Path: "/", Name: "a"},
		"arn:aws:iam::123456789012:role/p/a":  {Account: ours, Path: "/p/", Name: "a"},
		"arn:aws:iam::123456789012:user/a":    {},
		"arn:aws:iam::123456789012:role/":     {},
		"role/a":                              {},
		"arn:aws:lambda::123456789012:role/a": {},
	} {
		got, ok := identity.ParseRoleARN(text)
		if ok != (want.Name != "") || ok && (got != want || got.String() != text) {
			t.Errorf("%s is read as %+v, %v", text, got, ok)
		}
	}
}
