package conformance

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"kiln/test/kiln"
)

const (
	missing = "ResourceNotFoundException"
	invalid = "InvalidParameterValueException"
)

var urlTime = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`)

// TestFunctionURLLife takes the URLs of a function and of an alias from creation to end
// with each client.
func TestFunctionURLLife(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, "--any-runtime")
	port := d.URL[strings.LastIndex(d.URL, ":")+1:]
	each(t, func(t *testing.T, name string, c client) {
		s := session{c, t, anyKey(d)}
		fn := "url-" + name
		s.create(fn, nil)
		s.must("CreateAlias", values{"FunctionName": fn, "Name": "live", "FunctionVersion": "$LATEST"})
		of := values{"FunctionName": fn}
		ofAlias := values{"FunctionName": fn, "Qualifier": "live"}

		made := s.must("CreateFunctionUrlConfig", values{"FunctionName": fn, "AuthType": "NONE"})
		shape := regexp.MustCompile(`^http://[a-z0-9]{32}\.lambda-url\.us-east-1\.localhost:` + port + `/$`)
		if u := fmt.Sprint(made["FunctionUrl"]); !shape.MatchString(u) || len(u) < 40 || len(u) > 100 {
			t.Errorf("FunctionUrl: %s", u)
		}
		want(t, "FunctionArn", made["FunctionArn"], arnPrefix+fn)
		want(t, "AuthType", made["AuthType"], "NONE")
		for _, m := range []string{"InvokeMode", "LastModifiedTime", "Cors"} { // which a creation does not show
			want(t, m, made[m], nil)
		}
		if created := fmt.Sprint(made["CreationTime"]); !urlTime.MatchString(created) {
			t.Errorf("CreationTime: %s", created)
		}
		got := s.must("GetFunctionUrlConfig", of)
		for _, m := range []string{"FunctionUrl", "FunctionArn", "AuthType", "CreationTime"} {
			want(t, m, got[m], made[m])
		}
		want(t, "InvokeMode", got["InvokeMode"], "BUFFERED")
		want(t, "LastModifiedTime", got["LastModifiedTime"], made["CreationTime"])
		exists := "Failed to create function url config for [functionArn = " + arnPrefix + fn + "]. Error message:  FunctionUrlConfig exists for this Lambda function"
		s.refused("CreateFunctionUrlConfig", values{"FunctionName": arnPrefix + fn, "AuthType": "AWS_IAM"}, 409, "ResourceConflictException", exists)

		cors := values{"AllowCredentials": true, "AllowHeaders": []any{"x-h"}, "AllowMethods": []any{"GET", "*"}, "AllowOrigins": []any{"https://example.com"}, "ExposeHeaders": []any{"x-e"}, "MaxAge": 60}
		streamed := s.must("CreateFunctionUrlConfig", values{"FunctionName": fn, "Qualifier": "live", "AuthType": "AWS_IAM", "InvokeMode": "RESPONSE_STREAM", "Cors": cors})
		want(t, "FunctionArn", streamed["FunctionArn"], arnPrefix+fn+":live")
		want(t, "InvokeMode", streamed["InvokeMode"], "RESPONSE_STREAM")
		for m, v := range cors {
			want(t, m, member(streamed, "Cors", m), v)
		}
		if streamed["FunctionUrl"] == made["FunctionUrl"] {
			t.Errorf("two URLs are %v", made["FunctionUrl"])
		}
		list := s.must("ListFunctionUrlConfigs", of)["FunctionUrlConfigs"].([]any)
		want(t, "URLs", len(list), 2)
		want(t, "the first", member(list, 0, "FunctionUrl"), made["FunctionUrl"])
		want(t, "the second", member(list, 1, "FunctionUrl"), streamed["FunctionUrl"])
		want(t, "InvokeModes", []any{member(list, 0, "InvokeMode"), member(list, 1, "InvokeMode")}, "[BUFFERED RESPONSE_STREAM]")

		changed := s.must("UpdateFunctionUrlConfig", values{"FunctionName": fn, "Qualifier": "live", "AuthType": "NONE"})
		want(t, "FunctionUrl", changed["FunctionUrl"], streamed["FunctionUrl"])
		want(t, "AuthType", changed["AuthType"], "NONE")
		want(t, "InvokeMode", changed["InvokeMode"], nil) // it was not given
		want(t, "MaxAge", member(changed, "Cors", "MaxAge"), 60)
		changed = s.must("UpdateFunctionUrlConfig", values{"FunctionName": fn, "Qualifier": "live", "InvokeMode": "BUFFERED", "Cors": values{"MaxAge": 5}})
		want(t, "InvokeMode", changed["InvokeMode"], "BUFFERED")
		want(t, "MaxAge", member(changed, "Cors", "MaxAge"), 5)
		want(t, "AllowOrigins", member(changed, "Cors", "AllowOrigins"), nil) // Cors is replaced whole
		changed = s.must("UpdateFunctionUrlConfig", values{"FunctionName": fn, "Qualifier": "live", "Cors": values{}})
		want(t, "Cors", changed["Cors"], nil)
		if changed["LastModifiedTime"].(string) < changed["CreationTime"].(string) {
			t.Errorf("changed at %v, before its creation at %v", changed["LastModifiedTime"], changed["CreationTime"])
		}

		s.must("DeleteFunctionUrlConfig", of)
		for _, operation := range []string{"GetFunctionUrlConfig", "UpdateFunctionUrlConfig", "DeleteFunctionUrlConfig"} {
			s.refused(operation, of, 404, missing, "The resource you requested does not exist.")
		}
		again := s.must("CreateFunctionUrlConfig", values{"FunctionName": fn, "AuthType": "NONE"})
		if again["FunctionUrl"] == made["FunctionUrl"] {
			t.Error("a URL that was deleted is there again")
		}
		s.must("DeleteAlias", values{"FunctionName": fn, "Name": "live"})
		s.refused("GetFunctionUrlConfig", ofAlias, 404, missing, "The resource you requested does not exist.")
		s.must("DeleteFunction", of)
		s.create(fn, nil)
		s.refused("GetFunctionUrlConfig", of, 404, missing, "The resource you requested does not exist.")
	})
}

