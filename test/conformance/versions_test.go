package conformance

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
	"testing"

	"kiln/test/kiln"
)

// answering is code that answers with the text.
func answering(text string) []byte {
	return kiln.Zip(map[string]string{"f.py": "def handler(event, context):\n    return '" + text + "'\n"})
}

// TestVersions publishes, shows, invokes and deletes versions and aliases with each client.
func TestVersions(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, "--any-runtime")
	each(t, func(t *testing.T, name string, c client) {
		s := session{c, t, anyKey(d)}
		fn := "versions-" + name
		of := func(q string) values { return values{"FunctionName": fn, "Qualifier": q} }
		runs := func(in values, version, answer string) {
			t.Helper()
			out, payload := s.invoke(in)
			want(t, fmt.Sprint(in, " executes"), out["ExecutedVersion"], version)
			want(t, fmt.Sprint(in, " answers"), payload, `"`+answer+`"`)
		}
		update := func(text string) {
			t.Helper()
			s.must("UpdateFunctionCode", values{"FunctionName": fn, "ZipFile": answering(text)})
			if f := s.wait(s.to, "FunctionUpdatedV2", fn); f != nil {
				t.Fatal(f)
			}
		}
		latest := s.create(fn, values{"Code": values{"ZipFile": answering("one")}})
		one := s.must("PublishVersion", values{"FunctionName": fn, "Description": "first", "CodeSha256": latest["CodeSha256"]})
		want(t, "Version", one["Version"], "1")
		want(t, "FunctionArn", one["FunctionArn"], arnPrefix+fn+":1")
		want(t, "Description", one["Description"], "first")
		want(t, "State", one["State"], "Active")
		want(t, "publishing the same again", s.must("PublishVersion", values{"FunctionName": fn})["Version"], "1")
		s.refused("PublishVersion", values{"FunctionName": fn, "RevisionId": one["RevisionId"]}, 412, "PreconditionFailedException",
			"The Revision Id provided does not match the latest Revision Id. Call the GetFunction/GetAlias API to retrieve the latest Revision Id")
		update("two")
		s.refused("PublishVersion", values{"FunctionName": fn, "CodeSha256": latest["CodeSha256"]}, 400, "InvalidParameterValueException",
			fmt.Sprintf("CodeSHA256 (%s) is different from current CodeSHA256 in $LATEST (%s). Please try again with the CodeSHA256 in $LATEST.",
				latest["CodeSha256"], s.must("GetFunctionConfiguration", values{"FunctionName": fn})["CodeSha256"]))
		revision := s.must("GetFunctionConfiguration", values{"FunctionName": fn})["RevisionId"]
		want(t, "Version", s.must("PublishVersion", values{"FunctionName": fn, "RevisionId": revision})["Version"], "2")
		update("three")

		// A version stays what it was.
		runs(values{"FunctionName": fn}, "$LATEST", "three")
		runs(of("1"), "1", "one")
		runs(values{"FunctionName": fn + ":2"}, "2", "two")
		frozen := s.must("GetFunctionConfiguration", of("1"))
		want(t, "CodeSha256 of version 1", frozen["CodeSha256"], latest["CodeSha256"])
		want(t, "RevisionId of version 1", frozen["RevisionId"], one["RevisionId"])

		// Aliases route by weight.
		alias := s.must("CreateAlias", values{"FunctionName": fn, "Name": "live", "FunctionVersion": "1", "Description": "what is live"})
		want(t, "AliasArn", alias["AliasArn"], arnPrefix+fn+":live")
		runs(of("live"), "1", "one")
		want(t, "FunctionArn by alias", s.must("GetFunctionConfiguration", of("live"))["FunctionArn"], arnPrefix+fn+":live")
		weights := func(w values) values { return values{"AdditionalVersionWeights": w} }
		moved := s.must("UpdateAlias", values{"FunctionName": fn, "Name": "live", "RevisionId": alias["RevisionId"], "RoutingConfig": weights(values{"2": 1.0})})
		want(t, "weights", canonical(moved["RoutingConfig"]), `{"AdditionalVersionWeights":{"2":1}}`)
		runs(of("live"), "2", "two")
		if name != "cli" { // a process for each call
			s.must("UpdateAlias", values{"FunctionName": fn, "Name": "live", "RoutingConfig": weights(values{"2": 0.5})})
			seen := map[string]bool{}
			for range 200 { // all of one is as likely as 2^-199
				_, payload := s.invoke(of("live"))
				if seen[payload] = true; len(seen) == 2 {
					break
				}
			}
			want(t, "versions at half and half", len(seen), 2)
		}
		s.must("UpdateAlias", values{"FunctionName": fn, "Name": "live", "FunctionVersion": "2", "RoutingConfig": weights(values{})})
		if rest := s.must("GetAlias", values{"FunctionName": fn, "Name": "live"}); rest["RoutingConfig"] != nil {
			t.Errorf("cleared weights: %v", rest)
		}
		runs(of("live"), "2", "two")

		s.refused("DeleteFunction", of("2"), 409, "ResourceConflictException",
			"Unable to delete version because the following aliases reference it: [live]")
		s.must("DeleteFunction", of("1"))
		s.refused("GetFunction", of("1"), 404, missing, "Function not found: "+arnPrefix+fn+":1")
		s.refused("Invoke", of("1"), 404, missing, "Function not found: "+arnPrefix+fn+":1")
		s.must("DeleteAlias", values{"FunctionName": fn, "Name": "live"})
		s.must("DeleteAlias", values{"FunctionName": fn, "Name": "live"}) // it is gone already
		want(t, "the number goes on", s.must("PublishVersion", values{"FunctionName": fn})["Version"], "3")
		s.must("DeleteFunction", values{"FunctionName": fn})
		s.refused("Invoke", of("2"), 404, missing, "Function not found: "+arnPrefix+fn+":2")
		if name == "cli" {
			return
		}

		s.create(fn, nil)
		s.must("PublishVersion", values{"FunctionName": fn})
		s.must("CreateAlias", values{"FunctionName": fn, "Name": "live", "FunctionVersion": "1"})
		for _, r := range []struct {
			operation     string
			in            values
			status        int
			code, message string
		}{
			{"CreateAlias", values{"Name": "live", "FunctionVersion": "1"}, 409, "ResourceConflictException", "Alias already exists: " + arnPrefix + fn + ":live"},
			{"CreateAlias", values{"Name": "x", "FunctionVersion": "7"}, 404, missing, "Function not found: " + arnPrefix + fn + ":7"},
			{"CreateAlias", values{"Name": "x", "FunctionVersion": "1", "RoutingConfig": weights(values{"1": 0.5})}, 400, "InvalidParameterValueException",
				"Invalid function version 1. Function version 1 is already included in routing configuration."},
			{"CreateAlias", values{"Name": "x", "FunctionVersion": "$LATEST", "RoutingConfig": weights(values{"1": 0.5})}, 400, "InvalidParameterValueException",
				"$LATEST is not supported for an alias pointing to more than 1 version"},
			{"CreateAlias", values{"Name": "x", "FunctionVersion": "1", "RoutingConfig": weights(values{"2": 0.5, "3": 0.1})}, 400, "InvalidParameterValueException",
				"Number of items in AdditionalVersionWeights cannot be greater than 1"},
			{"DeleteFunction", values{"Qualifier": "$LATEST"}, 400, "InvalidParameterValueException",
				"$LATEST version cannot be deleted without deleting the function."},
			{"DeleteFunction", values{"Qualifier": "live"}, 400, "InvalidParameterValueException", "Deletion of aliases is not currently supported."},
			{"GetAlias", values{"Name": "x"}, 404, missing, "Cannot find alias arn: " + arnPrefix + fn + ":x"},
			{"UpdateAlias", values{"Name": "x"}, 404, missing, "Alias not found: " + arnPrefix + fn + ":x"},
			{"UpdateAlias", values{"Name": "live", "RevisionId": "11111111-2222-3333-4444-555555555555"}, 412, "PreconditionFailedException",
				"The Revision Id provided does not match the latest Revision Id. Call the GetFunction/GetAlias API to retrieve the latest Revision Id"},
		} {
			r.in["FunctionName"] = fn
			s.refused(r.operation, r.in, r.status, r.code, r.message)
		}
	})
}

