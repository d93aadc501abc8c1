package conformance

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kiln/test/kiln"
)

// TestFunctionURLInBrowser opens a page that a function serves in a real browser. It may
// call the functions whose CORS settings say so, and nothing else of Kiln: not by its
// own host, and not where functions share a host with Kiln's API.
func TestFunctionURLInBrowser(t *testing.T) {
	t.Parallel()
	browser := findBrowser(t)
	d := kiln.Start(t, "--any-runtime")
	s := session{goSDK{}, t, anyKey(d)}
	code, err := os.ReadFile(filepath.Join("testdata", "page.py"))
	if err != nil {
		t.Fatal(err)
	}
	urls := map[string]string{}
	for _, name := range []string{"page", "allowed", "closed"} {
		s.create(name, values{"Handler": "page.handler", "Code": values{"ZipFile": kiln.Zip(map[string]string{"page.py": string(code)})}})
		var cors values
		switch name {
		case "allowed":
			cors = values{"Cors": values{"AllowOrigins": []any{strings.TrimSuffix(urls["page"], "/")}, "AllowMethods": []any{"PUT"}, "AllowHeaders": []any{"x-mine"}, "ExposeHeaders": []any{"x-shown"}}}
		case "closed":
			cors = values{"Cors": values{"AllowOrigins": []any{"https://example.com"}}}
		}
		urls[name] = s.publicURL(name, cors)
	}

	var mu sync.Mutex
	reports := map[string]string{} // guarded by mu
	done := make(chan struct{})
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/report":
			body, _ := io.ReadAll(r.Body)
			what, result, _ := strings.Cut(string(body), ": ")
			mu.Lock()
			defer mu.Unlock()
			if _, again := reports[what]; again {
				what += " again"
			}
			reports[what] = result
			if what == "end" {
				close(done)
			}
		case "/wait":
			select {
			case <-done:
			case <-r.Context().Done():
			}
		}
	}))
	defer site.Close()
	path, body := creation()
	told, err := json.Marshal(values{
		"site": site.URL, "allowed": urls["allowed"], "closed": urls["closed"], "path": path, "body": body,
		"bases": []string{d.URL, "http://localhost" + d.URL[strings.LastIndex(d.URL, ":"):]},
	})
	if err != nil {
		t.Fatal(err)
	}
	dom, err := browse(t, browser, urls["page"]+"#"+url.PathEscape(string(told)))
	select {
	case <-done:
	default:
		t.Fatalf("the page did not get to its end: %v\n%v\n%s", err, reports, dom)
	}
	mu.Lock()
	defer mu.Unlock()
	want := map[string]string{
		"allowed": "200 PUT shown ", "not this method": "TypeError", "not this origin": "TypeError", "own host": "shown",
		"create, no-cors": "opaque 0", "create, no-cors again": "opaque 0", "create, cors": "TypeError", "create, cors again": "TypeError",
		"origin": "null", "storage": "SecurityError",
		"create by path, same-origin": "TypeError", "create by path, no-cors": "opaque 0", "create by path, cors": "TypeError", "end": "",
	}
	if diff := cmp.Diff(want, reports); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	var names []any
	for _, f := range s.must("ListFunctions", values{})["Functions"].([]any) {
		names = append(names, member(f, "FunctionName"))
	}
	if diff := cmp.Diff([]any{"allowed", "closed", "page"}, names); diff != "" {
		t.Errorf("functions, -want +got:\n%s", diff)
	}
}
