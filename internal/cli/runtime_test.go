package cli_test

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awslambda "github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/rogpeppe/go-internal/testscript"

	"kiln/internal/bootstrap/python"
	"kiln/internal/lambda"
)

// findPython sets PYTHON to the newest Python runtime here whose interpreter has
// pip, and BOTO3 to the version that Kiln adds to it.
func findPython(ts *testscript.TestScript, _ bool, _ []string) {
	out, err := exec.Command("kiln", "doctor", "--json").Output()
	ts.Check(err)
	var found struct {
		Runtimes []struct{ ID, Program, Substitute string }
	}
	ts.Check(json.Unmarshal(out, &found))
	for _, r := range found.Runtimes {
		if !strings.HasPrefix(r.ID, "python") || r.Program == "" || r.Substitute != "" || exec.Command(r.Program, "-m", "pip", "--version").Run() != nil {
			continue
		}
		_, version, _ := strings.Cut(python.New().Bundle(lambda.RuntimeID(r.ID))[0], "==")
		ts.Setenv("PYTHON", r.ID)
		ts.Setenv("BOTO3", version)
		return
	}
	ts.Fatalf("no Python with pip is here")
}

// wheel writes a Python package of one module: wheel NAME VERSION CODE.
func wheel(ts *testscript.TestScript, _ bool, args []string) {
	name, version, code := args[0], args[1], args[2]
	info := name + "-" + version + ".dist-info/"
	content := zipOf(ts, map[string]string{
		name + "/__init__.py": code,
		info + "METADATA":     "Metadata-Version: 2.1\nName: " + name + "\nVersion: " + version + "\n",
		info + "WHEEL":        "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
		info + "RECORD":       "",
	})
	ts.Check(os.MkdirAll(ts.MkAbs("wheels"), 0o755))
	ts.Check(os.WriteFile(filepath.Join(ts.MkAbs("wheels"), name+"-"+version+"-py3-none-any.whl"), content, 0o644))
}

// pycreate makes a function of $PYTHON: pycreate NAME CODE [FILE CONTENT]. Its handler
// runs the code.
func pycreate(ts *testscript.TestScript, _ bool, args []string) {
	files := map[string]string{"app.py": "def handler(event, context):\n    " + args[1] + "\n"}
	if len(args) > 3 {
		files[args[2]] = args[3]
	}
	_, err := client(ts).CreateFunction(context.Background(), &awslambda.CreateFunctionInput{
		FunctionName: &args[0], Runtime: types.Runtime(ts.Getenv("PYTHON")), Handler: aws.String("app.handler"), Timeout: aws.Int32(60),
		Role: aws.String("arn:aws:iam::000000000000:role/test"), Code: &types.FunctionCode{ZipFile: zipOf(ts, files)},
	})
	ts.Check(err)
}

func zipOf(ts *testscript.TestScript, files map[string]string) []byte {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for name, content := range files {
		f, err := w.Create(name)
		ts.Check(err)
		_, err = f.Write([]byte(content))
		ts.Check(err)
	}
	ts.Check(w.Close())
	return b.Bytes()
}