// TestFunctionURLRefusals is what requests about URLs are refused for, and what is at the
// edge and taken.
func TestFunctionURLRefusals(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, "--any-runtime")
	s := session{goSDK{}, t, anyKey(d)}
	s.create("f", nil)
	s.must("PublishVersion", values{"FunctionName": "f"})
	s.must("CreateFunctionUrlConfig", values{"FunctionName": "f", "AuthType": "NONE"})
	none, noResource := "Function does not exist", "The resource you requested does not exist."
	for _, of := range []values{{"FunctionName": "absent"}, {"FunctionName": "f", "Qualifier": "absent"}, {"FunctionName": "f:absent"}} {
		with := values{"AuthType": "NONE"}
		for m, v := range of {
			with[m] = v
		}
		s.refused("CreateFunctionUrlConfig", with, 404, missing, none)
		s.refused("UpdateFunctionUrlConfig", with, 404, missing, none)
		s.refused("GetFunctionUrlConfig", of, 404, missing, noResource)
		s.refused("DeleteFunctionUrlConfig", of, 404, missing, noResource)
	}
	s.refused("ListFunctionUrlConfigs", values{"FunctionName": "absent"}, 404, missing, none)

	const violated = "1 validation error detected: Value '%s' at '%s' failed to satisfy constraint: Member must "
	const pattern = `satisfy regular expression pattern: ((?!^\d+$)^[0-9a-zA-Z-_]+$)`
	operations := []string{"CreateFunctionUrlConfig", "GetFunctionUrlConfig", "UpdateFunctionUrlConfig", "DeleteFunctionUrlConfig"}
	for _, q := range []string{"1", "$LATEST"} {
		for _, operation := range operations {
			for _, in := range []values{{"FunctionName": "f", "Qualifier": q}, {"FunctionName": "f:" + q}, {"FunctionName": arnPrefix + "f:" + q}} {
				if operation == "CreateFunctionUrlConfig" {
					in["AuthType"] = "NONE"
				}
				s.refused(operation, in, 400, "ValidationException", fmt.Sprintf(violated, q, "qualifier")+pattern)
			}
		}
	}
	s.refused("GetFunctionUrlConfig", values{"FunctionName": "f:live", "Qualifier": "other"}, 400, invalid, "The derived qualifier from the function name does not match the specified qualifier.")
	elsewhere := "Functions from 'eu-west-1' are not reachable in this region ('us-east-1')"
	s.refused("GetFunctionUrlConfig", values{"FunctionName": "arn:aws:lambda:eu-west-1:000000000000:function:f"}, 404, missing, elsewhere)

	long := func(n int) string { return strings.Repeat("x", n) }
	many := func(n int, item string) (list []any) {
		for range n {
			list = append(list, item)
		}
		return list
	}
	for _, c := range []struct {
		in    values
		taken bool
	}{
		{values{"AuthType": "OTHER"}, false},
		{values{"InvokeMode": "buffered"}, false},
		{values{"Cors": values{"MaxAge": 0}}, true},
		{values{"Cors": values{"MaxAge": 86400}}, true},
		{values{"Cors": values{"MaxAge": 86401}}, false},
		{values{"Cors": values{"MaxAge": -1}}, false},
		{values{"Cors": values{"AllowMethods": many(6, "DELETE")}}, true},
		{values{"Cors": values{"AllowMethods": many(7, "GET")}}, false},
		{values{"Cors": values{"AllowMethods": many(1, "OPTIONS")}}, false},
		{values{"Cors": values{"AllowOrigins": many(100, long(253))}}, true},
		{values{"Cors": values{"AllowOrigins": many(101, "*")}}, false},
		{values{"Cors": values{"AllowOrigins": many(1, long(254))}}, false},
		{values{"Cors": values{"AllowOrigins": many(1, "")}}, false},
		{values{"Cors": values{"AllowHeaders": many(100, long(1024))}}, true},
		{values{"Cors": values{"AllowHeaders": many(101, "h")}}, false},
		{values{"Cors": values{"AllowHeaders": many(1, long(1025))}}, false},
		{values{"Cors": values{"ExposeHeaders": many(100, "h")}}, true},
		{values{"Cors": values{"ExposeHeaders": many(101, "h")}}, false},
	} {
		c.in["FunctionName"] = "f"
		if c.taken {
			s.must("UpdateFunctionUrlConfig", c.in)
			continue
		}
		s.refusedIf("UpdateFunctionUrlConfig", c.in, 400, "ValidationException", "the constraint", func(got string) bool {
			return strings.HasPrefix(got, "1 validation error detected: Value '") && strings.Contains(got, "failed to satisfy constraint: Member must")
		})
	}
	got := s.must("GetFunctionUrlConfig", values{"FunctionName": "f"}) // the last that was taken
	want(t, "headers", len(member(got, "Cors", "ExposeHeaders").([]any)), 100)
	for _, size := range []int{0, 51} {
		s.refusedIf("ListFunctionUrlConfigs", values{"FunctionName": "f", "MaxItems": size}, 400, "ValidationException", "the bound", func(got string) bool {
			return strings.Contains(got, "at 'maxItems' failed to satisfy constraint: Member must have value")
		})
	}
	s.refused("ListFunctionUrlConfigs", values{"FunctionName": "f", "Marker": "!"}, 400, invalid, "The provided Marker is not one that a list returned: !")
}

