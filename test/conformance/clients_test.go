package conformance

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/lambda"

	"kiln/test/kiln"
)

// values are the members of a request or an answer, by AWS's names. Blobs are []byte.
type values map[string]any

// failure is an error as a client shows it to its user.
type failure struct {
	Class   string // the exception's type in the client's language
	Code    string
	Message string
	Status  int // HTTP; 0 where the client does not tell
}

func (f *failure) Error() string {
	return fmt.Sprintf("%s (%s, %d): %s", f.Code, f.Class, f.Status, f.Message)
}

// target is the Kiln that a client calls, and the key it signs with.
type target struct{ endpoint, key, secret, region, service string }

func anyKey(d *kiln.Daemon) target { return target{d.URL, "test", "test", "us-east-1", "lambda"} }

// client is one of the programs that people call Lambda with.
type client interface {
	call(to target, operation string, in values) (values, *failure)
	wait(to target, waiter, function string) *failure
	pages(to target, size int) ([][]string, *failure)
}

var clients = map[string]func() (client, error){
	"go":    func() (client, error) { return goSDK{}, nil },
	"boto3": boto3,
	"js":    javascript,
	"cli":   awsCLI,
}

// newClient skips the test where the client is not installed.
func newClient(t *testing.T, name string) client {
	c, err := clients[name]()
	if errors.Is(err, errMissing) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// each runs the test with each client, at once.
func each(t *testing.T, test func(t *testing.T, name string, c client)) {
	for name := range clients {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, name, newClient(t, name))
		})
	}
}

// errMissing is that a client is not installed here.
var errMissing = errors.New("not installed here; scripts/test.sh installs it")

// ── the SDK for Go ──

type goSDK struct{}

func (goSDK) new(to target) *lambda.Client {
	return lambda.New(lambda.Options{
		Region: to.region, BaseEndpoint: &to.endpoint, RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider(to.key, to.secret, ""),
	})
}

func (g goSDK) call(to target, operation string, in values) (values, *failure) {
	method := reflect.ValueOf(g.new(to)).MethodByName(operation)
	input := reflect.New(method.Type().In(1).Elem())
	in = maps.Clone(in)
	for name, v := range in {
		if b, ok := v.([]byte); ok && input.Elem().FieldByName(name).Type() == reflect.TypeFor[io.Reader]() {
			input.Elem().FieldByName(name).Set(reflect.ValueOf(bytes.NewReader(b)))
			delete(in, name)
		}
	}
	text, err := json.Marshal(in)
	if err == nil {
		err = json.Unmarshal(text, input.Interface())
	}
	if err != nil {
		panic(err) // the test asks for what the SDK does not have
	}
	out := method.Call([]reflect.Value{reflect.ValueOf(context.Background()), input})
	if err, _ := out[1].Interface().(error); err != nil {
		return nil, goFailure(err)
	}
	text, err = json.Marshal(out[0].Interface())
	var answer values
	if err == nil {
		err = json.Unmarshal(text, &answer)
	}
	if err != nil {
		panic(err)
	}
	delete(answer, "ResultMetadata")
	if payload, ok := answer["Payload"].(string); ok {
		answer["Payload"], _ = base64.StdEncoding.DecodeString(payload) // as Marshal wrote it
	}
	strip(answer)
	return answer, nil
}

// strip removes what an answer does not have: the SDK's types show it as zero.
func strip(v map[string]any) {
	for name, member := range v {
		switch m := member.(type) {
		case nil:
			delete(v, name)
		case string:
			if m == "" && name != "Description" && name != "VpcId" {
				delete(v, name)
			}
		case map[string]any:
			strip(m)
		case []any:
			for _, item := range m {
				if item, ok := item.(map[string]any); ok {
					strip(item)
				}
			}
		}
	}
}

func goFailure(err error) *failure {
	f := &failure{Message: err.Error()}
	var response *awshttp.ResponseError
	if errors.As(err, &response) {
		f.Status = response.HTTPStatusCode()
	}
	var api interface {
		error
		ErrorCode() string
		ErrorMessage() string
	}
	if errors.As(err, &api) {
		f.Class, f.Code, f.Message = reflect.TypeOf(api).Elem().Name(), api.ErrorCode(), api.ErrorMessage()
	}
	return f
}

