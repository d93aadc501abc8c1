package identity_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"kiln/internal/identity"
	"kiln/internal/lambda"
	"kiln/internal/state/jetstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	ours   lambda.AccountID = "123456789012"
	theirs lambda.AccountID = "210987654321"
)

// sealer turns what it seals around, and knows its place.
type sealer struct{}

func (sealer) Seal(plaintext, context []byte) ([]byte, error) {
	b := append([]byte(string(context)+"\x00"), plaintext...)
	for i := range b {
		b[i] ^= 0xff
	}
	return b, nil
}

func (sealer) Unseal(sealed, context []byte) ([]byte, error) {
	b := bytes.Clone(sealed)
	for i := range b {
		b[i] ^= 0xff
	}
	plain, ok := bytes.CutPrefix(b, []byte(string(context)+"\x00"))
	if !ok {
		return nil, errors.New("sealed for another place")
	}
	return plain, nil
}

// open opens a store in a folder.
func open(t *testing.T, dir string) (s *identity.Store, close func()) {
	t.Helper()
	engine := jetstream.New(jetstream.Config{Dir: dir, Node: "test"})
	if err := engine.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	s = identity.New(engine.State(), sealer{})
	if err := s.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s, func() {
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	}
}

// holds tells whether a file in the folder has the text in it.
func holds(t *testing.T, dir, text string) (found bool) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		found = found || bytes.Contains(b, []byte(text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func code(err error) string {
	if e := lambda.AsError(err); e != nil {
		return e.Code
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

const policyOfReaders = `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"lambda:Get*","Resource":"*"}}`

func TestKeys(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, done := open(t, dir)
	if s.Keyed() {
		t.Fatal("it is closed before there was a key")
	}
	deploy, deploySecret, err := s.CreateKey(t.Context(), ours, "deploy", "")
	if err != nil {
		t.Fatal(err)
	}
	reader, readerSecret, err := s.CreateKey(t.Context(), theirs, "deploy", policyOfReaders)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ name, policy, code string }{
		"taken":    {"deploy", "", "ResourceConflictException"},
		"empty":    {"", "", "InvalidParameterValueException"},
		"slash":    {"a/b", "", "InvalidParameterValueException"},
		"long":     {strings.Repeat("a", 65), "", "InvalidParameterValueException"},
		"an id":    {deploy.ID, "", "InvalidParameterValueException"},
		"policy":   {"p", "{}", "InvalidParameterValueException"},
		"too long": {"p", strings.Replace(policyOfReaders, "Get*", strings.Repeat("G", 6144), 1), "InvalidParameterValueException"},
	} {
		if _, _, err := s.CreateKey(t.Context(), ours, c.name, c.policy); code(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
	check := func(when string) {
		t.Helper()
		if !s.Keyed() {
			t.Errorf("%s: it is open", when)
		}
		for _, c := range []struct {
			key    *identity.Key
			secret string
			arn    string
			all    bool
		}{
			{deploy, deploySecret, "arn:aws:iam::123456789012:user/deploy", true},
			{reader, readerSecret, "arn:aws:iam::210987654321:user/deploy", false},
		} {
			got, ok := s.Credential(c.key.ID)
			rights, _ := s.Rights(c.key.ID)
			if !ok || got.Secret != c.secret || len(c.secret) != 40 || got.Principal.ARN != c.arn || got.Principal.Account != c.key.Account || rights.All != c.all || (len(rights.Policies) == 1) == c.all {
				t.Errorf("%s: %s is %+v with %+v", when, c.arn, got, rights)
			}
		}
		if all, own := s.Keys(""), s.Keys(theirs); len(all) != 2 || len(own) != 1 || own[0].ID != reader.ID {
			t.Errorf("%s: %d keys in all, %d of %s", when, len(all), len(own), theirs)
		}
	}
	check("at once")
	done()
	for _, secret := range []string{deploySecret, readerSecret} {
		if holds(t, dir, secret) {
			t.Error("a secret lies on the disk in clear")
		}
	}
	if !holds(t, dir, deploy.ID) {
		t.Error("what is not sealed is not found on the disk")
	}
	s, done = open(t, dir)
	check("after a restart")

	if _, err := s.RevokeKey(t.Context(), ours, reader.ID); code(err) != "ResourceNotFoundException" {
		t.Errorf("another account's key is revoked: %v", err)
	}
	if _, err := s.RevokeKey(t.Context(), ours, "deploy"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.RevokeKey(t.Context(), ours, deploy.ID); code(err) != "ResourceNotFoundException" {
		t.Errorf("revoked twice: %v", err)
	}
	again, _, err := s.CreateKey(t.Context(), ours, "deploy", "")
	if err != nil || again.ID == deploy.ID {
		t.Fatalf("the name is not free again: %+v %v", again, err)
	}
	for account, id := range map[lambda.AccountID]string{ours: again.ID, theirs: reader.ID} {
		if _, err := s.RevokeKey(t.Context(), account, id); err != nil {
			t.Fatal(err)
		}
	}
	gone := func(when string) {
		t.Helper()
		for _, id := range []string{deploy.ID, reader.ID, again.ID} {
			if _, ok := s.Credential(id); ok {
				t.Errorf("%s: %s is still taken", when, id)
			}
			if _, ok := s.Rights(id); ok {
				t.Errorf("%s: %s still has rights", when, id)
			}
		}
		if !s.Keyed() || len(s.Keys("")) != 0 {
			t.Errorf("%s: open is %v, with %d keys", when, !s.Keyed(), len(s.Keys("")))
		}
	}
	gone("revoked")
	done()
	s, done = open(t, dir)
	defer done()
	gone("revoked, and restarted")
}
