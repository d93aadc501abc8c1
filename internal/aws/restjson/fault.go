// Package restjson is the part of AWS's rest-json protocol that does not depend
// on a model: reading members out of a request, collecting constraint violations
// in AWS's wording, and the errors that both lead to.
//
// It is not a JSON library and knows no operation. The generated code of
// internal/aws/lambdaapi is its only caller.
package restjson

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
