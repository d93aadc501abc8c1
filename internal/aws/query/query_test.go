package query_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"kiln/internal/aws/query"
	"kiln/internal/aws/wire"
)

type item struct{ Key, Value *string }

type in struct {
	Name  *string
	Size  *int
	Whole *bool
	Items []item
	Names []string
	Inner *item
	Lower *string `query:"lower"`
}

type out struct {
	Name  *string
	At    *time.Time
	Items []item
	Names []string
	Count *int
	Fine  *bool
}

type service interface {
	Do(context.Context, *in) (*out, error)
	Nothing(context.Context, *in) (*struct{}, error)
}

// fake shows what it was asked.
type fake struct{ got *in }

func (f *fake) Do(_ context.Context, i *in) (*out, error) {
	f.got = i
	if wire.Value(i.Name) == "fail" {
		return nil, errors.New("a secret")
	}
	return &out{Name: i.Name, At: new(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)), Items: []item{{new("a"), nil}}, Names: []string{}, Count: new(3), Fine: new(true)}, nil
}

func (f *fake) Nothing(context.Context, *in) (*struct{}, error) { return nil, nil }

func check(i *in, v *wire.Violations, prefix string) { v.Require(i.Name != nil, prefix, "name") }

func handler(f *fake) http.Handler {
	return &query.Handler[service]{
		API: &query.API[service]{
			Title: "Test", Version: "2026-01-01", Namespace: "https://example.com/doc/",
			Operations: map[string]*query.Operation[service]{
				"Do": query.Op("Do", "test:Do", service.Do, check), "Nothing": query.Op("Nothing", "test:Nothing", service.Nothing, nil),
			},
			Others: map[string]bool{"Later": true},
		},
		Open: func(r *http.Request, _ string) (query.Call[service], error) {
			if r.Header.Get("Authorization") != "" {
				return query.Call[service]{}, &wire.Fault{Code: "AccessDenied", Status: 403, Message: "no <you>"}
			}
			return query.Call[service]{Serve: func(*query.Operation[service]) service { return f }}, nil
		},
		Fault: func(*http.Request, *query.Operation[service], error) *wire.Fault {
			return &wire.Fault{Code: "InternalFailure", Status: 500, Message: "it failed"}
		},
		Admit: func(context.Context, int64) (func(), error) { return func() {}, nil },
	}
}

func post(h http.Handler, body string) (int, string) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("POST", "/", strings.NewReader(body)))
	b, _ := io.ReadAll(w.Body)
	text := string(b)
	if id := w.Header().Get("X-Amzn-Requestid"); id != "" {
		text = strings.Replace(text, id, "ID", 1)
	}
	return w.Code, text
}

func refused(kind, code, message string) string {
	return `<ErrorResponse xmlns="https://example.com/doc/"><Error><Type>` + kind + `</Type><Code>` + code + `</Code><Message>` + message + `</Message></Error><RequestId>ID</RequestId></ErrorResponse>`
}

