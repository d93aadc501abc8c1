package registry_test

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"kiln/internal/lambda"
	"kiln/internal/registry"
)

func (r *rig) reserve(name string, n int) error {
	return r.Reserve(r.t.Context(), named(name), &n)
}

// refusal is the code and text of an error that a caller gets, "" of none.
func refusal(err error) string {
	if err == nil {
		return ""
	}
	e := lambda.AsError(err)
	if e == nil {
		return err.Error()
	}
	return e.Code + ": " + e.Message
}

func TestReservedConcurrency(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.create("f", "zip0")
	r.create("g", "zip1")
	const decreases = "InvalidParameterValueException: Specified ReservedConcurrentExecutions for function decreases account's UnreservedConcurrentExecution below its minimum value of [100]."
	for _, c := range []struct {
		name    string
		n       int
		refused string
	}{
		{"f", 901, decreases}, {"f", 900, ""}, {"g", 0, ""}, {"g", 1, decreases}, {"f", 901, decreases}, {"f", 899, ""}, {"g", 1, ""},
		{"f", 900, decreases}, {"absent", 1, "ResourceNotFoundException: Function not found: " + named("absent").String()},
	} {
		if got := refusal(r.reserve(c.name, c.n)); got != c.refused {
			t.Errorf("%s reserves %d: %q, want %q", c.name, c.n, got, c.refused)
		}
	}
	reserved := func(name string, own int, reserves bool, all int) {
		t.Helper()
		if got, want := r.Share(named(name)), (lambda.Share{Reserves: reserves, Reserved: own, Claimed: all}); got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
	reserved("f", 899, true, 900)
	reserved("absent", 0, false, 900)
	r.reopen()
	reserved("f", 899, true, 900)
	if err := r.Delete(t.Context(), named("f")); err != nil {
		t.Fatal(err)
	}
	r.create("f", "zip2")
	reserved("f", 0, false, 1)
	if err := r.Reserve(t.Context(), named("g"), nil); err != nil {
		t.Fatal(err)
	}
	reserved("g", 0, false, 0)
	if a := r.Account(named("f").Scope); a.Functions != 2 || a.Unreserved != 1000 || a.Concurrency != 1000 {
		t.Errorf("account: %+v", a)
	}
}

func TestProvisionedConcurrency(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.create("f", "zip0")
	for n := range 2 {
		r.update("f", fmt.Sprint("zip", n+1))
		if _, err := r.Publish(t.Context(), registry.Publish{ARN: named("f")}); err != nil {
			t.Fatal(err)
		}
	}
	r.alias("f", "live", "1")
	for _, c := range []struct {
		q       lambda.Qualifier
		n       int
		refused string
	}{
		{"1", 901, "InvalidParameterValueException: Specified ConcurrentExecutions for function decreases account's UnreservedConcurrentExecution below its minimum value of [100]."},
		{"1", 1001, "InvalidParameterValueException: Specified ConcurrentExecutions for function is greater than account's unreserved concurrency [1000]."},
		{"1", 900, ""},
		{"1", 10, ""}, // in place of 900
		{"live", 10, "ResourceConflictException: Alias can't be used for Provisioned Concurrency configuration on an already Provisioned version"},
		{"3", 1, "ResourceNotFoundException: Function not found: " + qualified("f", "3").String()},
		{"none", 1, "ResourceNotFoundException: Cannot find alias arn: " + qualified("f", "none").String()},
		{"2", 20, ""},
	} {
		_, err := r.Provision(t.Context(), qualified("f", c.q), c.n)
		if got := refusal(err); got != c.refused {
			t.Errorf("%s %d: %q, want %q", c.q, c.n, got, c.refused)
		}
	}
	if got, want := refusal(r.reserve("f", 29)), "InvalidParameterValueException:  ReservedConcurrentExecutions  29 should not be lower than function's total provisioned concurrency [30]."; got != want {
		t.Errorf("reserves less: %q, want %q", got, want)
	}
	if err := r.reserve("f", 30); err != nil {
		t.Fatal(err)
	}
	_, err := r.Provision(t.Context(), qualified("f", "2"), 21)
	if got, want := refusal(err), "InvalidParameterValueException: Requested Provisioned Concurrency should not be greater than the reservedConcurrentExecution for function"; got != want {
		t.Errorf("more than is reserved: %q, want %q", got, want)
	}
	if a := r.Account(named("f").Scope); a.Unreserved != 970 { // what is provisioned is part of what is reserved
		t.Errorf("account: %+v", a)
	}
	if err := r.Unprovision(t.Context(), qualified("f", "1")); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Provision(t.Context(), qualified("f", "live"), 5); err != nil {
		t.Fatal(err)
	}
	r.reopen()
	_, err = r.Provision(t.Context(), qualified("f", "1"), 1)
	if got, want := refusal(err), "ResourceConflictException: Version is pointed by a Provisioned Concurrency alias"; got != want {
		t.Errorf("of an alias's version: %q, want %q", got, want)
	}
	if o, err := r.Owner(qualified("f", "live")); err != nil || o.Attached.Provisioned.Requested != 5 {
		t.Errorf("after a restart: %+v, %v", o, err)
	}
}

// Which environments are to be kept follows aliases, versions and configurations, and
// whoever keeps them is told of each change.
func TestAllotments(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.create("f", "zip0")
	r.create("g", "zip1")
	for n := range 3 {
		r.update("f", fmt.Sprint("zip", n+2))
		if _, err := r.Publish(t.Context(), registry.Publish{ARN: named("f")}); err != nil {
			t.Fatal(err)
		}
	}
	r.alias("f", "live", "1")
	told := func() int {
		r.mu.Lock()
		defer r.mu.Unlock()
		n := r.provisioned
		r.provisioned = 0
		return n
	}
	shows := func(what string, changes int, want ...string) {
		t.Helper()
		got := []string{}
		for _, a := range r.Allotments(named("f")) {
			got = append(got, fmt.Sprint(a.Owner.Qualifier, " ", a.Function.Version, " ", a.Environments))
		}
		slices.Sort(got)
		if !slices.Equal(got, want) && len(got)+len(want) > 0 {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
		if n := told(); n != changes {
			t.Errorf("%s: told %d times, want %d", what, n, changes)
		}
	}
	do := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	move := func(version lambda.Qualifier, routing registry.Routing) {
		t.Helper()
		_, err := r.UpdateAlias(t.Context(), registry.UpdateAlias{ARN: qualified("f", "live"), Version: &version, Routing: routing})
		do(nil, err)
	}
	shows("at first", 0)
	_, err := r.Provision(t.Context(), qualified("f", "live"), 10)
	do(nil, err)
	shows("the alias", 1, "live 1 10")
	move("1", registry.Routing{"2": 0.25})
	shows("two versions", 1, "live 1 7", "live 2 3")
	move("2", registry.Routing{})
	shows("moved", 1, "live 2 10")
	_, err = r.Provision(t.Context(), qualified("f", "3"), 4)
	do(nil, err)
	shows("a version too", 1, "3 3 4", "live 2 10")
	r.update("f", "zip9") // $LATEST, in two steps
	shows("$LATEST", 2, "3 3 4", "live 2 10")
	r.update("g", "zip9")
	shows("another function", 0, "3 3 4", "live 2 10")
	r.reopen()
	shows("after a restart", 0, "3 3 4", "live 2 10")
	if list := r.Provisioning(); len(list) != 1 || list[0] != named("f") {
		t.Errorf("functions with provisioned concurrency: %v", list)
	}
	do(nil, r.Unprovision(t.Context(), qualified("f", "3")))
	shows("taken away", 1, "live 2 10")
	do(nil, r.DeleteAlias(t.Context(), qualified("f", "live")))
	shows("with its alias", 1)
	if list := r.Provisioning(); len(list) != 0 {
		t.Errorf("functions with provisioned concurrency in the end: %v", list)
	}
	_, err = r.Provision(t.Context(), qualified("f", "1"), 1)
	do(nil, err)
	told()
	do(nil, r.Delete(t.Context(), named("f")))
	shows("deleted", 1)
}

// Whatever is reserved, provisioned and deleted, what every invocation asks for is what
// the functions have, and what the account keeps unreserved is never less than 100.
func TestConcurrencyIsNeverPromisedTwice(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	series := 0
	rapid.Check(t, func(rt *rapid.T) {
		series++
		names := []string{fmt.Sprint("a", series), fmt.Sprint("b", series), fmt.Sprint("c", series)}
		for _, name := range names {
			r.create(name, "zip0")
			if _, err := r.Publish(t.Context(), registry.Publish{ARN: named(name)}); err != nil {
				rt.Fatal(err)
			}
		}
		reserved, provisioned := map[string]int{}, map[string]int{}
		for range rapid.IntRange(1, 15).Draw(rt, "steps") {
			name := rapid.SampledFrom(names).Draw(rt, "name")
			n := rapid.SampledFrom([]int{0, 1, 100, 400, 500, 800, 900, 901}).Draw(rt, "n")
			switch rapid.SampledFrom([]string{"reserve", "share", "provision", "unprovision", "delete"}).Draw(rt, "step") {
			case "reserve":
				if r.reserve(name, n) == nil {
					reserved[name] = n
				}
			case "share":
				if r.Reserve(t.Context(), named(name), nil) == nil {
					delete(reserved, name)
				}
			case "provision":
				if _, err := r.Provision(t.Context(), qualified(name, "1"), n+1); err == nil {
					provisioned[name] = n + 1
				}
			case "unprovision":
				if r.Unprovision(t.Context(), qualified(name, "1")) == nil {
					delete(provisioned, name)
				}
			case "delete":
				if err := r.Delete(t.Context(), named(name)); err != nil {
					rt.Fatal(err)
				}
				delete(reserved, name)
				delete(provisioned, name)
				r.create(name, "zip0")
				if _, err := r.Publish(t.Context(), registry.Publish{ARN: named(name)}); err != nil {
					rt.Fatal(err)
				}
			}
			left := 1000
			for _, name := range names {
				n, reserves := reserved[name]
				if reserves {
					left -= n
				} else {
					left -= provisioned[name]
				}
				want := lambda.Share{Provisioned: provisioned[name], Reserves: reserves, Reserved: n, Function: provisioned[name]}
				got := r.Share(qualified(name, "1"))
				if got.Claimed = 0; got != want {
					rt.Fatalf("%s has %+v, want %+v", name, got, want)
				}
			}
			a := r.Account(named(names[0]).Scope)
			if all := r.Share(named(names[0])).Claimed; all != 1000-left || a.Unreserved != left || left < 100 {
				rt.Fatalf("all %d, unreserved %d of %d; reserved %v, provisioned %v", all, a.Unreserved, left, reserved, provisioned)
			}
		}
		for _, name := range names {
			if err := r.Delete(t.Context(), named(name)); err != nil {
				rt.Fatal(err)
			}
		}
	})
}

func TestPolicies(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.create("f", "zip0")
	if _, err := r.Publish(t.Context(), registry.Publish{ARN: named("f")}); err != nil {
		t.Fatal(err)
	}
	r.alias("f", "live", "1")
	add := func(arn lambda.FunctionARN, id string, revision lambda.RevisionID) string {
		return refusal(r.AddPermission(t.Context(), arn, lambda.Statement{ID: id, Action: "lambda:InvokeFunction", Principal: "s3.amazonaws.com", SourceARN: "arn:aws:s3:::b"}, revision))
	}
	owner := func(arn lambda.FunctionARN) registry.Owner {
		t.Helper()
		o, err := r.Owner(arn)
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	for _, q := range []lambda.Qualifier{"", "1", "live"} { // each has a policy of its own
		arn := qualified("f", q)
		before := owner(arn)
		if got := add(arn, "s", before.Revision); got != "" {
			t.Fatal(got)
		}
		after := owner(arn)
		if after.Revision == before.Revision || len(after.Attached.Policy.Statements) != 1 {
			t.Errorf("%s: %+v, after %+v", arn, after, before)
		}
		if got, want := add(arn, "s", ""), "ResourceConflictException: The statement id (s) provided already exists. Please provide a new statement id, or remove the existing statement."; got != want {
			t.Errorf("%s again: %q", arn, got)
		}
		operation := "GetPolicy"
		if q == "" {
			operation = "GetFunction/GetAlias"
		}
		if got, want := add(arn, "t", before.Revision), "PreconditionFailedException: The Revision Id provided does not match the latest Revision Id. Call the "+operation+" API to retrieve the latest Revision Id"; got != want {
			t.Errorf("%s with an old revision: %q, want %q", arn, got, want)
		}
		if got, want := refusal(r.RemovePermission(t.Context(), arn, "x", "")), "ResourceNotFoundException: Statement x is not found in resource policy."; got != want {
			t.Errorf("%s: %q, want %q", arn, got, want)
		}
	}
	r.reopen()
	arn := qualified("f", "live")
	if err := r.RemovePermission(t.Context(), arn, "s", owner(arn).Revision); err != nil {
		t.Error(err)
	}
	if got, want := refusal(r.RemovePermission(t.Context(), arn, "s", "")), "ResourceNotFoundException: No policy is associated with the given resource."; got != want {
		t.Errorf("twice: %q, want %q", got, want)
	}
	for i := 0; ; i++ { // to the limit of 20 KB, which the policy never passes
		got := add(named("f"), fmt.Sprintf("statement-%03d", i), "")
		size := len(owner(named("f")).Attached.Policy.JSON(named("f").String()))
		if size > lambda.MaxPolicy {
			t.Fatalf("a policy of %d bytes", size)
		}
		if got != "" {
			if want := "PolicyLengthExceededException: "; got[:len(want)] != want || size < lambda.MaxPolicy-400 {
				t.Errorf("at %d bytes: %s", size, got)
			}
			break
		}
	}
	one := owner(named("f")).Attached.Policy.Statements[0].JSON("arn")
	if want := `{"Sid":"s","Effect":"Allow","Principal":{"Service":"s3.amazonaws.com"},"Action":"lambda:InvokeFunction","Resource":"arn","Condition":{"ArnLike":{"AWS:SourceArn":"arn:aws:s3:::b"}}}`; one != want {
		t.Errorf("a statement: %s, want %s", one, want)
	}
}

// The account's code storage counts each version's code.
func TestCodeStorage(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.create("f", "zip0")
	size := r.Account(named("f").Scope).CodeSize
	if f, err := r.Get(named("f")); err != nil || size != f.Code.Size || size == 0 {
		t.Fatalf("%d, %v", size, err)
	}
	if _, err := r.Publish(t.Context(), registry.Publish{ARN: named("f")}); err != nil {
		t.Fatal(err)
	}
	if got := r.Account(named("f").Scope).CodeSize; got != 2*size {
		t.Errorf("with a version: %d, want %d", got, 2*size)
	}
}
