package handlers

import (
	"encoding/json"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"kiln/test/kiln"
)

// TestVariables compares the whole environment of a handler with what is seen on
// AWS, and with what comes of variables of the function's own.
func TestVariables(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, arguments()...)
	if !strings.Contains(d.Log.String(), "(driver linux,") {
		t.Skip("paths are the machine's")
	}
	// As patterns. Where Kiln's value differs from AWS's, docs/compatibility.md says so.
	common := map[string]string{
		"AWS_ACCESS_KEY_ID": `\w{16,128}`, "AWS_SECRET_ACCESS_KEY": `\S{20,}`, "AWS_SESSION_TOKEN": `\S+`,
		"AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1",
		"AWS_LAMBDA_FUNCTION_NAME": `<name>`, "AWS_LAMBDA_FUNCTION_VERSION": `\$LATEST`, "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
		"AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand", "AWS_LAMBDA_LOG_GROUP_NAME": `/aws/lambda/<name>`,
		"AWS_LAMBDA_LOG_STREAM_NAME": `\d{4}/\d\d/\d\d/\[\$LATEST\][0-9a-f]{32}`, "AWS_LAMBDA_RUNTIME_API": `127\.0\.0\.1:9001`,
		"AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR", "AWS_XRAY_DAEMON_ADDRESS": `127\.0\.0\.1:2000`,
		"_AWS_XRAY_DAEMON_ADDRESS": `127\.0\.0\.1`, "_AWS_XRAY_DAEMON_PORT": "2000",
		"LAMBDA_RUNTIME_DIR": "/var/runtime", "LAMBDA_TASK_ROOT": "/var/task", "LANG": `en_US\.UTF-8`, "TZ": ":UTC",
		"PATH": "/var/lang/bin:/usr/local/bin:/usr/bin/:/bin:/opt/bin", "LD_LIBRARY_PATH": "/var/lang/lib:/lib64:/usr/lib64:/var/runtime:/var/runtime/lib:/var/task:/var/task/lib:/opt/lib",
		"_HANDLER": `<handler>`, "_X_AMZN_TRACE_ID": `Root=1-[0-9a-f]{8}-[0-9a-f]{24};Parent=[0-9a-f]{16};Sampled=0;Lineage=[0-9a-f]{8}:0`,
		// Kiln's own.
		"AWS_ENDPOINT_URL": `http://127\.0\.0\.1:\d+`, "AWS_EC2_METADATA_DISABLED": "true",
	}
	own := map[string]string{
		"OWN": "välue", "LANG": "C.UTF-8", "TZ": "Europe/Paris", "AWS_XRAY_CONTEXT_MISSING": "IGNORE_ERROR", "AWS_XRAY_DAEMON_ADDRESS": "10.0.0.1:2000",
		"PATH": "/var/lang/bin:/usr/bin:/bin:/own", "LD_LIBRARY_PATH": "/var/lang/lib:/own", "AWS_LAMBDA_LOG_FORMAT": "JSON", "AWS_LAMBDA_LOG_LEVEL": "ERROR",
		"NODE_PATH": "/own", "PYTHONPATH": "/own", "NODE_OPTIONS": "--no-warnings", "AWS_ENDPOINT_URL": "http://localhost:1", "AWS_EC2_METADATA_DISABLED": "false",
	}
	for _, c := range []struct {
		language language
		more     map[string]string
	}{
		{nodejs(t, "nodejs22.x"), map[string]string{
			"AWS_EXECUTION_ENV": `AWS_Lambda_nodejs22\.x`, "PWD": "/var/task", "SHLVL": "0",
			"NODE_PATH": "/opt/nodejs/node22/node_modules:/opt/nodejs/node_modules:/var/runtime/node_modules:/var/runtime:/var/task",
		}},
		{python(t, "python3.13"), map[string]string{"AWS_EXECUTION_ENV": `AWS_Lambda_python3\.13`, "PWD": "/var/task", "SHLVL": "0", "PYTHONPATH": "/var/runtime", "LC_CTYPE": `C\.UTF-8`}},
		{golang(t), nil},
	} {
		t.Run(c.language.runtime, func(t *testing.T) {
			t.Parallel()
			if c.language.name != "go" {
				need(t, c.language.runtime)
			}
			for _, set := range []map[string]string{nil, own} {
				var pairs []string
				for name, value := range set {
					pairs = append(pairs, name, value)
				}
				name := "vars-" + strings.ReplaceAll(c.language.runtime, ".", "") + []string{"", "-own"}[min(1, len(set))]
				if err := d.TryCreate(name, c.language.runtime, c.language.handler, c.language.code, all(memory(256), timeout(20), variables(pairs...))); err != nil {
					t.Fatal(err)
				}
				var got map[string]string
				function{t, d, name}.ok(event{"do": "env"}, &got)
				want := maps.Clone(common)
				maps.Copy(want, c.more)
				for n, value := range set {
					want[n] = regexp.QuoteMeta(value)
				}
				for n, pattern := range want {
					pattern = strings.NewReplacer("<name>", name, "<handler>", regexp.QuoteMeta(c.language.handler)).Replace(pattern)
					value, ok := got[n]
					if !ok || !regexp.MustCompile(`^(`+pattern+`)$`).MatchString(value) {
						t.Errorf("with %d of its own: %s is %q (%t), want %s", len(set), n, value, ok, pattern)
					}
				}
				for _, n := range slices.Sorted(maps.Keys(got)) {
					if _, ok := want[n]; !ok {
						t.Errorf("with %d of its own: there is %s=%s", len(set), n, got[n])
					}
				}
			}
		})
	}
	t.Run("reserved", func(t *testing.T) {
		t.Parallel()
		l := golang(t)
		for _, name := range []string{
			"AWS_DEFAULT_REGION", "AWS_REGION", "AWS_EXECUTION_ENV", "AWS_LAMBDA_FUNCTION_NAME", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "AWS_LAMBDA_FUNCTION_VERSION",
			"AWS_LAMBDA_INITIALIZATION_TYPE", "AWS_LAMBDA_LOG_GROUP_NAME", "AWS_LAMBDA_LOG_STREAM_NAME", "AWS_ACCESS_KEY", "AWS_ACCESS_KEY_ID",
			"AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_LAMBDA_RUNTIME_API", "LAMBDA_TASK_ROOT", "LAMBDA_RUNTIME_DIR",
			"AWS_LAMBDA_MAX_CONCURRENCY", "AWS_LAMBDA_METADATA_API", "AWS_LAMBDA_METADATA_TOKEN",
		} {
			err := d.TryCreate("reserved", l.runtime, l.handler, l.code, variables(name, "x"))
			if err == nil || !strings.Contains(err.Error(), "Reserved keys used in this request: "+name) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// TestTrace follows the tracing header from the caller through the process and back.
func TestTrace(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, arguments("--any-runtime")...)
	const root, parent = `Root=1-[0-9a-f]{8}-[0-9a-f]{24}`, `;Parent=[0-9a-f]{16}`
	const given = "Root=1-5759e988-bd862e3fe1be46a994272793"
	for _, l := range []language{nodejs(t, "nodejs22.x"), anyPython(t), golang(t)} {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			f := l.create(t, d, timeout(20))
			before := map[string]bool{}
			for _, c := range []struct{ header, want string }{
				{"", root + parent + ";Sampled=0"},
				{"", root + parent + ";Sampled=0"},
				{given + ";Parent=53995c3f42cd8ad8;Sampled=1", given + ";Parent=53995c3f42cd8ad8;Sampled=1"},
				{given + ";Parent=53995c3f42cd8ad8;Sampled=1;Lineage=1:a:0", given + ";Parent=53995c3f42cd8ad8;Sampled=1;Lineage=1:a:0"},
				{"Self=1-2-3;" + given + ";Sampled=1", "Self=1-2-3;" + given + ";Sampled=1" + parent},
				{given, given + parent + ";Sampled=0"},
				{"nonsense", root + parent + ";Sampled=0"},
			} {
				r, err := http.NewRequest(http.MethodPost, d.URL+"/2015-03-31/functions/"+f.name+"/invocations", strings.NewReader(`{"do":"context"}`))
				if err != nil {
					t.Fatal(err)
				}
				sign(r)
				if c.header != "" {
					r.Header.Set("X-Amzn-Trace-Id", c.header)
				}
				response, err := http.DefaultClient.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				var got struct{ Trace string }
				err = json.NewDecoder(response.Body).Decode(&got)
				_ = response.Body.Close()
				// The process has the function in the lineage, too.
				header := response.Header.Get("X-Amzn-Trace-Id")
				sees := regexp.MustCompile(`[;|](Lineage=)?[0-9a-f]{8}:0$`).ReplaceAllString(got.Trace, "")
				if err != nil || header != sees || header == got.Trace || !regexp.MustCompile(`^`+c.want+`$`).MatchString(header) {
					t.Errorf("%q: the answer's is %q, the process's %q (%v), want %s", c.header, header, got.Trace, err, c.want)
				}
				if c.header == "" && before[got.Trace] {
					t.Errorf("two invocations have the trace %s", got.Trace)
				}
				before[got.Trace] = true
			}
		})
	}
}
