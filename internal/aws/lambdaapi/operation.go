package lambdaapi

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"kiln/internal/aws/wire"
)

// Operation is one operation of the Lambda API.
type Operation struct {
	Name     string // such as GetFunction
	Method   string
	Path     string // with {Parameters}, and with its fixed query if it has one
	Status   int    // of success, unless the output says otherwise
	Resource string // the path parameter that names what it is about, or ""
	Action   string // in an IAM policy, such as lambda:GetFunction
	Limit    int64  // of the body, in bytes
	ReadOnly bool

	limitCode, limitName  string // of the fault for a larger body
	segments              []string
	queryName, queryValue string // tells operations with one path apart
	serve                 func(context.Context, Service, *wire.Request) (*answer, error)
}

// maxEvent bounds the payload of an asynchronous invocation, in bytes.
const maxEvent = 1 << 20

// limit is the largest body that op takes of r, in bytes.
func (op *Operation) limit(r *http.Request) int64 {
	if op.Name == "Invoke" && r.Header.Get("X-Amz-Invocation-Type") == "Event" {
		return maxEvent
	}
	return op.Limit
}

// Operations returns all operations in the order of their names. Nobody may
// change them.
func Operations() []Operation { return operations[:] }

// Route finds the operation of a request and the parameters in its path, decoded.
// A slash at the end of the path does not matter. It returns nil for a request of
// no operation.
//
// http.ServeMux would not do: two pairs of operations differ in a query parameter
// only, and ARNs arrive both escaped and not.
func Route(method string, u *url.URL) (*Operation, []string) {
	path := strings.TrimSuffix(strings.TrimPrefix(u.EscapedPath(), "/"), "/")
	count := 1 + strings.Count(path, "/")
	var found *Operation
	for i := range operations {
		op := &operations[i]
		if len(op.segments) != count || op.Method != method || !op.matches(path) {
			continue
		}
		if op.queryName == "" {
			if found == nil {
				found = op
			}
		} else if u.Query().Get(op.queryName) == op.queryValue {
			found = op
		}
		if found != nil && found.queryName != "" {
			break
		}
	}
	if found == nil {
		return nil, nil
	}
	var params []string
	i := 0
	for segment := range strings.SplitSeq(path, "/") {
		if found.segments[i] == "{}" {
			value, err := url.PathUnescape(segment)
			if err != nil || value == "" {
				return nil, nil
			}
			params = append(params, value)
		}
		i++
	}
	return found, params
}

func (op *Operation) matches(path string) bool {
	for _, want := range op.segments {
		var segment string
		segment, path, _ = strings.Cut(path, "/")
		if want != "{}" && want != segment {
			return false
		}
	}
	return true
}