func (g goSDK) wait(to target, waiter, function string) *failure {
	var err error
	in := &lambda.GetFunctionInput{FunctionName: &function}
	switch waiter {
	case "FunctionActiveV2":
		err = lambda.NewFunctionActiveV2Waiter(g.new(to)).Wait(context.Background(), in, time.Minute)
	case "FunctionUpdatedV2":
		err = lambda.NewFunctionUpdatedV2Waiter(g.new(to)).Wait(context.Background(), in, time.Minute)
	default:
		panic(waiter)
	}
	if err != nil {
		return goFailure(err)
	}
	return nil
}

func (g goSDK) pages(to target, size int) (all [][]string, f *failure) {
	pages := lambda.NewListFunctionsPaginator(g.new(to), &lambda.ListFunctionsInput{MaxItems: aws.Int32(int32(size))})
	for pages.HasMorePages() {
		page, err := pages.NextPage(context.Background())
		if err != nil {
			return nil, goFailure(err)
		}
		var names []string
		for _, f := range page.Functions {
			names = append(names, *f.FunctionName)
		}
		all = append(all, names)
	}
	return all, nil
}

// ── boto3 and the SDK for JavaScript, each in a process of its own ──

// script is a program that reads a request and writes an answer, a line of JSON each.
type script struct {
	mu  sync.Mutex // held for one request
	in  *json.Encoder
	out *json.Decoder
}

type scriptRequest struct {
	Do       string `json:"do"`
	Name     string `json:"name"`
	In       values `json:"in"`
	Endpoint string `json:"endpoint"`
	Key      string `json:"key"`
	Secret   string `json:"secret"`
	Region   string `json:"region"`
	Service  string `json:"service"`
}

// running are the scripts, to be ended after the last test.
var running struct {
	sync.Mutex
	stop []func()
}

func TestMain(m *testing.M) {
	code := m.Run()
	for _, stop := range running.stop {
		stop()
	}
	os.Exit(code)
}

