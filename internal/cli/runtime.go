package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"

	"kiln/internal/front/operator"
)

type runtime struct {
	List   runtimeList   `cmd:"" help:"Show every runtime, and what it resolves to."`
	Add    runtimeAdd    `cmd:"" help:"Install what AWS bundles with a runtime (its SDK, or Java's runtime client), or let a base image serve it."`
	Remove runtimeRemove `cmd:"" help:"Take away what was added to a runtime."`
}

const runtimesPath = "/_kiln/runtimes"

type runtimeList struct{ remote }

func (l runtimeList) Run(ctx context.Context, s *streams) error {
	c, err := l.connect(ctx, s.getenv)
	if err != nil {
		return err
	}
	var list operator.RuntimeList
	if err := c.get(ctx, runtimesPath, url.Values{}, &list); err != nil {
		return c.explain(err)
	}
	if l.JSON {
		return writeJSON(s.out, list)
	}
	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "RUNTIME\tSERVED BY\tADDED")
	for _, r := range list.Runtimes {
		if r.Missing != "" { // a sentence, which no column is wide enough for
			fmt.Fprintf(w, "%s\t%s\n", r.ID, r.Missing)
			continue
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", r.ID, servedBy(r), added(r))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, p := range list.Problems {
		fmt.Fprintf(s.out, "not usable: %s\n", p)
	}
	return nil
}

// ownExecutable is what serves the provided runtimes.
const ownExecutable = "the function's own executable"

// servedBy is what a runtime resolves to, or what is missing.
func servedBy(r operator.Runtime) string {
	switch {
	case r.Image != nil:
		return "image " + r.Image.String()
	case r.Missing != "":
		return r.Missing
	case r.Substitute != "":
		return r.Program + " (" + r.Substitute + ")"
	case r.Program != "":
		return r.Program + " (" + r.Version + ")"
	default:
		return ownExecutable
	}
}

// shownPackages is how many packages of a bundle a line names.
const shownPackages = 3

func added(r operator.Runtime) string {
	if r.Bundle == nil {
		if r.Advice == "" || r.Image != nil {
			return "-"
		}
		return "nothing yet: " + r.Advice
	}
	list := r.Bundle.Packages
	text := strings.Join(list[:min(len(list), shownPackages)], ", ")
	if more := len(list) - shownPackages; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return fmt.Sprintf("%s (%.1f MB)", text, float64(r.Bundle.Bytes)/1e6)
}

type runtimeAdd struct {
	remote
	ID      string   `arg:"" help:"Identifier, such as python3.13, nodejs22.x or java21."`
	Package []string `placeholder:"NAME" sep:"none" help:"A further package, in the notation of the language's package client; may be repeated."`
	Image   *string  `placeholder:"REF" help:"A base image whose language and runtime client serve the identifier, by its reference: no interpreter is needed then. Pinned to what it is now."`
}

// Run shows each step on standard error, and at last what the runtime is now.
func (a runtimeAdd) Run(ctx context.Context, s *streams) error {
	c, err := a.connect(ctx, s.getenv)
	if err != nil {
		return err
	}
	order, err := json.Marshal(operator.RuntimeOrder{Packages: a.Package, Image: a.Image})
	if err != nil {
		return err
	}
	body, err := c.call(ctx, http.MethodPost, runtimesPath+"/"+url.PathEscape(a.ID), order)
	if err != nil {
		return c.explain(err)
	}
	defer body.Close()
	for steps := json.NewDecoder(body); ; {
		var step operator.RuntimeStep
		err := steps.Decode(&step)
		switch {
		case errors.Is(err, io.EOF):
			return errors.New("kiln stopped before the runtime was added")
		case err != nil:
			return c.explain(err)
		case step.Error != "":
			return errors.New(step.Error)
		case step.Say != "":
			fmt.Fprintf(s.err, "%s: %s\n", a.ID, step.Say)
		case step.Runtime != nil && a.JSON:
			return writeJSON(s.out, step.Runtime)
		case step.Runtime != nil:
			_, err := fmt.Fprintf(s.out, "%s: %s; %s\n", step.Runtime.ID, servedBy(*step.Runtime), added(*step.Runtime))
			return err
		}
	}
}

type runtimeRemove struct {
	remote
	ID string `arg:"" help:"Identifier of the runtime."`
}

func (r runtimeRemove) Run(ctx context.Context, s *streams) error {
	c, err := r.connect(ctx, s.getenv)
	if err != nil {
		return err
	}
	body, err := c.call(ctx, http.MethodDelete, runtimesPath+"/"+url.PathEscape(r.ID), nil)
	if err != nil {
		return c.explain(err)
	}
	defer body.Close()
	if r.JSON {
		return writeJSON(s.out, struct {
			ID string `json:"removed"`
		}{r.ID})
	}
	_, err = fmt.Fprintf(s.out, "%s has nothing added to it any more\n", r.ID)
	return err
}
