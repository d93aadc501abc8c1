package lambdaapi_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"kiln/internal/aws/lambdaapi"
)

var update = flag.Bool("update", false, "write the golden files")

type unimplemented = lambdaapi.Unimplemented

// Every operation of the table is found under its own path.
func TestRoute(t *testing.T) {
	t.Parallel()
	parameter := regexp.MustCompile(`\{[^}]*\}`)
	const arn = "arn:aws:lambda:eu-west-1:000000000000:function:f/x%y"
	for _, slash := range []string{"", "/"} {
		for _, op := range lambdaapi.Operations() {
			want := len(parameter.FindAllString(op.Path, -1))
			path, query, _ := strings.Cut(parameter.ReplaceAllString(op.Path, url.PathEscape(arn)), "?")
			u, err := url.Parse("http://localhost" + path + slash + "?" + query)
			if err != nil {
				t.Fatal(err)
			}
			found, params := lambdaapi.Route(op.Method, u)
			if found == nil || found.Name != op.Name {
				t.Errorf("%s %s: found %v", op.Method, u, found)
				continue
			}
			if len(params) != want {
				t.Errorf("%s: got parameters %q", op.Name, params)
			}
			for _, p := range params {
				if p != arn {
					t.Errorf("%s: got parameter %q", op.Name, p)
				}
			}
		}
	}
}

func TestUnknown(t *testing.T) {
	t.Parallel()
	for _, request := range []string{"GET /", "PATCH /2015-03-31/functions", "GET /2015-03-31/functions//policy", "GET /2015-03-31/functions/f/nothing", "GET /2015-03-31"} {
		method, target, _ := strings.Cut(request, " ")
		res, _ := do(t, handler(nil), method, target, "", nil)
		if res.StatusCode != 404 || res.Header.Get("X-Amzn-Errortype") != "UnknownOperationException" {
			t.Errorf("%s: got %s", request, res.Status)
		}
	}
}

// botocore, given the least that its model asks for, reaches each operation, and
// what is not built says so.
func TestBotocoreReachesEveryOperation(t *testing.T) {
	t.Parallel()
	if err := exec.Command("python3", "-c", "import botocore").Run(); err != nil {
		t.Skip("python3 with botocore is not installed:", err)
	}
	h := handler(unimplemented{})
	open := h.Open
	var mu sync.Mutex
	var opened []string // guarded by mu
	h.Open = func(r *http.Request, op *lambdaapi.Operation, id string) (lambdaapi.Call, error) {
		mu.Lock()
		defer mu.Unlock()
		opened = append(opened, op.Name)
		return open(r, op, id)
	}
	server := httptest.NewServer(h)
	defer server.Close()
	args := []string{"testdata/every_operation.py", server.URL}
	for _, op := range lambdaapi.Operations() {
		args = append(args, op.Name)
	}
	cmd := exec.Command("python3", args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	answers := map[string]struct {
		Status        int
		Code, Message string
	}{}
	if err := json.Unmarshal(out, &answers); err != nil {
		t.Fatal(err)
	}
	for i, op := range lambdaapi.Operations() {
		if i >= len(opened) || opened[i] != op.Name {
			t.Fatalf("operation %d is %s, got %q", i, op.Name, opened)
		}
		got, want := answers[op.Name], op.Name+" is not built yet in Kiln. docs/compatibility.md lists what is."
		if got.Status != 501 || got.Code != "NotImplementedException" || got.Message != want {
			t.Errorf("%s: got %+v", op.Name, got)
		}
	}
	if len(answers) != 85 {
		t.Errorf("got %d operations", len(answers))
	}
}

// The wire form of errors: whether there is a Type, and how message is spelt.
func TestErrorsOnTheWire(t *testing.T) {
	t.Parallel()
	var got strings.Builder
	for _, code := range []string{
		"AccessDeniedException", "CodeSigningConfigNotFoundException", "CodeStorageExceededException", "ENILimitReachedException",
		"IncompleteSignatureException", "InvalidParameterValueException", "InvalidRequestContentException", "InvalidRuntimeException",
		"InvalidSignatureException", "MissingAuthenticationTokenException", "NotImplementedException", "PolicyLengthExceededException",
		"PreconditionFailedException", "ProvisionedConcurrencyConfigNotFoundException", "RecursiveInvocationException",
		"RequestEntityTooLargeException", "RequestTooLargeException", "ResourceConflictException", "ResourceInUseException",
		"ResourceNotFoundException", "ResourceNotReadyException", "SerializationException", "ServiceException", "ThrottlingException",
		"TooManyRequestsException", "UnknownOperationException", "UnrecognizedClientException", "UnsupportedMediaTypeException", "ValidationException",
	} {
		f := lambdaapi.NewFault(code, `a "message" <b>`)
		if code == "TooManyRequestsException" {
			f.Reason, f.RetryAfter = "CallerRateLimitExceeded", 1
		}
		w := httptest.NewRecorder()
		lambdaapi.WriteFault(w, f)
		fmt.Fprintf(&got, "%d %s retry-after=%q\n%s\n", w.Code, w.Header().Get("X-Amzn-ErrorType"), w.Header().Get("Retry-After"), w.Body)
	}
	golden(t, "errors.txt", got.String())
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; run with -update and read the change:\n%s", path, got)
	}
}

