package operator

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"slices"

	"kiln/internal/aws/lambdaapi"
	"kiln/internal/bootstrap"
	"kiln/internal/front"
	"kiln/internal/lambda"
)

// Runtimes is what the door asks of the catalog of runtimes.
type Runtimes interface {
	List(ctx context.Context) (bootstrap.Listing, error)
	Add(ctx context.Context, o bootstrap.Order, say func(string)) error
	Remove(ctx context.Context, id lambda.RuntimeID) error
}

// Runtime is one identifier with what serves it, and what was added to it.
type Runtime struct {
	ID         string            `json:"id"`
	Program    string            `json:"program,omitempty"`
	Version    string            `json:"version,omitempty"`
	Substitute string            `json:"substitute,omitempty"`
	Missing    string            `json:"missing,omitempty"`
	Bundle     *bootstrap.Bundle `json:"bundle,omitempty"`
	// Image is the base image that serves it, in place of a program.
	Image *bootstrap.BaseImage `json:"image,omitempty"`
	// Advice is what could still be added, as a command.
	Advice string `json:"advice,omitempty"`
}

// RuntimeOf is how an entry of the catalog looks outside.
func RuntimeOf(e bootstrap.Entry) Runtime {
	r := Runtime{
		ID: string(e.ID), Program: e.Installation.Program, Version: e.Installation.Version,
		Substitute: e.Substitute, Missing: e.Missing, Bundle: e.Bundle, Image: e.Image,
	}
	if e.Bundles && e.Image == nil && e.Bundle == nil && e.Missing == "" {
		r.Advice = "kiln runtime add " + r.ID
	}
	return r
}

// RuntimeList is the answer to a request for the runtimes.
type RuntimeList struct {
	Runtimes []Runtime `json:"runtimes"`
	Problems []string  `json:"problems,omitempty"` // programs that look like interpreters and cannot be used
}

// RuntimeOrder is the body of a request to add to a runtime.
type RuntimeOrder struct {
	Packages []string `json:"packages,omitempty"` // beside those that AWS bundles
	Image    *string  `json:"image,omitempty"`    // reference of a base image
}

// RuntimeStep is one line of the answer to such a request. The last one has the
// runtime or the error.
type RuntimeStep struct {
	Say     string   `json:"say,omitempty"`
	Runtime *Runtime `json:"runtime,omitempty"`
	Error   string   `json:"error,omitempty"`
}

// maxOrder bounds the body of a request to add to a runtime, in bytes.
const maxOrder = 1 << 20

func (d *door) runtimes(w http.ResponseWriter, r *http.Request) {
	d.act(w, r, "ListRuntimes", false, nil, func(c *call) (any, error) {
		if err := c.may(c.machine("runtime/*")); err != nil {
			return nil, err
		}
		return d.listRuntimes(r.Context())
	})
}

func (d *door) listRuntimes(ctx context.Context) (RuntimeList, error) {
	found, err := d.Runtimes.List(ctx)
	list := RuntimeList{Runtimes: []Runtime{}}
	for _, e := range found.Entries {
		list.Runtimes = append(list.Runtimes, RuntimeOf(e))
	}
	for _, p := range found.Problems {
		list.Problems = append(list.Problems, p.Program+": "+p.Reason)
	}
	return list, err
}

// addRuntime answers with a RuntimeStep a line, each as it is taken. What cannot be
// begun is refused as everywhere.
func (d *door) addRuntime(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxOrder))
	if err != nil {
		d.refuse(w, r, lambda.InvalidParameter("the request's body cannot be read: %s", err))
		return
	}
	id := lambda.RuntimeID(r.PathValue("id"))
	c, err := d.begin(w, r, "AddRuntime", true, body)
	if err == nil {
		err = c.may(c.machine("runtime/" + string(id)))
	}
	var order RuntimeOrder
	if err == nil && len(body) > 0 {
		if malformed := json.Unmarshal(body, &order); malformed != nil {
			err = lambda.InvalidParameter("the request's body is not as expected: %s", malformed)
		}
	}
	if err != nil {
		c.refuse(w, r, err)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(d.Stopping, cancel)()
	began := false
	step := func(s RuntimeStep) {
		if !began {
			w.Header().Set("Content-Type", "application/x-ndjson")
			began = true
		}
		_ = json.NewEncoder(w).Encode(s) // the caller is gone if this fails, and its context tells
		_ = http.NewResponseController(w).Flush()
	}
	err = d.Runtimes.Add(ctx, bootstrap.Order{ID: id, Packages: order.Packages, Image: order.Image}, func(line string) { step(RuntimeStep{Say: line}) })
	var added *Runtime
	if err == nil {
		added, err = d.runtime(ctx, id)
	}
	switch {
	case err == nil:
		c.over(nil)
		step(RuntimeStep{Runtime: added})
	case !began:
		c.refuse(w, r, err)
	default:
		fault := d.fault(r, err)
		c.over(fault)
		step(RuntimeStep{Error: fault.Message})
	}
}

func (d *door) removeRuntime(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	d.act(w, r, "RemoveRuntime", true, nil, func(c *call) (any, error) {
		if err := c.may(c.machine("runtime/" + id)); err != nil {
			return nil, err
		}
		return struct{}{}, d.Runtimes.Remove(r.Context(), lambda.RuntimeID(id))
	})
}

func (d *door) runtime(ctx context.Context, id lambda.RuntimeID) (*Runtime, error) {
	list, err := d.listRuntimes(ctx)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(list.Runtimes, func(r Runtime) bool { return r.ID == string(id) })
	if i < 0 {
		return nil, lambda.NotFound("there is no runtime %s", id)
	}
	return &list.Runtimes[i], nil
}

// fault is what a caller sees of an error.
func (d *door) fault(r *http.Request, err error) *lambdaapi.Fault {
	fault := front.Refusal(err)
	if fault == nil {
		fault = &lambdaapi.Fault{Code: "ServiceException", Status: http.StatusInternalServerError, Message: "Kiln failed to answer " + r.URL.Path + "; its log says why."}
		d.Log.Error("request failed", "path", r.URL.Path, "error", err)
	}
	return fault
}
