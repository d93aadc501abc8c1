package wire

import (
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Request is a routed request with its body, ready to be taken apart into the
// members of an operation. The first error sticks and Err tells.
type Request struct {
	Params []string // path parameters in the order of the operation's path, decoded
	Query  url.Values
	Header http.Header
	Body   []byte

	err *Fault
}

// Err returns the first error.
func (q *Request) Err() error {
	if q.err == nil {
		return nil
	}
	return q.err
}

// Path returns the i-th path parameter.
func (q *Request) Path(i int) *string { return &q.Params[i] }

// PathLong returns the i-th path parameter as a number.
func (q *Request) PathLong(i int) *int64 {
	n, err := strconv.ParseInt(q.Params[i], 10, 64)
	if err != nil {
		q.fail(q.Params[i], "Long")
		return nil
	}
	return &n
}

// QueryString returns a query parameter, or nil if it is absent.
func (q *Request) QueryString(name string) *string {
	if v := q.Query[name]; len(v) > 0 {
		return &v[0]
	}
	return nil
}

// QueryInt returns a query parameter as a number, or nil if it is absent.
func (q *Request) QueryInt(name string) *int {
	v := q.QueryString(name)
	if v == nil {
		return nil
	}
	n, err := strconv.ParseInt(*v, 10, 32)
	if err != nil {
		q.fail(*v, "Integer")
		return nil
	}
	return new(int(n))
}

// QueryBool returns a query parameter as a boolean, or nil if it is absent.
func (q *Request) QueryBool(name string) *bool {
	v := q.QueryString(name)
	switch {
	case v == nil:
	case *v == "true":
		return new(true)
	case *v == "false":
		return new(false)
	default:
		q.fail(*v, "Boolean")
	}
	return nil
}

// QueryList returns every value of a query parameter, or nil if it is absent.
func (q *Request) QueryList(name string) []string { return q.Query[name] }

// QueryTime returns a query parameter as a time, or nil if it is absent. In a
// query, times are ISO 8601; seconds since 1970 are understood too.
func (q *Request) QueryTime(name string) *Epoch {
	v := q.QueryString(name)
	if v == nil {
		return nil
	}
	if t, err := time.Parse(time.RFC3339, *v); err == nil {
		return &Epoch{t.UTC()}
	}
	r := NewReader([]byte(*v))
	if t := r.Epoch(); t != nil && r.Err() == nil {
		return t
	}
	q.fail(*v, "Date")
	return nil
}

// HeaderString returns a header, or nil if it is absent. The name is canonical.
func (q *Request) HeaderString(name string) *string {
	if v := q.Header[name]; len(v) > 0 {
		return &v[0]
	}
	return nil
}

func (q *Request) fail(value, kind string) {
	if q.err == nil {
		q.err = Serialization("STRING_VALUE %q can not be converted to %s", value, kind)
	}
}
