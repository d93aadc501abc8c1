package conformance

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"kiln/test/kiln"
)

const functionsPath = "/2015-03-31/functions"

// deploy makes a function of the account that answers with the text.
func (k *key) deploy(t *testing.T, d *kiln.Daemon, account, name, answer string) {
	t.Helper()
	code := base64.StdEncoding.EncodeToString(kiln.Bash(`echo "log of ` + answer + `"; answer='"` + answer + `"'`))
	status, text, _ := k.as(t, "lambda", "POST", d.URL+functionsPath, `{"FunctionName":"`+name+`","Runtime":"provided.al2023","Handler":"x","Role":"arn:aws:iam::`+account+`:role/r","Timeout":60,"Code":{"ZipFile":"`+code+`"}}`)
	if status != 201 {
		t.Fatalf("create %s: %d %s", name, status, text)
	}
}

// TestAccountsApart has two accounts with things of the same names. Neither sees the
// other's, by name, by list or by ARN.
func TestAccountsApart(t *testing.T) {
	t.Parallel()
	d, root := keyed(t, "--account", "123456789012")
	accounts := []struct {
		id  string
		key *key
	}{{"123456789012", root.newKey(t, d, "", "admin", "")}, {foreignAccount, root.newKey(t, d, foreignAccount, "admin", "")}}
	layer := base64.StdEncoding.EncodeToString(kiln.Zip(map[string]string{"f": "x"}))
	for _, a := range accounts {
		a.key.deploy(t, d, a.id, "same", "this is of "+a.id)
		a.key.deploy(t, d, a.id, "only-in-"+a.id, "x")
		if status, text, _ := a.key.as(t, "lambda", "POST", d.URL+"/2018-10-31/layers/same/versions", `{"Description":"this is of `+a.id+`","Content":{"ZipFile":"`+layer+`"}}`); status != 201 {
			t.Fatalf("%d %s", status, text)
		}
	}
	logs := func(k *key, operation, body string) (int, string) {
		status, text, _ := k.as(t, "logs", "POST", d.URL+"/", body, "X-Amz-Target", "Logs_20140328."+operation, "Content-Type", "application/x-amz-json-1.1")
		return status, text
	}
	for i, a := range accounts {
		other := accounts[1-i]
		own := func(what string, status int, text string) {
			t.Helper()
			if status != 200 || !strings.Contains(text, a.id) || strings.Contains(text, other.id) {
				t.Errorf("%s of %s: %d %s", what, a.id, status, text)
			}
		}
		for what, path := range map[string]string{
			"function": functionsPath + "/same", "functions": functionsPath, "layer": "/2018-10-31/layers/same/versions/1", "layers": "/2018-10-31/layers", "layer's versions": "/2018-10-31/layers/same/versions",
		} {
			status, text, _ := a.key.as(t, "lambda", "GET", d.URL+path, "")
			// Of the links, only whose they are matters.
			own(what, status, text)
		}
		status, text, _ := a.key.as(t, "lambda", "POST", d.URL+functionsPath+"/same/invocations", "{}")
		own("answer", status, text)
		kiln.Await(t, "the log", func() bool {
			_, text := logs(a.key, "FilterLogEvents", `{"logGroupName":"/aws/lambda/same"}`)
			return strings.Contains(text, "log of")
		})
		status, text = logs(a.key, "FilterLogEvents", `{"logGroupName":"/aws/lambda/same"}`)
		own("log", status, text)
		status, text = logs(a.key, "DescribeLogGroups", `{}`)
		own("log groups", status, text)
		status, text, _ = a.key.as(t, "kiln", "GET", d.URL+"/_kiln/keys?account="+a.id, "")
		own("keys", status, text)

		arn := "arn:aws:lambda:us-east-1:" + other.id
		for _, r := range [][3]string{
			{"GET", functionsPath + "/" + arn + ":function:same", ""}, {"POST", functionsPath + "/" + arn + ":function:same/invocations", "{}"},
			{"DELETE", functionsPath + "/" + other.id + ":function:same", ""}, {"GET", "/2018-10-31/layers/" + arn + ":layer:same/versions/1", ""},
			{"PUT", functionsPath + "/same/configuration", `{"Layers":["` + arn + `:layer:same:1"]}`},
		} {
			if status, text, _ := a.key.as(t, "lambda", r[0], d.URL+r[1], r[2]); status != 403 || !strings.Contains(text, "because no resource-based policy allows the ") {
				t.Errorf("%s %s by %s: %d %s", r[0], r[1], a.id, status, text)
			}
		}
		if status, text := logs(a.key, "FilterLogEvents", `{"logGroupIdentifier":"arn:aws:logs:us-east-1:`+other.id+`:log-group:/aws/lambda/same"}`); status != 403 {
			t.Errorf("the other's log by %s: %d %s", a.id, status, text)
		}
		if status, _, _ := a.key.as(t, "lambda", "GET", d.URL+functionsPath+"/only-in-"+other.id, ""); status != 404 {
			t.Errorf("the other's function, by its name, by %s: %d", a.id, status)
		}

		// The link to code is for anybody who has it, and leads to its account's.
		_, text, _ = a.key.as(t, "lambda", "GET", d.URL+functionsPath+"/same", "")
		var function struct{ Code struct{ Location string } }
		if err := json.Unmarshal([]byte(text), &function); err != nil {
			t.Fatal(err)
		}
		for link, want := range map[string]int{
			function.Code.Location: 200,
			strings.Replace(function.Code.Location, "/code/"+a.id, "/code/"+other.id, 1): 403,
			strings.ReplaceAll(function.Code.Location, a.id, other.id):                   403,
		} {
			r, err := http.Get(link)
			if err != nil || r.StatusCode != want {
				t.Errorf("%s: %v %v, want %d", link, r, err, want)
			}
			if err == nil {
				r.Body.Close()
			}
		}
	}

	// What one deletes, the other keeps.
	if status, text, _ := accounts[0].key.as(t, "lambda", "DELETE", d.URL+functionsPath+"/same", ""); status/100 != 2 {
		t.Errorf("%d %s", status, text)
	}
	if status, text, _ := accounts[1].key.as(t, "lambda", "POST", d.URL+functionsPath+"/same/invocations", "{}"); status != 200 || !strings.Contains(text, foreignAccount) {
		t.Errorf("%d %s", status, text)
	}
}

