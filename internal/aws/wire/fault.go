// Package wire is the part of AWS's JSON protocols, rest-json and JSON 1.1, that
// depends on neither a model nor a service: reading bodies and the members in
// them, collecting constraint violations in AWS's wording, and the errors that
// both lead to.
//
// It is not a JSON library and knows no operation. The packages that are generated
// beside it are its callers.
package wire

import (
	"fmt"
	"net/http"
)

// Fault is an error as a caller of the API sees it.
type Fault struct {
	Code       string // AWS's exception name, such as ResourceNotFoundException
	Status     int    // HTTP status
	Message    string
	Reason     string // TooManyRequestsException only
	RetryAfter int    // seconds for the Retry-After header; 0 sends none
}

func (f *Fault) Error() string { return f.Code + ": " + f.Message }

// Serialization is the fault of a request that cannot be read as the members of
// its operation.
func Serialization(format string, args ...any) *Fault {
	return &Fault{Code: "SerializationException", Status: http.StatusBadRequest, Message: fmt.Sprintf(format, args...)}
}
