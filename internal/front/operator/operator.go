// Package operator is the door for those who run Kiln: health, metrics, the runtimes
// of `kiln runtime`, the keys of `kiln keys`, what `kiln top` shows, what waits for `kiln queue`, and the packages
// behind Code.Location. Health and metrics need no signature; all else does.
package operator

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"strconv"

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
	Backups   Backups
	Queue     Queue
	Audit     *front.Audit
	Metrics   http.Handler
	S3Events  http.Handler // takes those of other stores
	// Watched says where health and metrics are served: Anybody, Signed, or the
	// address of the listener that has them in place of this door.
	Watched string
	// Top is what Kiln does now, of all accounts.
	Top func() Top
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
	mux.HandleFunc("GET /_kiln/top", d.top)
	mux.HandleFunc("POST /_kiln/backup", d.backup)
	mux.HandleFunc("GET /_kiln/keys", d.listKeys)
	mux.HandleFunc("POST /_kiln/keys", d.createKey)
	mux.HandleFunc("DELETE /_kiln/keys/{key}", d.revokeKey)
	mux.HandleFunc("GET /_kiln/queue", d.listQueue)
	mux.HandleFunc("GET /_kiln/queue/{function}", d.showQueue)
	mux.HandleFunc("DELETE /_kiln/queue/{function}", d.purgeQueue)
	mux.HandleFunc("POST /_kiln/queue/{function}", d.redriveQueue)
	mux.HandleFunc("POST /_kiln/events/s3", func(w http.ResponseWriter, r *http.Request) { c.S3Events.ServeHTTP(w, r) })
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

// code serves a package to whoever has the link that GetFunction made.
func (d *door) code(w http.ResponseWriter, r *http.Request) {
	caller, err := d.authenticate(r)
	if err != nil {
		d.refuse(w, r, err)
		return
	}
	sha256, err := base64.RawURLEncoding.DecodeString(r.PathValue("sha256"))
	arn := lambda.FunctionARN{
		Scope:     scope(r),
		Name:      lambda.FunctionName(r.PathValue("function")),
		Qualifier: lambda.Qualifier(r.PathValue("version")),
	}
	if err == nil {
		err = d.Access.Authorise(caller.Principal, "lambda:GetFunction", arn)
	}
	if err != nil {
		d.refuse(w, r, err)
		return
	}
	f, err := d.Functions.Get(arn)
	if err != nil || f.Code.SHA256 != string(sha256) {
		d.refuse(w, r, lambda.NotFound("The package is no longer the function's. Call GetFunction again for a new link."))
		return
	}
	d.send(w, r, f.Code, string(arn.Name))
}

// layer serves a layer version to whoever has the link that GetLayerVersion made.
func (d *door) layer(w http.ResponseWriter, r *http.Request) {
	caller, err := d.authenticate(r)
	if err != nil {
		d.refuse(w, r, err)
		return
	}
	version, err := strconv.ParseInt(r.PathValue("version"), 10, 64)
	if err != nil {
		d.refuse(w, r, lambda.InvalidParameter("%q is not a version of a layer", r.PathValue("version")))
		return
	}
	arn := lambda.LayerVersionARN{LayerARN: lambda.LayerARN{Scope: scope(r), Name: lambda.LayerName(r.PathValue("layer"))}, Version: version}
	var v *lambda.LayerVersion
	if err = d.Access.Authorise(caller.Principal, "lambda:GetLayerVersion", arn); err == nil {
		v, err = d.Functions.LayerVersion(caller.Principal, arn)
	}
	if err != nil {
		d.refuse(w, r, err)
		return
	}
	d.send(w, r, v.Code, string(arn.Name)+"-"+strconv.FormatInt(version, 10))
}

// scope is where the link's resource is.
func scope(r *http.Request) lambda.Scope {
	return lambda.Scope{Account: lambda.AccountID(r.PathValue("account")), Region: lambda.Region(r.PathValue("region"))}
}

// send answers with a package.
func (d *door) send(w http.ResponseWriter, r *http.Request, code lambda.Code, name string) {
	zip, size, err := d.Packages.Zip(r.Context(), code)
	if err != nil {
		d.refuse(w, r, err)
		return
	}
	defer zip.Close()
	h := w.Header()
	h.Set("Content-Type", "application/zip")
	h.Set("Content-Length", strconv.FormatInt(size, 10))
	h.Set("Content-Disposition", `attachment; filename="`+name+`.zip"`)
	if _, err := io.Copy(w, zip); err != nil {
		d.Log.Warn("a package was not sent whole", "path", r.URL.Path, "error", err)
	}
}

// authenticate verifies a request without a body.
func (d *door) authenticate(r *http.Request) (front.Caller, error) {
	caller, err := d.Access.Authenticate(r, false)
	if err == nil && caller.Verify != nil {
		err = caller.Verify(nil)
	}
	return caller, err
}

func (d *door) refuse(w http.ResponseWriter, r *http.Request, err error) {
	lambdaapi.WriteFault(w, d.fault(r, err))
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the caller is gone if this fails
}
