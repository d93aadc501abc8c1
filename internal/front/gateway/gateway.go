// Package gateway is the one port of Kiln: it refuses what a browser could send, unless
// it is for a function URL, finds out which AWS service a request is for, and passes it
// to the door that serves it, or to the one of services that Kiln does not serve.
package gateway

import (
	"net/http"
	"strings"

	"kiln/internal/aws/lambdaapi"
	"kiln/internal/front"
)

// OperatorPrefix is where Kiln's own paths begin.
const OperatorPrefix = "/_kiln/"

// Doors make the doors behind the port, each for requests from within environments or
// from elsewhere.
type Doors struct {
	// Services are those that Kiln serves, by the name that is signed for. There is one
	// of "lambda".
	Services map[string]func(inside bool) http.Handler
	// Elsewhere is for all other services.
	Elsewhere    func(inside bool) http.Handler
	FunctionURLs func(inside bool) http.Handler
	// Operator serves what begins with OperatorPrefix, and /metrics.
	Operator http.Handler
}

// Gateway routes requests. Its handlers are safe for concurrent use.
type Gateway struct {
	access *front.Access
	doors  Doors
}

// New returns a Gateway.
func New(access *front.Access, doors Doors) *Gateway { return &Gateway{access, doors} }

// Outside serves the port.
func (g *Gateway) Outside() http.Handler { return g.handler(false) }

// Inside serves the listeners within execution environments.
func (g *Gateway) Inside() http.Handler { return g.handler(true) }

func (g *Gateway) handler(inside bool) http.Handler {
	doors := map[string]http.Handler{}
	for service, door := range g.doors.Services {
		doors[service] = door(inside)
	}
	doors[""] = doors["lambda"] // of a request that is not signed, or badly, it says what is wrong
	urls, elsewhere := g.doors.FunctionURLs(inside), g.doors.Elsewhere(inside)
	return paced(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Pages may call functions, and a host of functions serves nothing else.
		if _, ok := g.access.FunctionURL(r.Host, r.URL.EscapedPath()); ok {
			urls.ServeHTTP(w, r)
			return
		}
		if err := g.access.CheckBrowser(r); err != nil {
			front.Refuse(w, r, front.Refusal(err))
			return
		}
		if strings.HasPrefix(r.URL.Path, OperatorPrefix) || r.URL.Path == "/metrics" {
			if inside { // a function has no business with the operator's paths
				lambdaapi.WriteFault(w, lambdaapi.NewFault("AccessDeniedException", "Kiln's own paths are not served within execution environments."))
				return
			}
			g.doors.Operator.ServeHTTP(w, r)
			return
		}
		if door := doors[front.Service(r)]; door != nil {
			door.ServeHTTP(w, r)
		} else {
			elsewhere.ServeHTTP(w, r)
		}
	}))
}

// Admin serves a listener that has some of the operator's paths alone.
func (g *Gateway) Admin(operator http.Handler) http.Handler {
	return paced(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := g.access.CheckBrowser(r); err != nil {
			lambdaapi.WriteFault(w, front.Refusal(err))
			return
		}
		operator.ServeHTTP(w, r)
	}))
}