// TestVersionPages has boto3's paginators go through versions and aliases.
func TestVersionPages(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, "--any-runtime")
	to := anyKey(d)
	s := session{goSDK{}, t, to}
	s.create("many", nil)
	const count = 12
	for i := range count {
		description := fmt.Sprint(i)
		s.must("UpdateFunctionConfiguration", values{"FunctionName": "many", "Description": description})
		if f := s.wait(to, "FunctionUpdatedV2", "many"); f != nil {
			t.Fatal(f)
		}
		s.must("PublishVersion", values{"FunctionName": "many"})
		s.must("CreateAlias", values{"FunctionName": "many", "Name": fmt.Sprint("a", i), "FunctionVersion": fmt.Sprint(i%2 + 1)})
	}
	boto := newClient(t, "boto3").(*script)
	sizes := func(paginator, list string, size int, more values) string {
		in := values{"FunctionName": "many"}
		for member, value := range more {
			in[member] = value
		}
		out, f := boto.do(to, "paginate", paginator, values{"PageSize": size, "List": list, "Of": in})
		if f != nil {
			t.Fatal(f)
		}
		return canonical(out["Sizes"])
	}
	want(t, "versions", sizes("ListVersionsByFunction", "Versions", 5, nil), "[5,5,3]") // and $LATEST
	want(t, "aliases", sizes("ListAliases", "Aliases", 5, nil), "[5,5,2]")
	want(t, "aliases of a version", sizes("ListAliases", "Aliases", 5, values{"FunctionVersion": "1"}), "[5,1]")
	list := s.must("ListVersionsByFunction", values{"FunctionName": "many"})["Versions"].([]any)
	for i, q := range []string{"$LATEST", "1", "2"} {
		want(t, "a version", list[i].(map[string]any)["FunctionArn"], arnPrefix+"many:"+q)
	}
}

