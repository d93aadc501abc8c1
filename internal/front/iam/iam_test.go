package iam_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"go.uber.org/goleak"

	"kiln/internal/aws/iamapi"
	"kiln/internal/front"
	"kiln/internal/front/iam"
	"kiln/internal/identity"
	"kiln/internal/state/jetstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clear seals nothing.
type clear struct{}

func (clear) Seal(plaintext, _ []byte) ([]byte, error) { return plaintext, nil }
func (clear) Unseal(sealed, _ []byte) ([]byte, error)  { return sealed, nil }

const (
	trust = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"lambda.amazonaws.com"},"Action":"sts:AssumeRole"}]}`
	lists = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"lambda:*","Resource":"*"}]}`
	all   = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iam:*","Resource":"*"}]}`
)

// form has the members of every operation.
func form(operation, policyARN string) string {
	return url.Values{
		"Action": {operation}, "RoleName": {"r"}, "PolicyName": {"p"}, "UserName": {"u"}, "PolicyArn": {policyARN}, "VersionId": {"v1"},
		"PolicyDocument": {lists}, "AssumeRolePolicyDocument": {trust}, "PermissionsBoundary": {policyARN}, "Description": {"d"},
		"Tags.member.1.Key": {"k"}, "Tags.member.1.Value": {"v"}, "TagKeys.member.1": {"k"}, "AWSServiceName": {"ecs.amazonaws.com"},
	}.Encode()
}

// TestWhoMay asks every operation for somebody whose policy does not allow it, and
// for somebody of another account: nobody gets in, and nothing is changed.
func TestWhoMay(t *testing.T) {
	t.Parallel()
	engine := jetstream.New(jetstream.Config{Dir: t.TempDir(), Node: "test"})
	if err := engine.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer engine.Close()
	store := identity.New(engine.State(), clear{})
	if err := store.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	handler := iam.New(iam.Config{
		Access: front.NewAccess(front.Config{Account: "123456789012", Region: "us-east-1", Identities: store}), Identities: store,
		Admit: func(context.Context, int64) (func(), error) { return func() {}, nil }, Log: slog.New(slog.DiscardHandler),
	}).Handler(false)
	_, err := store.CreateRole(t.Context(), identity.Role{Account: "123456789012", Name: "r", Path: "/", Trust: trust, Inline: map[string]string{"p": lists}})
	if err != nil {
		t.Fatal(err)
	}
	own, err := store.CreatePolicy(t.Context(), identity.ManagedPolicy{Account: "123456789012", Name: "p", Path: "/"}, lists)
	if err != nil {
		t.Fatal(err)
	}
	before := *store.Role("123456789012", "r")
	as := func(name, policy string, foreign bool) func(body string) (int, string) {
		account := own.Account
		if foreign {
			account = "210987654321"
		}
		key, secret, err := store.CreateKey(t.Context(), account, name, policy)
		if err != nil {
			t.Fatal(err)
		}
		return func(body string) (int, string) {
			r := httptest.NewRequest("POST", "http://localhost/", strings.NewReader(body))
			sum := sha256.Sum256([]byte(body))
			if err := v4.NewSigner().SignHTTP(t.Context(), aws.Credentials{AccessKeyID: key.ID, SecretAccessKey: secret}, r, hex.EncodeToString(sum[:]), "iam", "us-east-1", time.Now()); err != nil {
				t.Fatal(err)
			}
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, r)
			return w.Code, w.Body.String()
		}
	}
	denied, stranger, allowed := as("denied", lists, false), as("stranger", "", true), as("allowed", all, false)
	arn := own.ARN().String()
	for name, op := range iamapi.API.Operations {
		if name == "CreateServiceLinkedRole" { // refused to all
			continue
		}
		if status, answer := denied(form(name, arn)); status != http.StatusForbidden || !strings.Contains(answer, "<Code>AccessDenied</Code>") || !strings.Contains(answer, "is not authorized to perform: "+op.Action+" on resource: ") {
			t.Errorf("%s is not denied: %d %s", name, status, answer)
		}
		// What is named by its ARN is the other account's; what is named by its name is
		// looked for in the stranger's own.
		if status, answer := stranger(form(name, arn)); strings.Contains(name, "Policy") && !strings.Contains(name, "Role") && name != "CreatePolicy" && status != http.StatusForbidden || strings.Contains(answer, "123456789012:role") {
			t.Errorf("%s is open to another account: %d %s", name, status, answer)
		}
	}
	if now := store.Role("123456789012", "r"); now == nil || now.Trust != before.Trust || now.Description != "" || len(now.Tags) != 0 || len(now.Attached) != 0 || now.Inline["p"] != lists {
		t.Errorf("the role is now %+v", now)
	}
	for _, name := range []string{"GetRole", "ListRoles", "GetPolicy", "ListPolicies", "TagRole", "AttachRolePolicy"} {
		if status, answer := allowed(form(name, arn)); status != http.StatusOK {
			t.Errorf("%s is denied to who may: %d %s", name, status, answer)
		}
	}
	if status, answer := allowed(form("GetPolicy", "arn:aws:iam::aws:policy/AdministratorAccess")); status != http.StatusOK {
		t.Errorf("AWS's policies are denied to who may: %d %s", status, answer)
	}
}
