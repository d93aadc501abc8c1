package conformance

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"kiln/test/kiln"
)

// TestReservedConcurrency sets, shows and ends it with each client.
func TestReservedConcurrency(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, "--any-runtime")
	each(t, func(t *testing.T, name string, c client) {
		s := session{c, t, anyKey(d)}
		fn := "reserved-" + name
		s.create(fn, nil)
		of := func(name string) values { return values{"FunctionName": name} }
		put := func(name string, n int) values {
			return values{"FunctionName": name, "ReservedConcurrentExecutions": n}
		}
		want(t, "at first", canonical(s.must("GetFunctionConcurrency", of(fn))["ReservedConcurrentExecutions"]), "null")
		want(t, "answer of put", s.must("PutFunctionConcurrency", put(fn, 7))["ReservedConcurrentExecutions"], 7)
		want(t, "reserved", s.must("GetFunctionConcurrency", of(fn))["ReservedConcurrentExecutions"], 7)
		want(t, "shown with the function", member(s.must("GetFunction", of(fn)), "Concurrency", "ReservedConcurrentExecutions"), 7)
		s.must("DeleteFunctionConcurrency", of(fn))
		want(t, "in the end", canonical(s.must("GetFunctionConcurrency", of(fn))["ReservedConcurrentExecutions"]), "null")
		s.refused("PutFunctionConcurrency", put(fn, 901), 400, "InvalidParameterValueException",
			"Specified ReservedConcurrentExecutions for function decreases account's UnreservedConcurrentExecution below its minimum value of [100].")
		if name == "cli" {
			return
		}
		s.refused("PutFunctionConcurrency", put(arnPrefix+fn+":1", 1), 400, "InvalidParameterValueException",
			"This operation is permitted on Lambda functions only. Aliases and versions do not support this operation. Please specify either a function name or an unqualified function ARN.")
		s.refused("PutFunctionConcurrency", put("absent", 1), 404, missing, "Function not found: "+arnPrefix+"absent:$LATEST")
		s.refused("GetFunctionConcurrency", of("absent"), 404, missing, "Function not found: "+arnPrefix+"absent")
		s.refused("DeleteFunctionConcurrency", of("absent"), 404, missing, "Function not found: "+arnPrefix+"absent")
		s.refused("Invoke", of("absent"), 404, missing, "Function not found: "+arnPrefix+"absent:$LATEST")
	})
}

// anybody signs with what is not asked for.
var anybody = &key{ID: "test", Secret: "test"}

// TestReservedConcurrencyThrottles holds an invocation of a function that may run one.
func TestReservedConcurrencyThrottles(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, "--any-runtime")
	s := session{goSDK{}, t, anyKey(d)}
	d.Create("held", "python3.12", "gate.handler", kiln.Gate(), kiln.Timeout(300))
	s.create("other", nil)
	s.must("PutFunctionConcurrency", values{"FunctionName": "held", "ReservedConcurrentExecutions": 1})
	held := make(chan *failure, 1)
	go func() {
		_, f := goSDK{}.call(anyKey(d), "Invoke", values{"FunctionName": "held"})
		held <- f
	}()
	kiln.Await(t, "an invocation that is under way", func() bool { return d.Metric(`kiln_environments{`, `state="busy"`) == 1 })
	status, body, _ := anybody.as(t, "lambda", "POST", d.URL+functionsPath+"/held/invocations", "{}")
	if status != 429 || !strings.Contains(body, `"Reason":"ReservedFunctionConcurrentInvocationLimitExceeded"`) || !strings.Contains(body, `"message":"Rate Exceeded."`) {
		t.Errorf("a second one: %d %s", status, body)
	}
	s.invoke(values{"FunctionName": "other"})
	s.must("PutFunctionConcurrency", values{"FunctionName": "other", "ReservedConcurrentExecutions": 0})
	s.refused("Invoke", values{"FunctionName": "other"}, 429, "TooManyRequestsException", "Rate Exceeded.")
	d.Open("held")
	if f := <-held; f != nil {
		t.Error(f)
	}
	d.Stop()
	d.Start()
	s = session{goSDK{}, t, anyKey(d)}
	s.refused("Invoke", values{"FunctionName": "other"}, 429, "TooManyRequestsException", "Rate Exceeded.")
	s.must("DeleteFunctionConcurrency", values{"FunctionName": "other"})
	s.invoke(values{"FunctionName": "other"})
}

