package operator_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"kiln/internal/bootstrap"
	"kiln/internal/front"
	"kiln/internal/front/operator"
	"kiln/internal/lambda"
)

// catalog answers as its fields say.
type catalog struct {
	say  []string
	fail error
	got  bootstrap.Order
}

func (c *catalog) List(context.Context) (bootstrap.Listing, error) {
	return bootstrap.Listing{Entries: []bootstrap.Entry{{Addition: bootstrap.Addition{ID: "python3.13"}, Installation: bootstrap.Installation{Program: "/p", Version: "3.13.0"}, Bundles: true}}}, nil
}

func (c *catalog) Add(_ context.Context, o bootstrap.Order, say func(string)) error {
	c.got = o
	for _, line := range c.say {
		say(line)
	}
	return c.fail
}

func (c *catalog) Remove(context.Context, lambda.RuntimeID) error { return c.fail }

func TestRuntimes(t *testing.T) {
	t.Parallel()
	access := front.NewAccess(front.Config{Account: "123456789012", Region: "us-east-1", AccessKey: "AKIAROOT", Secret: "a secret of the root"})
	issued := access.Issue(&lambda.Function{ARN: lambda.FunctionARN{Scope: lambda.Scope{Account: "123456789012", Region: "us-east-1"}, Name: "f"}}, "environment")
	root := aws.Credentials{AccessKeyID: "AKIAROOT", SecretAccessKey: "a secret of the root"}
	function := aws.Credentials{AccessKeyID: issued.AccessKeyID, SecretAccessKey: issued.SecretAccessKey, SessionToken: issued.SessionToken}
	const runtime = `{"id":"python3.13","program":"/p","version":"3.13.0","advice":"kiln runtime add python3.13"}`
	refused := lambda.Conflict("Another runtime is being added.")
	for _, c := range []struct {
		what, method, path, body string
		who                      aws.Credentials
		catalog                  catalog
		status                   int
		want                     string // the body, or a part that is no JSON
	}{
		{"list", "GET", "", "", root, catalog{}, 200, `{"runtimes":[` + runtime + `]}` + "\n"},
		{"add", "POST", "/python3.13", `{"packages":["x==1"]}`, root, catalog{say: []string{"installing", "installed"}}, 200, `{"say":"installing"}` + "\n" + `{"say":"installed"}` + "\n" + `{"runtime":` + runtime + `}` + "\n"},
		{"refused at once", "POST", "/python3.13", "", root, catalog{fail: refused}, 409, "Another runtime is being added."},
		{"fails later", "POST", "/python3.13", "", root, catalog{say: []string{"installing"}, fail: refused}, 200, `{"say":"installing"}` + "\n" + `{"error":"Another runtime is being added."}` + "\n"},
		{"fails for Kiln's reasons", "POST", "/python3.13", "", root, catalog{say: []string{"installing"}, fail: errors.New("disk /dev/x is broken")}, 200, `{"say":"installing"}` + "\n" + `{"error":"Kiln failed to answer /_kiln/runtimes/python3.13; its log says why."}` + "\n"},
		{"nonsense", "POST", "/python3.13", "{", root, catalog{}, 400, "not as expected"},
		{"remove", "DELETE", "/python3.13", "", root, catalog{}, 200, "{}\n"},
		{"remove what is not there", "DELETE", "/python3.13", "", root, catalog{fail: lambda.NotFound("Nothing was added.")}, 404, "Nothing was added."},
		{"a function lists", "GET", "", "", function, catalog{}, 403, "the credentials of a function do not manage Kiln"},
		{"a function adds", "POST", "/python3.13", "", function, catalog{}, 403, "the credentials of a function do not manage Kiln"},
		{"a function removes", "DELETE", "/python3.13", "", function, catalog{}, 403, "the credentials of a function do not manage Kiln"},
		{"another key", "POST", "/python3.13", "", aws.Credentials{AccessKeyID: "AKIAROOT", SecretAccessKey: "a guess"}, catalog{}, 403, "signature"},
	} {
		door := operator.New(operator.Config{Access: access, Runtimes: &c.catalog, Metrics: http.NotFoundHandler(), Stopping: context.Background(), Log: slog.New(slog.DiscardHandler)})
		r := httptest.NewRequest(c.method, "http://localhost/_kiln/runtimes"+c.path, strings.NewReader(c.body))
		sum := sha256.Sum256([]byte(c.body))
		if err := v4.NewSigner().SignHTTP(t.Context(), c.who, r, hex.EncodeToString(sum[:]), "kiln", "us-east-1", time.Now()); err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		door.ServeHTTP(w, r)
		body, _ := io.ReadAll(w.Body)
		if w.Code != c.status || c.status == 200 && string(body) != c.want || !strings.Contains(string(body), c.want) {
			t.Errorf("%s: %d %s, want %d %s", c.what, w.Code, body, c.status, c.want)
		}
		if c.what == "add" && (c.catalog.got.ID != "python3.13" || len(c.catalog.got.Packages) != 1) {
			t.Errorf("ordered %+v", c.catalog.got)
		}
	}
}
