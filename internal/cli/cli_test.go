package cli_test

import (
	"archive/zip"
	"bufio"
	"bytes"
	"context"
	"os"
	"os/exec"
	"regexp"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awslambda "github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/rogpeppe/go-internal/testscript"

	"kiln/internal/cli"
	"kiln/internal/environment/environmenttest"
	"kiln/internal/sandbox/linux/inside"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == inside.Arg {
		os.Exit(inside.Init()) // the daemon of a script starts this program again
	}
	testscript.Main(m, map[string]func(){
		"kiln": func() { os.Exit(cli.Run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Getenv)) },
	})
}

// TestScripts runs testdata/*.txtar. Besides testscript's commands they have
//
//	up [FLAG…]          a daemon, which AWS_ENDPOINT_URL then names
//	create NAME ANSWER  a function whose bash script runs ANSWER
//	use FILE            the key that kiln keys create showed in FILE
//	send NAME PAYLOAD   an asynchronous event for a function, whose OnSuccess is a queue
//	await REGEXP ARG…   kiln ARG… again and again, until it prints what matches
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1") // nothing listens there
			e.Setenv("AWS_CONFIG_FILE", os.DevNull)
			e.Setenv("AWS_SHARED_CREDENTIALS_FILE", os.DevNull)
			e.Setenv("AWS_EC2_METADATA_DISABLED", "true")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"up": up, "create": create, "python": findPython, "wheel": wheel, "pycreate": pycreate, "use": use, "send": send, "await": await,
		},
	})
}

var readyLine = regexp.MustCompile(`^Kiln is ready at (http://\S+)`)

const stopTimeout = time.Minute

func up(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("up is not to be negated")
	}
	path, err := exec.LookPath("kiln")
	ts.Check(err)
	cmd := exec.Command(path, append([]string{"up", "--listen", "127.0.0.1:0", "--data", ts.MkAbs("data"), "--free-space-floor", "1MiB"}, args...)...)
	cmd.Env = os.Environ()
	for _, name := range []string{"PIP_NO_INDEX", "PIP_FIND_LINKS", "PIP_CONFIG_FILE"} {
		if value := ts.Getenv(name); value != "" {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	var log bytes.Buffer
	cmd.Stderr = &log
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	ts.Defer(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(stopTimeout, func() { _ = cmd.Process.Kill() })
		defer kill.Stop()
		if err := cmd.Wait(); err != nil {
			ts.Logf("kiln up: %v\n%s", err, log.String())
		}
	})
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if m := readyLine.FindStringSubmatch(lines.Text()); m != nil {
			ts.Setenv("AWS_ENDPOINT_URL", m[1])
			go func() { // ends with the daemon
				for lines.Scan() {
				}
			}()
			return
		}
	}
	ts.Fatalf("kiln up ended:\n%s", log.String())
}

var keyLine = regexp.MustCompile(`(?m)^  export (\w+)=(\S+)$`)

func use(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: use FILE")
	}
	for _, m := range keyLine.FindAllStringSubmatch(ts.ReadFile(args[0]), -1) {
		ts.Setenv(m[1], m[2])
	}
}

// client is AWS's, with the key of the script.
func client(ts *testscript.TestScript) *awslambda.Client {
	key, secret := ts.Getenv("AWS_ACCESS_KEY_ID"), ts.Getenv("AWS_SECRET_ACCESS_KEY")
	if key == "" {
		key, secret = "test", "test"
	}
	return awslambda.New(awslambda.Options{
		Region: "us-east-1", BaseEndpoint: aws.String(ts.Getenv("AWS_ENDPOINT_URL")), Credentials: credentials.NewStaticCredentialsProvider(key, secret, ""),
	})
}

func send(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: send NAME PAYLOAD")
	}
	c := client(ts)
	_, err := c.PutFunctionEventInvokeConfig(context.Background(), &awslambda.PutFunctionEventInvokeConfigInput{
		FunctionName: &args[0], DestinationConfig: &types.DestinationConfig{OnSuccess: &types.OnSuccess{Destination: aws.String("arn:aws:sqs:us-east-1:000000000000:done")}},
	})
	ts.Check(err)
	_, err = c.Invoke(context.Background(), &awslambda.InvokeInput{FunctionName: &args[0], InvocationType: types.InvocationTypeEvent, Payload: []byte(args[1])})
	ts.Check(err)
}

const (
	awaitTimeout = 30 * time.Second
	awaitPause   = 100 * time.Millisecond
)

func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: await REGEXP ARG…")
	}
	wanted := regexp.MustCompile("(?m)" + args[0])
	for end := time.Now().Add(awaitTimeout); ; time.Sleep(awaitPause) {
		ts.Check(ts.Exec("kiln", args[1:]...))
		said := ts.ReadFile("stdout")
		if wanted.MatchString(said) {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("kiln does not say %s, but:\n%s", args[0], said)
		}
	}
}

func create(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: create NAME ANSWER")
	}
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	h := &zip.FileHeader{Name: "bootstrap", Method: zip.Deflate}
	h.SetMode(0o755)
	f, err := w.CreateHeader(h)
	ts.Check(err)
	_, err = f.Write([]byte(environmenttest.Bootstrap("", args[1])))
	ts.Check(err)
	ts.Check(w.Close())
	_, err = client(ts).CreateFunction(context.Background(), &awslambda.CreateFunctionInput{
		FunctionName: &args[0], Runtime: types.RuntimeProvidedal2023, Handler: aws.String("x"),
		Role: aws.String("arn:aws:iam::000000000000:role/test"), Code: &types.FunctionCode{ZipFile: b.Bytes()},
	})
	ts.Check(err)
}