// TestFirstKey closes a Kiln without keys while it serves.
func TestFirstKey(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t)
	anybody := &key{ID: "test", Secret: "test"}
	list := func(k *key) int {
		status, _, _ := k.as(t, "lambda", "GET", d.URL+functionsPath, "")
		return status
	}
	if list(anybody) != 200 {
		t.Fatal("it is closed from the beginning")
	}
	first := anybody.newKey(t, d, "", "first", "")
	if list(anybody) != 403 || list(nil) != 403 || list(first) != 200 {
		t.Errorf("with a key: %d, %d, %d", list(anybody), list(nil), list(first))
	}
	if status, text, _ := first.as(t, "kiln", "DELETE", d.URL+"/_kiln/keys/first", ""); status != 200 {
		t.Fatalf("%d %s", status, text)
	}
	if list(anybody) != 403 || list(first) != 403 {
		t.Errorf("with no key any more: %d, %d", list(anybody), list(first))
	}
	d.Stop()
	d.Start()
	if list(anybody) != 403 || list(first) != 403 {
		t.Errorf("after a restart: %d, %d", list(anybody), list(first))
	}
}

// TestAudit reads the lines that calls leave in a file of their own.
func TestAudit(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "audit.log")
	d, root := keyed(t, "--audit-log", path)
	reader := root.newKey(t, d, "", "reader", `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"lambda:Get*","Resource":"*"}}`)
	type line struct {
		Time, Msg, Account, Principal, Operation, Action, Resource, Source, Outcome string
		AccessKey                                                                   string `json:"access_key"`
		RequestID                                                                   string `json:"request_id"`
	}
	lines := func(path string) (list []line, whole string) {
		t.Helper()
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for text := range strings.Lines(string(b)) {
			var l line
			if err := json.Unmarshal([]byte(text), &l); err != nil {
				t.Fatalf("%v in %s", err, text)
			}
			if l.Time == "" || l.Msg != "audit" || l.RequestID == "" || l.Source != "127.0.0.1" {
				t.Errorf("%s", text)
			}
			list = append(list, l)
		}
		return list, string(b)
	}
	const arn = "arn:aws:lambda:us-east-1:000000000000:function:audited"
	secretText := "a value that nobody logs"
	root.as(t, "lambda", "POST", d.URL+functionsPath, `{"FunctionName":"audited","Runtime":"provided.al2023","Handler":"x","Role":"`+kiln.Role+`","Environment":{"Variables":{"KEY":"`+secretText+`"}},"Code":{"ZipFile":"`+base64.StdEncoding.EncodeToString(kiln.Bash(`answer=1`))+`"}}`)
	root.as(t, "lambda", "GET", d.URL+functionsPath+"/audited", "")                                  // changes nothing
	root.as(t, "lambda", "POST", d.URL+functionsPath+"/audited/invocations", `{}`)                   // is no change
	root.as(t, "lambda", "DELETE", d.URL+functionsPath+"/absent", "")                                // fails
	reader.as(t, "lambda", "DELETE", d.URL+functionsPath+"/audited", "")                             // is refused
	(&key{ID: "AKIANOBODY", Secret: "x"}).as(t, "lambda", "GET", d.URL+functionsPath, "")            // is refused
	reader.as(t, "logs", "POST", d.URL+"/", `{}`, "X-Amz-Target", "Logs_20140328.DescribeLogGroups") // is refused
	got, whole := lines(path)
	rootARN, readerARN := "arn:aws:iam::000000000000:root", "arn:aws:iam::000000000000:user/reader"
	want := []line{
		{Account: ownAccount, Principal: rootARN, AccessKey: root.ID, Operation: "CreateKey", Action: "kiln:CreateKey", Resource: readerARN, Outcome: "ok"},
		{Account: ownAccount, Principal: rootARN, AccessKey: root.ID, Operation: "CreateFunction", Action: "lambda:CreateFunction", Resource: arn, Outcome: "ok"},
		{Account: ownAccount, Principal: rootARN, AccessKey: root.ID, Operation: "DeleteFunction", Action: "lambda:DeleteFunction", Resource: strings.Replace(arn, "audited", "absent", 1), Outcome: "ResourceNotFoundException"},
		{Account: ownAccount, Principal: readerARN, AccessKey: reader.ID, Operation: "DeleteFunction", Action: "lambda:DeleteFunction", Resource: arn, Outcome: "AccessDeniedException"},
		{AccessKey: "AKIANOBODY", Operation: "ListFunctions", Action: "lambda:ListFunctions", Outcome: "UnrecognizedClientException"},
		{Account: ownAccount, Principal: readerARN, AccessKey: reader.ID, Operation: "DescribeLogGroups", Action: "logs:DescribeLogGroups", Resource: "arn:aws:logs:us-east-1:000000000000:log-group:*:log-stream:", Outcome: "AccessDeniedException"},
	}
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) {
			t.Fatalf("%d lines, want %d:\n%s", len(got), len(want), whole)
		}
		l := got[i]
		l.Time, l.Msg, l.RequestID, l.Source = "", "", "", ""
		if l != want[i] {
			t.Errorf("line %d:\n got %+v\nwant %+v", i, l, want[i])
		}
	}
	for _, secret := range []string{root.Secret, reader.Secret, secretText} {
		if strings.Contains(whole, secret) || strings.Contains(d.Log.String(), secret) {
			t.Errorf("a log holds %q", secret)
		}
	}

	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(d.Pid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	kiln.Await(t, "a new file", func() bool { _, err := os.Stat(path); return err == nil })
	root.as(t, "lambda", "DELETE", d.URL+functionsPath+"/audited", "")
	if got, whole := lines(path); len(got) != 1 || got[0].Operation != "DeleteFunction" {
		t.Errorf("after SIGHUP: %s", whole)
	}
}
