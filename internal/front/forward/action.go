package forward

import (
	"bytes"
	"mime"
	"net/http"
	"net/url"
	"path"
	"strings"

	"kiln/internal/aws/sigv4"
	"kiln/internal/aws/wire"
)

// action finds out which action a request names, in any of AWS's protocols that name one
// outside of the service's own paths. It must be plain: what could be taken for two
// actions, by a service that reads it otherwise than Kiln does, is none.
func action(r *http.Request, body []byte) (string, error) {
	s, err := sigv4.Parse(r)
	if err != nil {
		return "", err
	}
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	target, query := r.Header.Values("X-Amz-Target"), r.URL.Query()
	name := ""
	switch {
	case s.Presigned || r.Method != http.MethodPost:
	case len(r.Header.Values("Smithy-Protocol")) > 0:
		before, operation := path.Split(r.URL.Path)
		if r.Header.Get("Smithy-Protocol") == "rpc-v2-cbor" && strings.HasSuffix(before, "/operation/") && len(target) == 0 && len(query) == 0 && kind == "application/cbor" {
			name = operation
		}
	case len(target) > 0:
		// JSON is no form, and a form is no JSON.
		if json := bytes.HasPrefix(bytes.TrimSpace(body), []byte("{")); len(target) == 1 && len(query) == 0 && strings.HasPrefix(kind, "application/x-amz-json-") && json && r.URL.Path == "/" {
			name = target[0][strings.LastIndexByte(target[0], '.')+1:]
		}
	case kind == "application/x-www-form-urlencoded":
		form, err := url.ParseQuery(string(body))
		if actions := form["Action"]; err == nil && len(actions) == 1 && len(query) == 0 {
			name = actions[0]
		}
	}
	if name == "" {
		return "", &wire.Fault{Code: "AccessDeniedException", Status: http.StatusForbidden, Message: "Kiln signs requests to " + s.Service + " anew, and cannot tell which action this one is."}
	}
	return s.Service + ":" + name, nil
}