// TestWaiters counts how often the waiters ask: what they wait for is there by their
// second look, so that nobody sleeps seconds for what took milliseconds.
func TestWaiters(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, "--any-runtime")
	target, err := url.Parse(d.URL)
	if err != nil {
		t.Fatal(err)
	}
	each(t, func(t *testing.T, name string, c client) {
		var polls atomic.Int64
		proxy := httputil.NewSingleHostReverseProxy(target)
		counted := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == "GET" {
				polls.Add(1)
			}
			proxy.ServeHTTP(w, r)
		}))
		t.Cleanup(counted.Close)
		s := session{c, t, anyKey(d)}
		s.to.endpoint = counted.URL
		fn := "awaited-" + name
		for _, step := range []struct {
			operation string
			in        values
			waiter    string
			state     string
		}{
			{"CreateFunction", create(fn, nil), "FunctionActiveV2", "Pending"},
			{"UpdateFunctionConfiguration", values{"FunctionName": fn, "Timeout": 9}, "FunctionUpdatedV2", "InProgress"},
			{"UpdateFunctionCode", values{"FunctionName": fn, "ZipFile": answering("x")}, "FunctionUpdatedV2", "InProgress"},
		} {
			answer := s.must(step.operation, step.in)
			if state := answer["State"]; state != step.state && answer["LastUpdateStatus"] != step.state {
				t.Errorf("%s answers %v, %v; want %s", step.operation, state, answer["LastUpdateStatus"], step.state)
			}
			polls.Store(0)
			if f := s.wait(s.to, step.waiter, fn); f != nil {
				t.Fatal(f)
			}
			if n := polls.Load(); n < 1 || n > 2 {
				t.Errorf("%s asks %d times after %s", step.waiter, n, step.operation)
			}
		}
		if name == "boto3" {
			s.must("PublishVersion", values{"FunctionName": fn})
			polls.Store(0)
			if f := s.wait(s.to, "PublishedVersionActive", fn+":1"); f != nil {
				t.Fatal(f)
			}
			want(t, "polls of a published version", polls.Load(), 1)
		}
	})
}
