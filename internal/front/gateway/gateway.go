// Package gateway is the one port of Kiln: it refuses what a browser could send, unless
// it is for a function URL, finds out which AWS service a request is for, and passes it
// to the door that serves it. A service without a door gets an error in its own format.
package gateway

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"strings"

	"kiln/internal/aws/lambdaapi"
	"kiln/internal/aws/sigv4"
	"kiln/internal/front"
)

// OperatorPrefix is where Kiln's own paths begin.
const OperatorPrefix = "/_kiln/"

// Gateway routes requests. Its handlers are safe for concurrent use.
type Gateway struct {
	access   *front.Access
	doors    Doors
	urls     func(inside bool) http.Handler
	operator http.Handler
}

// Doors make the doors of AWS's services, by the name that is signed for, each for
// requests from within environments or from elsewhere. There is one of "lambda".
type Doors map[string]func(inside bool) http.Handler

// New returns a Gateway. urls makes the door of function URLs, operator serves what begins
// with OperatorPrefix, and /metrics.
func New(access *front.Access, doors Doors, urls func(inside bool) http.Handler, operator http.Handler) *Gateway {
	return &Gateway{access: access, doors: doors, urls: urls, operator: operator}
}

// Outside serves the port.
func (g *Gateway) Outside() http.Handler { return g.handler(false) }

// Inside serves the listeners within execution environments.
func (g *Gateway) Inside() http.Handler { return g.handler(true) }

func (g *Gateway) handler(inside bool) http.Handler {
	doors := map[string]http.Handler{}
	for service, door := range g.doors {
		doors[service] = door(inside)
	}
	doors[""] = doors["lambda"] // of a request that is not signed, or badly, it says what is wrong
	urls := g.urls(inside)
	return paced(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Pages may call functions, and a host of functions serves nothing else.
		if _, ok := g.access.FunctionURL(r.Host, r.URL.EscapedPath()); ok {
			urls.ServeHTTP(w, r)
			return
		}
		if err := g.access.CheckBrowser(r); err != nil {
			f := front.Refusal(err)
			refuse(w, r, serviceOf(r), f.Status, f.Code, f.Message)
			return
		}
		if strings.HasPrefix(r.URL.Path, OperatorPrefix) || r.URL.Path == "/metrics" {
			if inside { // a function has no business with the operator's paths
				refuse(w, r, "kiln", http.StatusForbidden, "AccessDeniedException", "Kiln's own paths are not served within execution environments.")
				return
			}
			g.operator.ServeHTTP(w, r)
			return
		}
		service := serviceOf(r)
		if door := doors[service]; door != nil {
			door.ServeHTTP(w, r)
		} else {
			refuse(w, r, service, http.StatusNotImplemented, "NotImplementedException", fmt.Sprintf(
				"Kiln does not serve %[1]s. Give the client an endpoint that does: set %[2]s, or endpoint_url in its configuration. For functions, set %[1]s in [endpoints] of kiln.toml, or %[2]s in their environment variables.", service, sigv4.EndpointVariable(service)))
		}
	}))
}

// Admin serves a listener that has some of the operator's paths alone.
func (g *Gateway) Admin(operator http.Handler) http.Handler {
	return paced(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := g.access.CheckBrowser(r); err != nil {
			f := front.Refusal(err)
			refuse(w, r, "kiln", f.Status, f.Code, f.Message)
			return
		}
		operator.ServeHTTP(w, r)
	}))
}

// serviceOf is the service that the request was signed for, or "".
func serviceOf(r *http.Request) string {
	s, err := sigv4.Parse(r)
	if err != nil {
		return ""
	}
	return s.Service
}

// refuse answers in the format that the service's clients read.
func refuse(w http.ResponseWriter, r *http.Request, service string, status int, code, message string) {
	contentType := r.Header.Get("Content-Type")
	h := w.Header()
	switch {
	case service == "lambda" || service == "kiln" || service == "":
		lambdaapi.WriteFault(w, &lambdaapi.Fault{Code: code, Status: status, Message: message})
	case service == "s3":
		h.Set("Content-Type", "application/xml")
		w.WriteHeader(status)
		writeXML(w, struct {
			XMLName xml.Name `xml:"Error"`
			Code    string
			Message string
		}{Code: code, Message: message})
	case strings.HasPrefix(contentType, "application/x-www-form-urlencoded"):
		h.Set("Content-Type", "text/xml")
		w.WriteHeader(status)
		type detail struct{ Type, Code, Message string }
		writeXML(w, struct {
			XMLName xml.Name `xml:"ErrorResponse"`
			Error   detail
		}{Error: detail{"Sender", code, message}})
	default:
		h.Set("Content-Type", "application/x-amz-json-1.0")
		h.Set("X-Amzn-Errortype", code)
		w.WriteHeader(status)
		body, _ := json.Marshal(map[string]string{"__type": code, "message": message}) // strings always marshal
		_, _ = w.Write(body)                                                           // the caller is gone if this fails
	}
}

func writeXML(w io.Writer, v any) {
	_, _ = io.WriteString(w, xml.Header)
	_ = xml.NewEncoder(w).Encode(v) // the caller is gone if this fails
}
