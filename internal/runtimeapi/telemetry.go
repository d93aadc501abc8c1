package runtimeapi

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"kiln/internal/telemetry/delivery"
)

// telemetryAPI is one of the two APIs by which an extension subscribes.
type telemetryAPI struct {
	name    string // in error types and messages
	path    string
	schemas []delivery.Schema
	schema  delivery.Schema // where a request names none; "": it must
	methods []string        // of an HTTP destination, the default first
}

var telemetryAPIs = []telemetryAPI{
	{
		name: "Telemetry", path: "/2022-07-01/telemetry",
		schemas: []delivery.Schema{delivery.Telemetry20220701, delivery.Telemetry20221213, delivery.Telemetry20250129},
		methods: []string{http.MethodPost},
	},
	{
		name: "Logs", path: "/2020-08-15/logs",
		schemas: []delivery.Schema{delivery.Logs20200815, delivery.Logs20210318}, schema: delivery.Logs20200815,
		methods: []string{http.MethodPost, http.MethodPut},
	},
}

// subscriptionRequest is the body of a subscription.
type subscriptionRequest struct {
	Schema      delivery.Schema `json:"schemaVersion"`
	Destination *destination    `json:"destination"`
	Types       []delivery.Kind `json:"types"`
	Buffering   struct {
		MaxItems *int `json:"maxItems"`
		MaxBytes *int `json:"maxBytes"`
		Timeout  *int `json:"timeoutMs"`
	} `json:"buffering"`
}

type destination struct {
	Protocol string `json:"protocol"`
	URI      string `json:"URI"`
	Method   string `json:"method"`
	Port     int    `json:"port"`
}

func (s *Server) putSubscription(w http.ResponseWriter, r *http.Request, api telemetryAPI) {
	x := s.identify(w, r)
	if x == nil {
		return
	}
	invalid := func(err error) { refuse(w, http.StatusBadRequest, "ValidationError", err.Error()) }
	closed := func() {
		forbidden(w, api.name+".SubscriptionClosed", "%s API subscription is closed", api.name)
	}
	s.mu.Lock()
	late, other := s.settled, x.subscribed != "" && x.subscribed != api.name
	s.mu.Unlock()
	if late {
		closed()
		return
	}
	if other {
		invalid(fmt.Errorf("an extension that subscribed to one of the Telemetry API and the Logs API cannot use the other"))
		return
	}
	var request subscriptionRequest
	if err := readJSON(w, r, &request); err != nil {
		invalid(err)
		return
	}
	subscription, err := api.subscription(request)
	if err != nil {
		invalid(err)
		return
	}
	subscription.Name = x.Name
	if !s.subscribe(subscription) {
		closed()
		return
	}
	s.mu.Lock()
	x.subscribed = api.name
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, `"OK"`) // an extension that is gone is noticed by its exit
}

// subscription checks a request. The rules and defaults are AWS's:
// https://docs.aws.amazon.com/lambda/latest/dg/telemetry-api-reference.html
func (api telemetryAPI) subscription(r subscriptionRequest) (sub delivery.Subscription, err error) {
	if r.Schema == "" {
		r.Schema = api.schema
	}
	if !slices.Contains(api.schemas, r.Schema) {
		return sub, fmt.Errorf("schemaVersion %q: want one of %q", r.Schema, api.schemas)
	}
	if len(r.Types) == 0 {
		return sub, fmt.Errorf("types: want at least one of %q, %q, %q", delivery.Platform, delivery.Function, delivery.Extension)
	}
	for _, kind := range r.Types {
		if kind != delivery.Platform && kind != delivery.Function && kind != delivery.Extension {
			return sub, fmt.Errorf("type %q: want %q, %q or %q", kind, delivery.Platform, delivery.Function, delivery.Extension)
		}
		if !slices.Contains(sub.Kinds, kind) {
			sub.Kinds = append(sub.Kinds, kind)
		}
	}
	sub.Schema = r.Schema
	if r.Destination == nil {
		return sub, fmt.Errorf("destination: required")
	}
	if sub.Destination, err = r.Destination.check(api.methods); err != nil {
		return sub, fmt.Errorf("destination: %w", err)
	}
	timeout := int(delivery.DefaultTimeout / time.Millisecond)
	for _, bound := range []struct {
		name        string
		given, to   *int
		least, most int
		otherwise   int
	}{
		{"maxItems", r.Buffering.MaxItems, &sub.MaxItems, delivery.LeastMaxItems, delivery.MostMaxItems, delivery.DefaultMaxItems},
		{"maxBytes", r.Buffering.MaxBytes, &sub.MaxBytes, delivery.LeastMaxBytes, delivery.MostMaxBytes, delivery.DefaultMaxBytes},
		{"timeoutMs", r.Buffering.Timeout, &timeout, int(delivery.LeastTimeout / time.Millisecond), int(delivery.MostTimeout / time.Millisecond), timeout},
	} {
		*bound.to = bound.otherwise
		if bound.given == nil {
			continue
		}
		if *bound.to = *bound.given; *bound.to < bound.least || *bound.to > bound.most {
			return sub, fmt.Errorf("buffering: %s %d: want %d to %d", bound.name, *bound.to, bound.least, bound.most)
		}
	}
	sub.Timeout = time.Duration(timeout) * time.Millisecond
	return sub, nil
}

// check returns where telemetry goes: always to a port of the environment itself.
func (d destination) check(methods []string) (to delivery.Destination, err error) {
	switch d.Protocol {
	case "TCP":
		to.Port = d.Port
	case "HTTP":
		u, err := url.Parse(d.URI)
		if err != nil {
			return to, err
		}
		if u.Scheme != "http" || u.Hostname() != "sandbox.localdomain" && u.Hostname() != "sandbox" || u.User != nil {
			return to, fmt.Errorf("URI %q: want http://sandbox.localdomain:PORT/PATH", d.URI)
		}
		port := u.Port()
		if port == "" {
			port = "80"
		}
		if to.Port, err = strconv.Atoi(port); err != nil {
			return to, err
		}
		to.URL, to.Method = u.String(), methods[0]
		if d.Method != "" {
			if to.Method = d.Method; !slices.Contains(methods, d.Method) {
				return to, fmt.Errorf("method %q: want %s", d.Method, strings.Join(methods, " or "))
			}
		}
	default:
		return to, fmt.Errorf("protocol %q: want HTTP or TCP", d.Protocol)
	}
	if to.Port < 1 || to.Port > 65535 {
		return to, fmt.Errorf("port %d: want 1 to 65535", to.Port)
	}
	return to, nil
}