// TestFunctionURLName: a URL leads to the machine under whatever name Kiln is called, and
// stays what it was over a restart.
func TestFunctionURLName(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, "--any-runtime", "--hosts", "kiln.test,192.0.2.7")
	s := session{goSDK{}, t, anyKey(d)}
	s.create("f", nil)
	made := s.must("CreateFunctionUrlConfig", values{"FunctionName": "f", "AuthType": "NONE"})
	u, err := url.Parse(made["FunctionUrl"].(string))
	if err != nil {
		t.Fatal(err)
	}
	id, _, _ := strings.Cut(u.Host, ".")
	port := u.Port()
	for host, shown := range map[string]string{
		"localhost:" + port:        "localhost:" + port,
		"127.0.0.1:" + port:        "localhost:" + port,
		"[::1]:" + port:            "localhost:" + port,
		"lambda.localhost:" + port: "localhost:" + port,
		"kiln.test:" + port:        "kiln.test:" + port,
		"kiln.test":                "kiln.test",
		"127.0.0.1":                "localhost",
		"[::1]":                    "localhost",
	} {
		header := date()
		header["Host"] = host
		_, answer := send(t, "GET", d.URL+"/2021-10-31/functions/f/url", "", header)
		want(t, "FunctionUrl for "+host, answer["FunctionUrl"], "http://"+id+".lambda-url.us-east-1."+shown+"/")
	}
	for _, host := range []string{"192.0.2.7:" + port, "192.0.2.7"} { // no names are below another machine's address
		header := date()
		header["Host"] = host
		_, answer := send(t, "GET", d.URL+"/2021-10-31/functions/f/url", "", header)
		want(t, "FunctionUrl for "+host, answer["FunctionUrl"], "http://"+host+"/_kiln/url/"+id+"/")
	}
	d.Stop()
	d.Start()
	s.to = anyKey(d)
	now, err := url.Parse(s.must("GetFunctionUrlConfig", values{"FunctionName": "f"})["FunctionUrl"].(string))
	if err != nil || !strings.HasPrefix(now.Host, id+".") {
		t.Errorf("after a restart the URL is %v, %v; was %v", now, err, u)
	}
}

