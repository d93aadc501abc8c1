package handlers

import (
	"context"
	"strconv"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"kiln/test/kiln"
)

// publish makes the next version of a layer and returns its ARN.
func publish(t *testing.T, d *kiln.Daemon, name string, files map[string]string) string {
	t.Helper()
	out, err := d.Client().PublishLayerVersion(context.Background(), &lambda.PublishLayerVersionInput{
		LayerName: &name, Content: &types.LayerVersionContentInput{ZipFile: kiln.Zip(files)},
	})
	if err != nil {
		t.Fatal(err)
	}
	return *out.LayerVersionArn
}

func layers(arns ...string) func(*lambda.CreateFunctionInput) {
	return func(in *lambda.CreateFunctionInput) { in.Layers = arns }
}

// TestLayers is what functions find in /opt, with each driver.
func TestLayers(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"auto", "process"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			d := kiln.Start(t, arguments("--driver", driver)...)
			one := publish(t, d, "one", map[string]string{
				"python/shared.py": "value = 'one'", "python/first.py": "value = 'first'",
				"nodejs/node_modules/shared/index.js": "module.exports = 'one'", "nodejs/node_modules/first/index.js": "module.exports = 'first'",
				"bin/tool!": "#!/bin/sh\necho tool one", "wrapper!": wrapper, "data/one": "1", "place/file": "of a folder",
			})
			two := publish(t, d, "two", map[string]string{
				"python/shared.py": "value = 'two'", "nodejs/node_modules/shared/index.js": "module.exports = 'two'",
				"bin/tool!": "#!/bin/sh\necho tool two", "data/two": "2", "place": "a file",
			})
			tested := map[string]bool{"go": true}
			for _, l := range languages(t, false) {
				if tested[l.name] {
					continue
				}
				err := d.TryCreate("probe-"+strings.ReplaceAll(l.runtime, ".", ""), l.runtime, l.handler, l.code, nil)
				if err != nil && strings.Contains(err.Error(), "may not enter") {
					continue // root's functions have users of their own there
				}
				tested[l.name] = true
				t.Run(l.name, func(t *testing.T) {
					t.Parallel()
					layered(t, l, d, one, two)
				})
			}
			t.Run("bootstrap", func(t *testing.T) {
				t.Parallel()
				runtime := publish(t, d, "runtime", map[string]string{"bootstrap!": kiln.Bootstrap(`answer="\"$(cat "$LAMBDA_TASK_ROOT/file") by $(tool)\""`)})
				l := language{"provided", "provided.al2023", "x", kiln.Zip(map[string]string{"file": "run"})}
				var got string
				l.create(t, d, layers(runtime, two, one)).ok(event{}, &got)
				if got != "run by tool one" {
					t.Errorf("got %q", got)
				}
				err := d.TryCreate("other-machine-"+driver, l.runtime, l.handler, l.code,
					layers(publish(t, d, "other", map[string]string{"bootstrap!": string(otherMachine(t))})))
				if err == nil || !strings.Contains(err.Error(), "The bootstrap of this function cannot run: it is ") {
					t.Errorf("with a bootstrap for another machine: %v", err)
				}
			})
		})
	}
}

// seen is what the layered handlers answer.
type seen struct {
	Shared, First, Tool, Wrapped, Place string
	Data                                []string
}

// layered has a function of the language look at two layers in both orders, then
// at one alone, and at none.
func layered(t *testing.T, l language, d *kiln.Daemon, one, two string) {
	switch l.name {
	case "python":
		version := strings.TrimPrefix(l.runtime, "python")
		l.handler, l.code = "look.look", kiln.Zip(map[string]string{"look.py": `
import os, subprocess, sys
opt = [p for p in sys.path if p.endswith("/opt/python") or p.endswith("/python")][0].removesuffix("/python")
sys_path = [p.replace(opt, "/opt") for p in sys.path]
assert sys_path.index(os.environ["LAMBDA_TASK_ROOT"]) < sys_path.index("/opt/python/lib/python` + version + `/site-packages") \
    < sys_path.index("/opt/python") < sys_path.index(os.environ["LAMBDA_RUNTIME_DIR"]), sys_path
import first, shared
def look(event, context):
    return {"Shared": shared.value, "First": first.value, "Tool": subprocess.check_output("tool", text=True).strip(),
            "Wrapped": os.environ.get("WRAPPED", ""), "Data": sorted(os.listdir(opt + "/data")),
            "Place": "folder" if os.path.isdir(opt + "/place") else open(opt + "/place").read()}
`})
	case "nodejs":
		major := strings.TrimSuffix(strings.TrimPrefix(l.runtime, "nodejs"), ".x")
		l.handler, l.code = "look.look", kiln.Zip(map[string]string{"look.js": `
const fs = require("fs");
const path = process.env.NODE_PATH.split(":");
const opt = path[1].slice(0, -"/nodejs/node_modules".length);
if (path[0] !== opt + "/nodejs/node` + major + `/node_modules" || path[path.length - 1] !== process.env.LAMBDA_TASK_ROOT) throw new Error(process.env.NODE_PATH);
const first = require("first"), shared = require("shared");
exports.look = async () => ({
	Shared: shared, First: first, Tool: require("child_process").execFileSync("tool").toString().trim(),
	Wrapped: process.env.WRAPPED || "", Data: fs.readdirSync(opt + "/data").sort(),
	Place: fs.statSync(opt + "/place").isDirectory() ? "folder" : fs.readFileSync(opt + "/place").toString(),
});
`})
	}
	f := l.create(t, d, all(layers(one, two), timeout(30), variables("AWS_LAMBDA_EXEC_WRAPPER", "/opt/wrapper")))
	look := func(what string, want seen) {
		t.Helper()
		var got seen
		f.ok(event{}, &got)
		if n, err := strconv.Atoi(got.Wrapped); err != nil || n < 1 {
			t.Errorf("%s: the wrapper of a layer did not run: %+v", what, got)
		}
		got.Wrapped = ""
		if got.Shared != want.Shared || got.First != want.First || got.Tool != want.Tool || got.Place != want.Place || strings.Join(got.Data, " ") != strings.Join(want.Data, " ") {
			t.Errorf("%s: got %+v, want %+v", what, got, want)
		}
	}
	change := func(arns ...string) {
		t.Helper()
		c := d.Client()
		if _, err := c.UpdateFunctionConfiguration(context.Background(), &lambda.UpdateFunctionConfigurationInput{FunctionName: &f.name, Layers: arns}); err != nil {
			t.Fatal(err)
		}
		kiln.Await(t, "the update of "+f.name, func() bool {
			out, err := c.GetFunctionConfiguration(context.Background(), &lambda.GetFunctionConfigurationInput{FunctionName: &f.name})
			if err != nil {
				t.Fatal(err)
			}
			return out.LastUpdateStatus == types.LastUpdateStatusSuccessful
		})
	}
	look("one, two", seen{"two", "first", "tool two", "", "a file", []string{"one", "two"}})
	change(two, one)
	look("two, one", seen{"one", "first", "tool one", "", "folder", []string{"one", "two"}})
	change(one)
	look("one", seen{"one", "first", "tool one", "", "folder", []string{"one"}})
	change([]string{}...)
	if r := f.invoke(event{}); r.failed == "" {
		t.Errorf("without layers: %s", r.payload)
	}
}
