package operator

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"kiln/internal/invoke/async"
	"kiln/internal/lambda"
)

// Queue is what the door asks of the async package.
type Queue interface {
	List(ctx context.Context, in func(lambda.Scope) bool, details int) ([]async.Waiting, error)
	Find(ctx context.Context, arn lambda.FunctionARN) (async.Waiting, error)
	Events(ctx context.Context, arn lambda.FunctionARN, n int) ([]async.Event, error)
	Purge(ctx context.Context, arn lambda.FunctionARN, parkedOnly bool) (async.Purged, error)
	Redrive(ctx context.Context, arn lambda.FunctionARN, n int) (async.Redriven, error)
}

// QueueList is the answer to a request for what waits, the most first.
type QueueList struct {
	Functions []async.Waiting `json:"functions"`
}

// QueueEvents is the answer to a request for what waits for one function.
type QueueEvents struct {
	async.Waiting
	Events []async.Event `json:"events"`
}

const (
	// MaxQueueDetails is of how many functions a list has details: an event or two are
	// read for each.
	MaxQueueDetails = 1000
	// MaxQueueEvents is how many single events are shown at once.
	MaxQueueEvents = 50
	// MaxRedrive is how many events one request redrives, so that it takes seconds.
	MaxRedrive = 1000
)

// listQueue shows what waits in the caller's account, and in all to whoever runs Kiln.
func (d *door) listQueue(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	d.act(w, r, "WatchQueue", false, nil, func(c *call) (any, error) {
		account, err := c.account(query.Get("account"))
		if err == nil {
			err = c.may(lambda.FunctionARN{Scope: lambda.Scope{Account: account, Region: c.caller.Scope.Region}, Name: "*"})
		}
		details := 0
		if err == nil {
			details, err = number(query, "details", MaxQueueDetails)
		}
		if err != nil {
			return nil, err
		}
		all := query.Get("account") == "" && c.operates()
		list, err := d.Queue.List(r.Context(), func(s lambda.Scope) bool { return all || s.Account == account }, details)
		return QueueList{list}, err
	})
}

// showQueue shows single events that wait for a function.
func (d *door) showQueue(w http.ResponseWriter, r *http.Request) {
	d.ofFunction(w, r, "WatchQueue", false, MaxQueueEvents, func(arn lambda.FunctionARN, n int) (any, error) {
		waiting, err := d.Queue.Find(r.Context(), arn)
		if err != nil {
			return nil, err
		}
		events, err := d.Queue.Events(r.Context(), arn, n)
		return QueueEvents{waiting, events}, err
	})
}

func (d *door) purgeQueue(w http.ResponseWriter, r *http.Request) {
	d.ofFunction(w, r, "PurgeQueue", true, 0, func(arn lambda.FunctionARN, _ int) (any, error) {
		return d.Queue.Purge(r.Context(), arn, r.URL.Query().Get("parked") == "true")
	})
}

func (d *door) redriveQueue(w http.ResponseWriter, r *http.Request) {
	d.ofFunction(w, r, "RedriveQueue", true, MaxRedrive, func(arn lambda.FunctionARN, n int) (any, error) {
		return d.Queue.Redrive(r.Context(), arn, n)
	})
}

// ofFunction serves an operation on what waits for the function that the path names, on up
// to so many events.
func (d *door) ofFunction(w http.ResponseWriter, r *http.Request, name string, changes bool, most int, do func(arn lambda.FunctionARN, n int) (any, error)) {
	d.act(w, r, name, changes, nil, func(c *call) (any, error) {
		account, err := c.account(r.URL.Query().Get("account"))
		if err != nil {
			return nil, err
		}
		arn, err := lambda.ParseFunction(r.PathValue("function"), "", lambda.Scope{Account: account, Region: c.caller.Scope.Region})
		if err != nil {
			return nil, err
		}
		if err := c.may(arn.Unqualified()); err != nil {
			return nil, err
		}
		if arn.Qualifier != "" {
			return nil, lambda.InvalidParameter("Events of all versions and aliases wait together: name the function without %s.", arn.Qualifier)
		}
		n, err := number(r.URL.Query(), "limit", most)
		if err != nil {
			return nil, err
		}
		return do(arn, n)
	})
}

// number is that of a query, most where there is none.
func number(query url.Values, name string, most int) (int, error) {
	text := query.Get(name)
	if text == "" {
		return most, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > most {
		return 0, lambda.InvalidParameter("%s is %q: use a number up to %d", name, text, most)
	}
	return n, nil
}