// ready waits until all that is provisioned for a qualifier is there, and returns how
// it is shown then.
func (s session) ready(of values) (shown values) {
	s.t.Helper()
	kiln.Await(s.t, "provisioned concurrency", func() bool {
		shown = s.must("GetProvisionedConcurrencyConfig", of)
		if status := shown["Status"]; status != "IN_PROGRESS" && status != "READY" {
			s.t.Fatalf("status %v: %v", status, shown["StatusReason"])
		}
		return shown["Status"] == "READY"
	})
	return shown
}

// TestProvisionedConcurrency goes through the states with each client.
func TestProvisionedConcurrency(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, "--any-runtime")
	each(t, func(t *testing.T, name string, c client) {
		s := session{c, t, anyKey(d)}
		fn := "provisioned-" + name
		s.create(fn, nil)
		s.must("PublishVersion", values{"FunctionName": fn})
		s.must("CreateAlias", values{"FunctionName": fn, "Name": "live", "FunctionVersion": "1"})
		of := func(q string) values { return values{"FunctionName": fn, "Qualifier": q} }
		put := func(q string, n int) values {
			return values{"FunctionName": fn, "Qualifier": q, "ProvisionedConcurrentExecutions": n}
		}
		const none = "ProvisionedConcurrencyConfigNotFoundException"
		s.refused("GetProvisionedConcurrencyConfig", of("live"), 404, none, "No Provisioned Concurrency Config found for this function")
		made := s.must("PutProvisionedConcurrencyConfig", put("live", 5))
		for member, value := range map[string]any{"Requested": 5, "Available": 0, "Allocated": 0} {
			want(t, "put: "+member, made[member+"ProvisionedConcurrentExecutions"], value)
		}
		want(t, "put", made["Status"], "IN_PROGRESS")
		got := s.ready(of("live"))
		for _, member := range []string{"Requested", "Available", "Allocated"} {
			want(t, "got: "+member, got[member+"ProvisionedConcurrentExecutions"], 5)
		}
		want(t, "LastModified", got["LastModified"], made["LastModified"])
		list := s.must("ListProvisionedConcurrencyConfigs", values{"FunctionName": fn})["ProvisionedConcurrencyConfigs"].([]any)
		want(t, "listed", len(list), 1)
		want(t, "listed", list[0].(map[string]any)["FunctionArn"], arnPrefix+fn+":live")
		s.must("DeleteProvisionedConcurrencyConfig", of("live"))
		s.refused("GetProvisionedConcurrencyConfig", of("live"), 404, none, "No Provisioned Concurrency Config found for this function")
		s.refused("PutProvisionedConcurrencyConfig", put("$LATEST", 1), 400, "InvalidParameterValueException", "Provisioned Concurrency Configs cannot be applied to unpublished function versions.")
		if name == "cli" {
			return
		}
		for _, operation := range []string{"GetProvisionedConcurrencyConfig", "DeleteProvisionedConcurrencyConfig"} {
			s.refused(operation, of("$LATEST"), 400, "InvalidParameterValueException", "The function resource provided must be an alias or a published version.")
			s.refused(operation, of("9"), 404, missing, "Function not found: "+arnPrefix+fn+":9")
			s.refused(operation, of("x"), 404, missing, "Cannot find alias arn: "+arnPrefix+fn+":x")
		}
		s.must("DeleteProvisionedConcurrencyConfig", of("live")) // it is gone already
	})
}

