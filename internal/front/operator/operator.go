// Package operator is the door for those who run Kiln: health, metrics, the runtimes
// of `kiln runtime`, the keys of `kiln keys`, and the packages behind Code.Location. Health and metrics need
// no signature; all else does.
package operator

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"

	"kiln/internal/aws/lambdaapi"
	"kiln/internal/front"
	"kiln/internal/lambda"
)

// Functions is what the door asks of the registry.
type Functions interface {
	Get(arn lambda.FunctionARN) (*lambda.Function, error)
	LayerVersion(by lambda.Principal, arn lambda.LayerVersionARN) (*lambda.LayerVersion, error)
}

// Packages opens deployment packages as they were uploaded.
type Packages interface {
	Zip(ctx context.Context, code lambda.Code) (io.ReadCloser, int64, error)
}

// Config of a Door. All fields are required.
type Config struct {
	Access    *front.Access
	Functions Functions
	Packages  Packages
	Runtimes  Runtimes
	Keys      Keys
	Audit     *front.Audit
	Metrics   http.Handler
	// Watched says where health and metrics are served: Anybody, Signed, or the
	// address of the listener that has them in place of this door.
	Watched string
	// Health is the JSON body of /_kiln/health.
	Health func() any
	// Stopping ends requests that wait for something.
	Stopping context.Context
	Log      *slog.Logger
}

// Whom this door shows health and metrics.
const (
	Anybody = ""
	Signed  = "signed"
)

type door struct{ Config }

// New returns the door's handler.
func New(c Config) http.Handler {
	d := &door{c}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /_kiln/health", d.watched(http.HandlerFunc(d.health)))
	mux.HandleFunc("GET /metrics", d.watched(c.Metrics))
	mux.HandleFunc("GET /_kiln/code/{account}/{region}/{function}/{version}/{sha256}", d.code)
	mux.HandleFunc("GET /_kiln/layers/{account}/{region}/{layer}/{version}", d.layer)
	mux.HandleFunc("GET /_kiln/keys", d.listKeys)
	mux.HandleFunc("POST /_kiln/keys", d.createKey)
	mux.HandleFunc("DELETE /_kiln/keys/{key}", d.revokeKey)
	mux.HandleFunc("GET /_kiln/runtimes", d.runtimes)
	mux.HandleFunc("POST /_kiln/runtimes/{id}", d.addRuntime)
	mux.HandleFunc("DELETE /_kiln/runtimes/{id}", d.removeRuntime)
	mux.HandleFunc("/", d.nothing)
	return mux
}

// Admin is the handler of the listener that has health and metrics alone.
func Admin(c Config) http.Handler {
	d := &door{c}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /_kiln/health", d.health)
	mux.Handle("GET /metrics", c.Metrics)
	mux.HandleFunc("/", d.nothing)
	return mux
}

func (d *door) nothing(w http.ResponseWriter, r *http.Request) {
	lambdaapi.WriteFault(w, &lambdaapi.Fault{Code: "NotFoundException", Status: http.StatusNotFound, Message: "Kiln serves no " + r.Method + " " + r.URL.Path + " here"})
}

// watched shows what there is to see of a Kiln to those whom it is for.
func (d *door) watched(see http.Handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		switch d.Watched {
		case Anybody:
		case Signed:
			c, err := d.begin(w, r, "Watch", false, nil)
			if err == nil {
				err = c.may(c.machine("health"))
			}
			if err != nil {
				c.refuse(w, r, err)
				return
			}
		default:
			lambdaapi.WriteFault(w, &lambdaapi.Fault{Code: "NotFoundException", Status: http.StatusNotFound, Message: r.URL.Path + " is served at " + d.Watched + " (admin_listen), not here"})
			return
		}
		see.ServeHTTP(w, r)
	}
}

func (d *door) health(w http.ResponseWriter, _ *http.Request) { writeJSON(w, d.Health()) }

func (d *door) refuse(w http.ResponseWriter, r *http.Request, err error) {
	lambdaapi.WriteFault(w, d.fault(r, err))
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the caller is gone if this fails
}