// FuzzDecode throws bytes at every operation: nothing may panic, and every answer
// is one of ours.
func FuzzDecode(f *testing.F) {
	f.Add(uint8(7), "", `{"FunctionName":"f","Role":"r","Code":{"ZipFile":"AAAA"},"Layers":["a"],"Environment":{"Variables":{"AB":"c"}}}`)
	f.Add(uint8(3), "x=y", `{"Name":"a","RoutingConfig":{"AdditionalVersionWeights":{"1":0.5}}}`)
	f.Add(uint8(45), "MaxItems=1&Qualifier=x", ``)
	f.Add(uint8(2), "", `{"CheckpointToken":"a","Updates":[{"Id":"x","Error":{"StackTrace":["a"]}}]}`)
	operations := lambdaapi.Operations()
	parameter := regexp.MustCompile(`\{[^}]*\}`)
	f.Fuzz(func(t *testing.T, n uint8, query, body string) {
		op := operations[int(n)%len(operations)]
		path, fixed, _ := strings.Cut(parameter.ReplaceAllString(op.Path, "1"), "?")
		r := httptest.NewRequest(op.Method, path, strings.NewReader(body))
		r.URL.RawQuery = fixed + "&" + query
		w := httptest.NewRecorder()
		handler(unimplemented{}).ServeHTTP(w, r)
		switch w.Code {
		case 400, 413, 501:
		default:
			t.Errorf("%s %s: got %d %s", op.Name, body, w.Code, w.Body)
		}
		if !json.Valid(w.Body.Bytes()) {
			t.Errorf("an answer that is not JSON: %s", w.Body)
		}
	})
}

func BenchmarkInvoke(b *testing.B) {
	h := handler(fake{invoke: func(in *lambdaapi.InvokeInput) (*lambdaapi.InvokeOutput, error) {
		return &lambdaapi.InvokeOutput{StatusCode: new(200), Payload: in.Payload, ExecutedVersion: new("$LATEST")}, nil
	}})
	body := strings.Repeat("x", 1024)
	for b.Loop() {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("POST", "/2015-03-31/functions/f/invocations", strings.NewReader(body)))
		if w.Code != 200 {
			b.Fatal(w.Code)
		}
	}
}

func BenchmarkCreateFunction(b *testing.B) {
	h := handler(fake{createFunction: func(*lambdaapi.CreateFunctionInput) (*lambdaapi.CreateFunctionOutput, error) { return nil, nil }})
	body := "{" + strings.Replace(minimal, "AAAA", strings.Repeat("AAAA", 10<<20/4), 1) + "}"
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("POST", "/2015-03-31/functions", strings.NewReader(body)))
		if w.Code != 201 {
			b.Fatal(w.Code, w.Body)
		}
	}
}