// TestEventInvokeConfigLife takes configurations of asynchronous invocations from creation
// to end with each client.
func TestEventInvokeConfigLife(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, "--any-runtime")
	each(t, func(t *testing.T, name string, c client) {
		s := session{c, t, anyKey(d)}
		fn := "async-" + name
		s.create(fn, nil)
		s.create(fn+"-next", nil)
		s.must("PublishVersion", values{"FunctionName": fn})
		s.must("CreateAlias", values{"FunctionName": fn, "Name": "live", "FunctionVersion": "1"})
		of := values{"FunctionName": fn}
		next := arnPrefix + fn + "-next"

		put := s.must("PutFunctionEventInvokeConfig", values{"FunctionName": fn, "MaximumRetryAttempts": 0, "DestinationConfig": values{"OnFailure": values{"Destination": jobs}, "OnSuccess": values{"Destination": next}}})
		want(t, "FunctionArn", put["FunctionArn"], arnPrefix+fn+":$LATEST")
		want(t, "MaximumRetryAttempts", put["MaximumRetryAttempts"], 0)
		want(t, "MaximumEventAgeInSeconds", put["MaximumEventAgeInSeconds"], nil)
		want(t, "OnFailure", member(put, "DestinationConfig", "OnFailure", "Destination"), jobs)
		want(t, "OnSuccess", member(put, "DestinationConfig", "OnSuccess", "Destination"), next)
		for _, in := range []values{of, {"FunctionName": fn, "Qualifier": "$LATEST"}, {"FunctionName": arnPrefix + fn + ":$LATEST"}} {
			got := s.must("GetFunctionEventInvokeConfig", in)
			for _, m := range []string{"FunctionArn", "MaximumRetryAttempts", "MaximumEventAgeInSeconds", "DestinationConfig", "LastModified"} {
				want(t, m, got[m], put[m])
			}
		}
		changed := s.must("UpdateFunctionEventInvokeConfig", values{"FunctionName": fn, "MaximumEventAgeInSeconds": 60})
		want(t, "MaximumRetryAttempts", changed["MaximumRetryAttempts"], 0)
		want(t, "MaximumEventAgeInSeconds", changed["MaximumEventAgeInSeconds"], 60)
		want(t, "OnFailure", member(changed, "DestinationConfig", "OnFailure", "Destination"), jobs)
		put = s.must("PutFunctionEventInvokeConfig", values{"FunctionName": fn, "MaximumRetryAttempts": 2}) // replaces all
		want(t, "MaximumEventAgeInSeconds", put["MaximumEventAgeInSeconds"], nil)
		want(t, "OnFailure", member(put, "DestinationConfig", "OnFailure", "Destination"), nil)
		if _, ok := member(put, "DestinationConfig", "OnSuccess").(map[string]any); !ok { // it is there, and empty
			t.Errorf("DestinationConfig: %v", put["DestinationConfig"])
		}

		for _, q := range []string{"1", "live"} {
			absent := "The function " + arnPrefix + fn + ":" + q + " doesn't have an EventInvokeConfig"
			s.refused("GetFunctionEventInvokeConfig", values{"FunctionName": fn, "Qualifier": q}, 404, missing, absent)
			put := s.must("PutFunctionEventInvokeConfig", values{"FunctionName": fn, "Qualifier": q, "MaximumEventAgeInSeconds": 21600})
			want(t, "FunctionArn", put["FunctionArn"], arnPrefix+fn+":"+q)
		}
		list := s.must("ListFunctionEventInvokeConfigs", of)["FunctionEventInvokeConfigs"].([]any)
		want(t, "configurations", len(list), 3)
		for i, q := range []string{"$LATEST", "1", "live"} {
			want(t, "FunctionArn", member(list, i, "FunctionArn"), arnPrefix+fn+":"+q)
		}
		s.must("DeleteFunctionEventInvokeConfig", of)
		absent := "The function " + arnPrefix + fn + ":$LATEST doesn't have an EventInvokeConfig"
		s.refused("GetFunctionEventInvokeConfig", of, 404, missing, absent)
		s.refused("DeleteFunctionEventInvokeConfig", of, 404, missing, absent)
		s.refused("UpdateFunctionEventInvokeConfig", values{"FunctionName": fn, "MaximumRetryAttempts": 1}, 404, missing, absent)
		s.must("DeleteAlias", values{"FunctionName": fn, "Name": "live"})
		want(t, "configurations", len(s.must("ListFunctionEventInvokeConfigs", of)["FunctionEventInvokeConfigs"].([]any)), 1)
	})
}