// startProgram starts a program that ends with its standard input, after the last test.
func startProgram(program string, args ...string) (io.Writer, io.Reader, error) {
	cmd := exec.Command(program, args...)
	cmd.Stderr = os.Stderr
	cmd.Env = append(os.Environ(), "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "AWS_EC2_METADATA_DISABLED=true")
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	running.Lock()
	defer running.Unlock()
	running.stop = append(running.stop, func() {
		_ = in.Close() // which ends it
		_ = cmd.Wait()
	})
	return in, out, nil
}

func startScript(program string, args ...string) (*script, error) {
	in, out, err := startProgram(program, args...)
	if err != nil {
		return nil, err
	}
	return &script{in: json.NewEncoder(in), out: json.NewDecoder(bufio.NewReader(out))}, nil
}

func (s *script) do(to target, do, name string, in values) (values, *failure) {
	s.mu.Lock()
	defer s.mu.Unlock()
	request := scriptRequest{do, name, encodeBlobs(in).(values), to.endpoint, to.key, to.secret, to.region, to.service}
	var answer struct {
		Out   values   `json:"out"`
		Error *failure `json:"error"`
	}
	err := s.in.Encode(request)
	if err == nil {
		err = s.out.Decode(&answer)
	}
	if err != nil {
		return nil, &failure{Message: "the client's program ended: " + err.Error()}
	}
	if answer.Error != nil {
		return nil, answer.Error
	}
	return decodeBlobs(map[string]any(answer.Out)).(map[string]any), nil
}

func (s *script) call(to target, operation string, in values) (values, *failure) {
	return s.do(to, "call", operation, in)
}

func (s *script) wait(to target, waiter, function string) *failure {
	_, f := s.do(to, "wait", waiter, values{"FunctionName": function})
	return f
}

func (s *script) pages(to target, size int) (all [][]string, f *failure) {
	out, f := s.do(to, "pages", "", values{"PageSize": size})
	if f != nil {
		return nil, f
	}
	for _, page := range out["Pages"].([]any) {
		var names []string
		for _, name := range page.([]any) {
			names = append(names, name.(string))
		}
		all = append(all, names)
	}
	return all, nil
}

func encodeBlobs(v any) any {
	switch v := v.(type) {
	case []byte:
		return values{"$bytes": base64.StdEncoding.EncodeToString(v)}
	case values:
		out := values{}
		for name, member := range v {
			out[name] = encodeBlobs(member)
		}
		return out
	default:
		return v
	}
}

func decodeBlobs(v any) any {
	if m, ok := v.(map[string]any); ok {
		if text, ok := m["$bytes"].(string); ok {
			b, _ := base64.StdEncoding.DecodeString(text) // the programs write nothing else
			return b
		}
		for name, member := range m {
			m[name] = decodeBlobs(member)
		}
	}
	return v
}

// cache is a folder of what scripts/test.sh installed.
func cache(elements ...string) string {
	return filepath.Join(append([]string{kiln.Root(), ".cache"}, elements...)...)
}

// python is one that has boto3.
var python = sync.OnceValues(func() (string, error) {
	for _, program := range []string{cache("venv", "bin", "python3"), "python3"} {
		if exec.Command(program, "-c", "import boto3").Run() == nil {
			return program, nil
		}
	}
	return "", fmt.Errorf("boto3: %w", errMissing)
})

var boto3 = sync.OnceValues(func() (client, error) {
	program, err := python()
	if err != nil {
		return nil, err
	}
	return startScript(program, "-u", filepath.Join("testdata", "boto3_client.py"))
})

var javascript = sync.OnceValues(func() (client, error) {
	if _, err := os.Stat(cache("js", "node_modules", "@aws-sdk", "client-lambda")); err != nil {
		return nil, fmt.Errorf("the SDK for JavaScript: %w", errMissing)
	}
	return startScript("node", "--no-warnings", filepath.Join("testdata", "sdk_client.mjs"), cache("js"))
})

// ── the AWS CLI ──

// cli is the AWS CLI, run by testdata/cli_server.py.
type cli struct{ socket, dir string }

var awsCLI = sync.OnceValues(func() (client, error) {
	python := cache("venv", "bin", "python3")
	if exec.Command(python, "-c", "import awscli").Run() != nil {
		return nil, fmt.Errorf("the AWS CLI: %w", errMissing)
	}
	dir, err := os.MkdirTemp("", "kiln-cli-")
	if err != nil {
		return nil, err
	}
	running.Lock()
	running.stop = append(running.stop, func() { _ = os.RemoveAll(dir) })
	running.Unlock()
	c := cli{filepath.Join(dir, "socket"), dir}
	_, out, err := startProgram(python, filepath.Join("testdata", "cli_server.py"), c.socket)
	if err != nil {
		return nil, err
	}
	if ready, err := bufio.NewReader(out).ReadString('\n'); ready != "ready\n" {
		return nil, fmt.Errorf("the AWS CLI did not start: %q, %w", ready, err)
	}
	return c, nil
})

func (c cli) run(to target, args ...string) ([]byte, *failure) {
	conn, err := net.Dial("unix", c.socket)
	if err != nil {
		return nil, &failure{Message: err.Error()}
	}
	defer conn.Close()
	err = json.NewEncoder(conn).Encode(map[string]any{"args": append([]string{to.service}, args...), "env": map[string]string{
		"AWS_ENDPOINT_URL": to.endpoint, "AWS_ACCESS_KEY_ID": to.key, "AWS_SECRET_ACCESS_KEY": to.secret, "AWS_SESSION_TOKEN": "",
		"AWS_DEFAULT_REGION": to.region, "AWS_REGION": to.region,
		"AWS_MAX_ATTEMPTS": "1", "AWS_PAGER": "", "AWS_DEFAULT_OUTPUT": "json",
	}})
	var answer struct {
		Code     int
		Out, Err string
	}
	if err == nil {
		err = json.NewDecoder(conn).Decode(&answer)
	}
	if err != nil {
		return nil, &failure{Message: "the AWS CLI ended: " + err.Error()}
	}
	if answer.Code != 0 {
		return nil, cliFailure(answer.Err)
	}
	return []byte(answer.Out), nil
}

var cliError = regexp.MustCompile(`(?s)An error occurred \((\w+)\) when calling the \w+ operation(?: \([^)]*\))?: (.*)`)

func cliFailure(text string) *failure {
	f := &failure{Message: text}
	if m := cliError.FindStringSubmatch(text); m != nil {
		f.Code, f.Message = m[1], strings.TrimRight(m[2], "\n")
		// The CLI prints some members of an error after its message.
		f.Message, _, _ = strings.Cut(f.Message, "\n\nAdditional error details:")
	}
	return f
}

var word = regexp.MustCompile(`[A-Z][a-z0-9]+|[A-Z]+`)

func kebab(name string) string {
	name = strings.ReplaceAll(name, "KMSKeyArn", "KmsKeyArn")
	return strings.ToLower(strings.Join(word.FindAllString(name, -1), "-"))
}

func (c cli) call(to target, operation string, in values) (values, *failure) {
	if to.service != "lambda" { // whose options are not all called like members
		return c.json(to, operation, in)
	}
	args := []string{kebab(operation)}
	file := func(content []byte) string {
		f, err := os.CreateTemp(c.dir, "")
		if err == nil {
			_, err = f.Write(content)
		}
		if err == nil {
			err = f.Close()
		}
		if err != nil {
			panic(err)
		}
		return "fileb://" + f.Name()
	}
	for name, value := range in {
		flag := "--" + kebab(name)
		switch v := value.(type) {
		case []byte:
			at := file(v)
			if operation == "InvokeAsync" { // as its parameter was always given
				at = strings.TrimPrefix(at, "fileb://")
			}
			args = append(args, flag, at)
		case string:
			args = append(args, flag+"="+v)
		case bool:
			if !v {
				flag = "--no-" + kebab(name)
			}
			args = append(args, flag)
		case int:
			args = append(args, flag, fmt.Sprint(v))
		default:
			if m, ok := v.(values); ok && (name == "Code" || operation == "PublishLayerVersion") {
				if zip, ok := m["ZipFile"].([]byte); ok {
					args = append(args, "--zip-file", file(zip))
					continue
				}
			}
			text, err := json.Marshal(v)
			if err != nil {
				panic(err)
			}
			args = append(args, flag, string(text))
		}
	}
	payload := ""
	if operation == "Invoke" {
		payload = filepath.Join(c.dir, fmt.Sprint("out-", time.Now().UnixNano()))
		args = append(args, payload)
	}
	out, f := c.run(to, args...)
	if f != nil {
		return nil, f
	}
	answer := values{}
	if len(bytes.TrimSpace(out)) > 0 {
		if err := json.Unmarshal(out, &answer); err != nil {
			return nil, &failure{Message: fmt.Sprintf("%v in %s", err, out)}
		}
	}
	if payload != "" {
		b, err := os.ReadFile(payload)
		if err != nil {
			return nil, &failure{Message: err.Error()}
		}
		answer["Payload"] = b
	}
	return answer, nil
}

// json calls an operation with its input as it is on the wire.
func (c cli) json(to target, operation string, in values) (values, *failure) {
	text, err := json.Marshal(in)
	if err != nil {
		panic(err)
	}
	out, f := c.run(to, kebab(operation), "--no-paginate", "--cli-input-json", string(text))
	if f != nil {
		return nil, f
	}
	answer := values{}
	if len(bytes.TrimSpace(out)) > 0 {
		if err := json.Unmarshal(out, &answer); err != nil {
			return nil, &failure{Message: fmt.Sprintf("%v in %s", err, out)}
		}
	}
	return answer, nil
}

func (c cli) wait(to target, waiter, function string) *failure {
	_, f := c.run(to, "wait", strings.Replace(kebab(waiter), "v-2", "v2", 1), "--function-name", function)
	return f
}

func (c cli) pages(to target, size int) ([][]string, *failure) {
	out, f := c.run(to, "list-functions", "--page-size", fmt.Sprint(size), "--query", "Functions[].FunctionName")
	if f != nil {
		return nil, f
	}
	var names []string
	if err := json.Unmarshal(out, &names); err != nil {
		return nil, &failure{Message: err.Error()}
	}
	return [][]string{names}, nil // the CLI joins them
}