func TestHandler(t *testing.T) {
	t.Parallel()
	done := `<DoResponse xmlns="https://example.com/doc/"><DoResult><Name>a &lt;b&gt;</Name><At>2026-01-02T03:04:05Z</At><Items><member><Key>a</Key></member></Items><Names></Names><Count>3</Count><Fine>true</Fine></DoResult><ResponseMetadata><RequestId>ID</RequestId></ResponseMetadata></DoResponse>`
	for _, c := range []struct {
		name, body string
		status     int
		answer     string
	}{
		{"an answer", "Action=Do&Version=2026-01-01&Name=a+%3Cb%3E", 200, done},
		{"without a version", "Action=Do&Name=a+%3Cb%3E", 200, done},
		{"nothing to say", "Action=Nothing", 200, `<NothingResponse xmlns="https://example.com/doc/"><NothingResult></NothingResult><ResponseMetadata><RequestId>ID</RequestId></ResponseMetadata></NothingResponse>`},
		{"another version", "Action=Do&Version=2000-01-01", 400, refused("Sender", "InvalidAction", "Could not find operation Do for version 2000-01-01")},
		{"not built", "Action=Later", 501, refused("Receiver", "NotImplemented", "Later of Test is not built in Kiln. docs/compatibility.md lists what is.")},
		{"unknown", "Action=Dance", 400, refused("Sender", "InvalidAction", "Could not find operation Dance for version 2026-01-01")},
		{"no action", "", 400, refused("Sender", "MissingAction", "The request must contain the parameter Action")},
		{"no form", "%zz", 400, refused("Sender", "MalformedQueryString", "The query string contains a syntax error")},
		{"missing member", "Action=Do", 400, refused("Sender", "ValidationError", "1 validation error detected: Value null at &#39;name&#39; failed to satisfy constraint: Member must not be null")},
		{"not a number", "Action=Do&Name=a&Size=many", 400, refused("Sender", "MalformedInput", "&#34;many&#34; at Size is not a valid integer")},
		{"not a boolean", "Action=Do&Name=a&Whole=maybe", 400, refused("Sender", "MalformedInput", "&#34;maybe&#34; at Whole is not a valid boolean")},
		{"not an index", "Action=Do&Name=a&Names.member.x=1", 400, refused("Sender", "MalformedInput", "&#34;x&#34; at Names is not a valid number of a list&#39;s element")},
		{"a failure", "Action=Do&Name=fail", 500, refused("Receiver", "InternalFailure", "it failed")},
	} {
		if status, answer := post(handler(&fake{}), c.body); status != c.status || answer != c.answer {
			t.Errorf("%s: %d\n got %s\nwant %s", c.name, status, answer, c.answer)
		}
	}
	r := httptest.NewRequest("POST", "/", strings.NewReader("Action=Do"))
	r.Header.Set("Authorization", "x")
	w := httptest.NewRecorder()
	handler(&fake{}).ServeHTTP(w, r)
	if w.Code != 403 || !strings.Contains(w.Body.String(), "<Message>no &lt;you&gt;</Message>") {
		t.Errorf("not let in: %d %s", w.Code, w.Body)
	}
	w = httptest.NewRecorder()
	handler(&fake{}).ServeHTTP(w, httptest.NewRequest("GET", "/?Action=Do&Name=x", nil))
	if w.Code != 200 {
		t.Errorf("GET: %d %s", w.Code, w.Body)
	}
	if status, answer := post(handler(&fake{}), "Action=Do&Name="+strings.Repeat("a", 2<<20)); status != 413 || !strings.Contains(answer, "RequestEntityTooLarge") {
		t.Errorf("too large: %d %s", status, answer)
	}
}

func TestMembers(t *testing.T) {
	t.Parallel()
	f := &fake{}
	form := url.Values{
		"Action": {"Do"}, "Name": {"first", "second"}, "Size": {"7"}, "Whole": {"true"}, "lower": {"l"}, "Inner.Key": {"k"}, "Unknown.member.1": {"x"},
		"Items.member.10.Key": {"c"}, "Items.member.2.Key": {"b"}, "Items.member.1.Key": {"a"}, "Items.member.1.Value": {""}, "Names": {""},
	}
	if status, answer := post(handler(f), form.Encode()); status != 200 {
		t.Fatalf("%d %s", status, answer)
	}
	i := f.got
	if *i.Name != "first" || *i.Size != 7 || !*i.Whole || *i.Lower != "l" || *i.Inner.Key != "k" || i.Inner.Value != nil || i.Names == nil || len(i.Names) != 0 {
		t.Errorf("read as %+v", i)
	}
	if len(i.Items) != 3 || *i.Items[0].Key != "a" || *i.Items[0].Value != "" || *i.Items[1].Key != "b" || *i.Items[2].Key != "c" || i.Items[2].Value != nil {
		t.Errorf("the list is read as %+v", i.Items)
	}
}

// Whatever a form holds, there is an answer, and never a failure of ours.
func FuzzForm(f *testing.F) {
	for _, s := range []string{"Action=Do&Name=a", "Action=Do&Items.member.1=x", "Action=Do&Items.member=x&Items.member.1.Key.Key=y", "Action=Do&Name.Name=a", "Action=Do&Names.member.-1=a", "=&.=&..=", "Action=Do&Size="} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, body string) {
		if status, answer := post(handler(&fake{}), body); status == 500 && !strings.Contains(body, "fail") && !strings.Contains(body, "%") {
			t.Fatalf("%q: %d %s", body, status, answer)
		}
	})
}