// TestEventInvokeConfigRefusals is what configurations of asynchronous invocations are
// refused for, and what is at the edge and taken.
func TestEventInvokeConfigRefusals(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, "--any-runtime")
	s := session{goSDK{}, t, anyKey(d)}
	s.create("f", nil)
	s.create("g", nil)
	s.must("CreateAlias", values{"FunctionName": "g", "Name": "live", "FunctionVersion": "$LATEST"})
	s.must("PutFunctionEventInvokeConfig", values{"FunctionName": "f", "MaximumRetryAttempts": 1})
	const nothing = "You must specify at least one of error handling or destination setting."
	for _, operation := range []string{"PutFunctionEventInvokeConfig", "UpdateFunctionEventInvokeConfig"} {
		s.refused(operation, values{"FunctionName": "f"}, 400, invalid, nothing)
		s.refused(operation, values{"FunctionName": "absent"}, 400, invalid, nothing) // which is looked at first
		for _, of := range []values{{"FunctionName": "absent"}, {"FunctionName": "f", "Qualifier": "absent"}, {"FunctionName": "f:7"}} {
			of["MaximumRetryAttempts"] = 1
			s.refused(operation, of, 404, missing, "The function doesn't exist.")
		}
	}
	for _, operation := range []string{"GetFunctionEventInvokeConfig", "DeleteFunctionEventInvokeConfig"} {
		s.refused(operation, values{"FunctionName": "absent"}, 404, missing, "The function "+arnPrefix+"absent:$LATEST doesn't have an EventInvokeConfig")
		s.refused(operation, values{"FunctionName": "f", "Qualifier": "absent"}, 404, missing, "The function "+arnPrefix+"f:absent doesn't have an EventInvokeConfig")
	}
	s.refused("ListFunctionEventInvokeConfigs", values{"FunctionName": "absent"}, 404, missing, "The function doesn't exist.")

	for _, c := range []struct {
		member string
		value  int
		taken  bool
	}{
		{"MaximumRetryAttempts", -1, false},
		{"MaximumRetryAttempts", 0, true},
		{"MaximumRetryAttempts", 2, true},
		{"MaximumRetryAttempts", 3, false},
		{"MaximumEventAgeInSeconds", 59, false},
		{"MaximumEventAgeInSeconds", 60, true},
		{"MaximumEventAgeInSeconds", 21600, true},
		{"MaximumEventAgeInSeconds", 21601, false},
	} {
		in := values{"FunctionName": "f", c.member: c.value}
		if c.taken {
			s.must("PutFunctionEventInvokeConfig", in)
			continue
		}
		s.refusedIf("PutFunctionEventInvokeConfig", in, 400, "ValidationException", "the bound", func(got string) bool {
			return strings.Contains(got, fmt.Sprintf("Value '%d' at '%s", c.value, strings.ToLower(c.member[:1])+c.member[1:])) && strings.Contains(got, "Member must have value")
		})
	}

	const bus = "arn:aws:events:us-east-1:000000000000:event-bus/default"
	const topic = "arn:aws:sns:us-east-1:000000000000:topic"
	const bucket = "arn:aws:s3:::bucket"
	refusal := func(success, failure string) string {
		return "The provided destination config DestinationConfig(onSuccess=" + success + ", onFailure=" + failure + ") is invalid."
	}
	const self = "You can't specify the function as a destination for itself."
	for _, c := range []struct{ success, failure, refusal string }{
		{jobs, topic, ""},
		{topic, bus, ""},
		{bus, bucket, ""},
		{arnPrefix + "g", arnPrefix + "g:live", ""},
		{"", "", ""},
		{bucket, "", refusal("OnSuccess(destination="+bucket+")", "null")},
		{jobs + ".fifo", "", refusal("OnSuccess(destination="+jobs+".fifo)", "null")},
		{jobs, clicks, refusal("OnSuccess(destination="+jobs+")", "OnFailure(destination="+clicks+")")},
		{"", "kafka://topic", refusal("null", "OnFailure(destination=kafka://topic)")},
		{"", arnPrefix + "absent", "The destination ARN " + arnPrefix + "absent is invalid."},
		{arnPrefix + "g:absent", "", "The destination ARN " + arnPrefix + "g:absent is invalid."},
		{"arn:aws:lambda:us-east-1:111122223333:function:g", "", "The destination ARN arn:aws:lambda:us-east-1:111122223333:function:g is invalid."},
		{"arn:aws:lambda:eu-west-1:000000000000:function:g", "", "The destination ARN arn:aws:lambda:eu-west-1:000000000000:function:g is invalid."},
		{arnPrefix + "f", "", self},
		{"", arnPrefix + "f:$LATEST", self},
	} {
		in := values{"FunctionName": "f", "DestinationConfig": values{"OnSuccess": values{"Destination": c.success}, "OnFailure": values{"Destination": c.failure}}}
		for _, operation := range []string{"PutFunctionEventInvokeConfig", "UpdateFunctionEventInvokeConfig"} {
			if c.refusal != "" {
				s.refused(operation, in, 400, invalid, c.refusal)
				continue
			}
			out := s.must(operation, in)
			for kind, arn := range map[string]string{"OnSuccess": c.success, "OnFailure": c.failure} {
				if got := member(out, "DestinationConfig", kind, "Destination"); got != arn && (arn != "" || got != nil) {
					t.Errorf("%s: %s is %v, want %q", operation, kind, got, arn)
				}
			}
		}
	}
	s.refusedIf("PutFunctionEventInvokeConfig", values{"FunctionName": "f", "DestinationConfig": values{"OnFailure": values{"Destination": "queue"}}}, 400, "ValidationException", "the pattern",
		func(got string) bool {
			return strings.Contains(got, "Value 'queue' at 'destinationConfig.onFailure.destination' failed to satisfy constraint: Member must satisfy regular expression pattern")
		})
	d.Stop()
	d.Start()
	s.to = anyKey(d)
	got := s.must("GetFunctionEventInvokeConfig", values{"FunctionName": "f"})
	if at, err := time.Parse(time.RFC3339, fmt.Sprint(got["LastModified"])); err != nil || time.Since(at) > time.Hour {
		t.Errorf("LastModified after a restart: %v, %v", got["LastModified"], err)
	}
}