// TestProvisionedEnvironments invokes what is provisioned: it is initialised before,
// replaced by what an alias moves to, and there again after a restart.
func TestProvisionedEnvironments(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, "--any-runtime")
	s := session{goSDK{}, t, anyKey(d)}
	code := func(say string) []byte {
		return kiln.Zip(map[string]string{"f.py": "import os, time\nbegan = time.time()\nprint('module')\ndef handler(event, context):\n    return f\"" + say +
			" {os.environ['AWS_LAMBDA_INITIALIZATION_TYPE']} {began}\"\n"})
	}
	s.create("kept", values{"Code": values{"ZipFile": code("one")}, "Publish": true})
	s.must("CreateAlias", values{"FunctionName": "kept", "Name": "live", "FunctionVersion": "1"})
	live := values{"FunctionName": "kept", "Qualifier": "live"}
	s.must("PutProvisionedConcurrencyConfig", values{"FunctionName": "kept", "Qualifier": "live", "ProvisionedConcurrentExecutions": 2})
	s.ready(live)
	before := time.Now()
	answer := func() (said, how string, initialised time.Time, log string) {
		t.Helper()
		out, payload := s.invoke(values{"FunctionName": "kept", "Qualifier": "live", "LogType": "Tail"})
		var at float64
		if _, err := fmt.Sscanf(strings.Trim(payload, `"`), "%s %s %f", &said, &how, &at); err != nil {
			t.Fatal(payload, err)
		}
		decoded, err := base64.StdEncoding.DecodeString(fmt.Sprint(out["LogResult"]))
		if err != nil {
			t.Fatal(err)
		}
		return said, how, time.UnixMicro(int64(at * 1e6)), string(decoded)
	}
	said, how, initialised, log := answer()
	want(t, "answer", said+" "+how, "one provisioned-concurrency")
	if initialised.After(before) || strings.Contains(log, "INIT_START") || strings.Contains(log, "module") || !strings.HasPrefix(log, "START") {
		t.Errorf("the first invocation was initialised at %v, after %v, or has an init in its log: %q", initialised, before, log)
	}
	if n := d.Metric("kiln_provisioned_concurrency_invocations_total{", `function="kept"`); n != 1 {
		t.Errorf("%v invocations on provisioned concurrency", n)
	}
	d.Stop()
	d.Start()
	s = session{goSDK{}, t, anyKey(d)}
	s.ready(live)
	said, how, _, log = answer()
	want(t, "answer after a restart", said+" "+how, "one provisioned-concurrency")
	if strings.Contains(log, "INIT") {
		t.Errorf("after a restart: %q", log)
	}
	s.must("UpdateFunctionCode", values{"FunctionName": "kept", "ZipFile": code("two"), "Publish": true})
	s.must("UpdateAlias", values{"FunctionName": "kept", "Name": "live", "FunctionVersion": "2"})
	s.ready(live)
	said, how, _, _ = answer()
	want(t, "answer of another version", said+" "+how, "two provisioned-concurrency")
	s.must("DeleteProvisionedConcurrencyConfig", live)
	kiln.Await(t, "end of the environments", func() bool { return d.Metric("kiln_environments{", `state="idle"`) == 0 })

	s.create("fails", values{"Code": values{"ZipFile": kiln.Zip(map[string]string{"f.py": "raise ValueError()"})}, "Publish": true})
	of := values{"FunctionName": "fails", "Qualifier": "1"}
	s.must("PutProvisionedConcurrencyConfig", values{"FunctionName": "fails", "Qualifier": "1", "ProvisionedConcurrentExecutions": 1})
	kiln.Await(t, "failure", func() bool {
		got := s.must("GetProvisionedConcurrencyConfig", of)
		return got["Status"] == "FAILED" && got["StatusReason"] == "FUNCTION_ERROR_INIT_FAILURE"
	})
}

// TestAccountSettings counts.
func TestAccountSettings(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, "--any-runtime", "--code-storage-bytes", "1500")
	s := session{goSDK{}, t, anyKey(d)}
	s.create("counted", nil)
	size := int(s.must("GetFunctionConfiguration", values{"FunctionName": "counted"})["CodeSize"].(float64))
	s.must("PublishVersion", values{"FunctionName": "counted"})
	s.must("PublishLayerVersion", values{"LayerName": "l", "Content": values{"ZipFile": kiln.Zip(map[string]string{"f": "x"})}})
	layer := int(member(s.must("GetLayerVersion", values{"LayerName": "l", "VersionNumber": 1}), "Content", "CodeSize").(float64))
	s.must("PutFunctionConcurrency", values{"FunctionName": "counted", "ReservedConcurrentExecutions": 100})
	each(t, func(t *testing.T, _ string, c client) {
		got := session{c, t, anyKey(d)}.must("GetAccountSettings", nil)
		want(t, "AccountLimit", canonical(got["AccountLimit"]),
			`{"CodeSizeUnzipped":262144000,"CodeSizeZipped":52428800,"ConcurrentExecutions":1000,"TotalCodeSize":1500,"UnreservedConcurrentExecutions":900}`)
		want(t, "AccountUsage", canonical(got["AccountUsage"]), fmt.Sprintf(`{"FunctionCount":1,"TotalCodeSize":%d}`, 2*size+layer))
	})
	big := kiln.Zip(map[string]string{"f": strings.Repeat("x", 1<<20)})
	s.refused("UpdateFunctionCode", values{"FunctionName": "counted", "ZipFile": big}, 400, "CodeStorageExceededException", "Code storage limit exceeded.")
	s.refused("PublishLayerVersion", values{"LayerName": "l", "Content": values{"ZipFile": big}}, 400, "CodeStorageExceededException", "Code storage limit exceeded.")
}
