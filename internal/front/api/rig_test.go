package api_test

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"kiln/internal/front"
	"kiln/internal/front/api"
	"kiln/internal/lambda"
	"kiln/internal/registry"
	"kiln/internal/registry/capacity"
	"kiln/internal/registry/mapping"
	"kiln/internal/registry/signing"
	"kiln/internal/state/jetstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	account = "123456789012"
	region  = "us-east-1"
	arn     = "arn:aws:lambda:us-east-1:123456789012:function:"
	layers  = "arn:aws:lambda:us-east-1:123456789012:layer:"
	path    = "/2015-03-31/functions"
	uuid    = "11111111-2222-3333-4444-555555555555"
)

// rig is the Lambda API's door over the real registries and their engine. Nothing in
// it runs functions, and packages are kept nowhere.
type rig struct {
	http.Handler
	t         *testing.T
	functions *registry.Registry
	changed   chan struct{} // has something after every change of a function
	kept      *environments
}

// environments are what there is of provisioned concurrency, as a test has it.
type environments struct {
	allocated, available int
	failed               string
}

func (e *environments) read(lambda.FunctionARN) (allocated, available int, failed string) {
	return e.allocated, e.available, e.failed
}

func newRig(t *testing.T) *rig {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	engine := jetstream.New(jetstream.Config{Dir: t.TempDir(), Node: "test"})
	if err := engine.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	changed := make(chan struct{}, 1)
	functions := registry.New(engine.State(), packages{}, anything{}, clear{}, func(lambda.FunctionARN, *lambda.Function) {
		select {
		case changed <- struct{}{}:
		default: // it has
		}
	}, log,
		registry.Config{Architecture: lambda.X86_64, Concurrency: lambda.DefaultConcurrency, CodeStorage: lambda.DefaultCodeStorage})
	t.Cleanup(func() {
		functions.Close()
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	})
	mappings := mapping.New(engine.State(), functions, func(lambda.MappingARN, *lambda.EventSourceMapping) {})
	signings := signing.New(engine.State(), func(lambda.SigningConfigARN) bool { return false })
	providers := capacity.New(engine.State())
	for _, open := range []func(context.Context) error{functions.Open, mappings.Open, signings.Open, providers.Open} {
		if err := open(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	kept := &environments{}
	door := api.New(api.Config{
		Access:   front.NewAccess(front.Config{Account: account, Region: region}),
		Registry: functions, Mappings: mappings, Polling: func(lambda.MappingARN) string { return "" }, Signing: signings, Capacity: providers, Runtimes: anything{}, Log: log,
		Provisioned: kept.read,
		Admit:       func(context.Context, int64) (func(), error) { return func() {}, nil },
	})
	return &rig{door.Handler(false), t, functions, changed, kept}
}

// packages are verified, and forgotten. An object's content is its key.
type packages struct{}

func (packages) Add(_ context.Context, in *io.SectionReader) (lambda.Code, error) {
	if _, err := zip.NewReader(in, in.Size()); err != nil {
		return lambda.Code{}, lambda.InvalidParameter("Could not unzip uploaded file. Please check your file, then try to upload again.")
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(in, 0, in.Size())); err != nil {
		return lambda.Code{}, err
	}
	return lambda.Code{SHA256: base64.StdEncoding.EncodeToString(sum.Sum(nil)), Size: in.Size()}, nil
}

func (packages) Fetch(_ context.Context, o lambda.S3Object) (*io.SectionReader, func(), error) {
	content := archive(o.Key)
	return io.NewSectionReader(bytes.NewReader(content), 0, int64(len(content))), func() {}, nil
}

func (packages) Resolve(_ context.Context, uri string) (lambda.Code, error) {
	return lambda.Code{SHA256: strings.Repeat("0", 64), ImageURI: uri, ResolvedImageURI: uri + "@sha256:0"}, nil
}
func (packages) Pull(context.Context, lambda.Code) error   { return nil }
func (packages) Remove(context.Context, lambda.Code) error { return nil }

// anything is a machine on which any runtime is installed.
type anything struct{}

func (anything) Check(context.Context, *lambda.Settings, lambda.Code) error { return nil }
func (anything) VersionARN(lambda.RuntimeID, lambda.Region) string          { return "" }

// clear seals nothing: what is sealed is shown elsewhere.
type clear struct{}

func (clear) Seal(b, _ []byte) ([]byte, error)   { return b, nil }
func (clear) Unseal(b, _ []byte) ([]byte, error) { return b, nil }

// archive is a zip of one file.
func archive(content string) []byte {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	w, err := z.Create("f")
	if err == nil {
		_, err = io.WriteString(w, content)
	}
	if err = errors.Join(err, z.Close()); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// code is a zip as a request has it.
func code(content string) string { return base64.StdEncoding.EncodeToString(archive(content)) }

// function is the body of a creation; more, such as `,"Timeout":5`, comes last, and so
// replaces what is there.
func function(name, more string) string {
	return `{"FunctionName":"` + name + `","Runtime":"python3.13","Handler":"f.h","Role":"arn:aws:iam::123456789012:role/r","Code":{"ZipFile":"` + code(name) + `"}` + more + `}`
}

// step is one request, and what must come of it.
type step struct {
	name         string
	method, path string
	body         string
	status       int
	// code is the exception's, and want its whole message. Without a code, want is
	// JSON of which the answer must have every member: null for one that must be
	// missing, "*" for any value. "" is an answer without body.
	code string
	want string
	keep string // member of the answer that later steps have in place of $NAME, its name in capitals
}

// get is a step that reads.
func get(name, path string, status int, code, want string) step {
	return step{name: name, method: "GET", path: path, status: status, code: code, want: want}
}

// post is a step that makes something.
func post(name, path, body string, status int, code, want string) step {
	return step{name: name, method: "POST", path: path, body: body, status: status, code: code, want: want}
}

// put is a step that replaces something.
func put(name, path, body string, status int, code, want string) step {
	return step{name: name, method: "PUT", path: path, body: body, status: status, code: code, want: want}
}

// remove is a step that deletes.
func remove(name, path string, status int, code, want string) step {
	return step{name: name, method: "DELETE", path: path, status: status, code: code, want: want}
}

// members are those of an exception, besides the message: the case of that matters to
// strict clients, and so does a Type that AWS does not give.
var members = map[string]string{
	"InvalidParameterValueException": "message", "ResourceConflictException": "message", "PreconditionFailedException": "message",
	"PolicyLengthExceededException": "message", "ProvisionedConcurrencyConfigNotFoundException": "message", "TooManyRequestsException": "message",
	"ResourceNotFoundException": "Message", "CodeSigningConfigNotFoundException": "Message", "ServiceException": "Message",
	"ValidationException": "", "AccessDeniedException": "", "RequestEntityTooLargeException": "",
}

var requestID = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// table makes the requests in their order, each once what the last has changed is settled.
func (r *rig) table(steps []step) {
	r.t.Helper()
	kept := strings.NewReplacer()
	var pairs []string
	for i, s := range steps {
		name := s.name
		if name == "" {
			name = fmt.Sprintf("%d %s %s", i, s.method, s.path)
		}
		answer := r.send(s.method, kept.Replace(s.path), kept.Replace(s.body))
		for _, problem := range s.check(answer, kept.Replace(s.want)) {
			r.t.Errorf("%s: %s", name, problem)
		}
		if s.keep != "" {
			var out map[string]any
			_ = json.Unmarshal(answer.Body.Bytes(), &out)
			if out[s.keep] == nil {
				r.t.Fatalf("%s: there is no %s in %s", name, s.keep, answer.Body)
			}
			pairs = append([]string{"$" + strings.ToUpper(s.keep), fmt.Sprint(out[s.keep])}, pairs...) // the latest counts
			kept = strings.NewReplacer(pairs...)
		}
	}
}

// send makes a request as any client does. Who signed it does not matter: there are no keys.
func (r *rig) send(method, path, body string) *httptest.ResponseRecorder {
	in := httptest.NewRequestWithContext(r.t.Context(), method, "http://localhost"+path, strings.NewReader(body))
	in.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/lambda/aws4_request, SignedHeaders=host;x-amz-date, Signature=00")
	in.Header.Set("X-Amz-Date", "20260101T000000Z")
	answer := httptest.NewRecorder()
	r.ServeHTTP(answer, in)
	r.settle()
	return answer
}

// settle waits until no change of a function is in progress.
func (r *rig) settle() {
	scope := lambda.Scope{Account: account, Region: region}
	late := time.After(time.Minute)
	for {
		page, _ := r.functions.ListAll(scope, registry.Position{}, 1000)
		if !slices.ContainsFunc(page, func(f *lambda.Function) bool {
			return f.State == lambda.Pending || f.UpdateStatus == lambda.UpdateInProgress
		}) {
			return
		}
		select {
		case <-r.changed:
		case <-late:
			r.t.Fatal("a function does not settle")
		}
	}
}

// check says what is wrong with an answer.
func (s step) check(answer *httptest.ResponseRecorder, want string) (problems []string) {
	bad := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	header, text := answer.Header(), answer.Body.String()
	if answer.Code != s.status {
		bad("status %d, want %d: %s", answer.Code, s.status, text)
		return problems
	}
	if id := header.Get("X-Amzn-Requestid"); !requestID.MatchString(id) {
		bad("request id %q", id)
	}
	if s.code == "" && want == "" {
		if text != "" {
			bad("answered %s, want nothing", text)
		}
		return problems
	}
	if kind := header.Get("Content-Type"); kind != "application/json" {
		bad("content type %q", kind)
	}
	var got any
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		bad("answered %q: %v", text, err)
		return problems
	}
	if s.code != "" {
		if kind := header.Get("X-Amzn-Errortype"); kind != s.code {
			bad("error type %q, want %q", kind, s.code)
		}
		member, known := members[s.code]
		if !known {
			bad("members does not know %s", s.code)
		}
		error := map[string]any{member: want, "Type": "User"}
		if member == "" {
			error = map[string]any{"message": want}
			if s.code == "AccessDeniedException" {
				error = map[string]any{"Message": want}
			}
		}
		if s.status >= 500 {
			error["Type"] = "Service"
		}
		if !reflect.DeepEqual(got, any(error)) {
			b, _ := json.Marshal(error)
			bad("\n got %s\nwant %s", text, b)
		}
		return problems
	}
	var wanted any
	if err := json.Unmarshal([]byte(want), &wanted); err != nil {
		bad("want is not JSON: %v", err)
		return problems
	}
	differ("", got, wanted, bad)
	return problems
}

// differ compares an answer with what of it is wanted.
func differ(at string, got, want any, bad func(string, ...any)) {
	switch want := want.(type) {
	case map[string]any:
		has, ok := got.(map[string]any)
		if !ok {
			bad("%s is %v, want an object", at, got)
			return
		}
		for name, value := range want {
			differ(at+"."+name, has[name], value, bad)
		}
	case []any:
		has, ok := got.([]any)
		if !ok || len(has) != len(want) {
			bad("%s is %v, want %d elements", at, got, len(want))
			return
		}
		for i := range want {
			differ(fmt.Sprintf("%s[%d]", at, i), has[i], want[i], bad)
		}
	default:
		if want == "*" && got != nil {
			return
		}
		if !reflect.DeepEqual(got, want) {
			bad("%s is %v, want %v", at, got, want)
		}
	}
}
