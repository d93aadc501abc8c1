package conformance

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
	"time"

	"kiln/test/kiln"
)

// attack is a page that does all that a page can to call CreateFunction. It ends
// loading, by way of the picture, once every attempt has been made.
var attack = template.Must(template.New("").Parse(`<!doctype html><title>attack</title>
<img src="/wait"><pre id="log"></pre>
<iframe name="frame"></iframe>
<form id="form" method="post" enctype="text/plain" target="frame">
<input name="{{.Begin}}" value="{{.End}}"></form>
<script>
const log = (what) => document.getElementById("log").append(what + "\n");
const submit = (action) => new Promise((done) => {
  document.querySelector("iframe").onload = () => done();
  const form = document.getElementById("form");
  form.action = action;
  form.submit();
});
(async () => {
  for (const base of {{.Bases}}) {
    const path = base + {{.Path}};
    for (const [what, options] of Object.entries({
      "no-cors text/plain": { mode: "no-cors", headers: { "Content-Type": "text/plain" } },
      "no-cors form": { mode: "no-cors", headers: { "Content-Type": "application/x-www-form-urlencoded" } },
      "no-cors without a referrer": { mode: "no-cors", referrerPolicy: "no-referrer", credentials: "include" },
      "cors": { mode: "cors", headers: { "Content-Type": "text/plain" } },
      "cors, signed": { mode: "cors", headers: { "Content-Type": "application/json", "Authorization": {{.Signed}}, "X-Amz-Date": "20260101T000000Z" } },
    })) {
      try {
        const r = await fetch(path, { method: "POST", body: {{.Body}}, ...options });
        log(what + ": " + r.type + " " + r.status);
      } catch (e) {
        log(what + ": " + e);
      }
    }
    navigator.sendBeacon(path, {{.Body}});
    await submit(path);
    log("form sent");
  }
  await fetch("/done");
})();
</script>`))

// findBrowser skips the test where no browser is.
func findBrowser(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Skip("no Chromium or Chrome is installed; scripts/test.sh installs one")
	return ""
}

// browse opens a page, waits until it is loaded, and returns what is then in it.
func browse(t *testing.T, browser, url string) (dom []byte, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--user-data-dir="+t.TempDir(), "--dump-dom", url)
	cmd.WaitDelay = 10 * time.Second
	return cmd.Output()
}

// creation is a request that creates a function, signed in a way that pages can.
func creation() (path, body string) {
	code := base64.StdEncoding.EncodeToString(kiln.Zip(map[string]string{"f.py": echo}))
	body = fmt.Sprintf(`{"FunctionName":"attacked","Runtime":"python3.12","Handler":"f.handler","Role":%q,"Code":{"ZipFile":%q},"Description":"="}`, kiln.Role, code)
	path = "/2015-03-31/functions?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=test%2F20260101%2Fus-east-1%2Flambda%2Faws4_request" +
		"&X-Amz-Date=20260101T000000Z&X-Amz-Expires=604800&X-Amz-SignedHeaders=host&X-Amz-Signature=00"
	return path, body
}

// TestBrowser opens the page of a stranger in a real browser while Kiln, without
// keys, runs on the same machine.
func TestBrowser(t *testing.T) {
	t.Parallel()
	browser := findBrowser(t)
	d := kiln.Start(t, "--any-runtime")
	port := d.URL[strings.LastIndex(d.URL, ":"):]
	path, body := creation()
	begin, end, _ := strings.Cut(body, `="}`)

	done := make(chan struct{})
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/":
			_ = attack.Execute(w, map[string]any{
				"Bases": []string{d.URL, "http://localhost" + port}, "Path": path, "Body": body, "Signed": signed,
				"Begin": begin, "End": end + `"}`,
			})
		case "/done":
			close(done)
		case "/wait":
			select {
			case <-done:
			case <-r.Context().Done():
			}
		}
	}))
	defer site.Close()

	dom, err := browse(t, browser, site.URL)
	select {
	case <-done:
	default:
		t.Fatalf("the page did not get to its end: %v\n%s", err, dom)
	}
	// Each attempt left the browser: what the page may not read, it may have sent.
	if n := strings.Count(string(dom), "opaque 0\n"); n != 6 {
		t.Errorf("%d requests without CORS were made, want 6:\n%s", n, dom)
	}
	status, list := send(t, "GET", d.URL+"/2015-03-31/functions", "", date())
	if text, _ := json.Marshal(list["Functions"]); status != 200 || string(text) != "[]" {
		t.Errorf("a web page made a function: %d %s", status, text)
	}

	// The same request does create a function when it is no page that makes it.
	if status, answer := send(t, "POST", d.URL+path, body, nil); status != 201 {
		t.Errorf("the request of the page is no good: got status %d and %v", status, answer)
	}
}
