package front

import (
	"errors"

	"kiln/internal/aws/lambdaapi"
	"kiln/internal/aws/sigv4"
	"kiln/internal/lambda"
)

// Refusal is how an error that the caller caused looks to the caller; nil for
// every other error.
func Refusal(err error) *lambdaapi.Fault {
	if e := lambda.AsError(err); e != nil {
		return &lambdaapi.Fault{Code: e.Code, Status: e.Status, Message: e.Message, Reason: e.Reason, RetryAfter: e.RetryAfter}
	}
	var unsigned *sigv4.Error
	if errors.As(err, &unsigned) {
		return &lambdaapi.Fault{Code: unsigned.Code, Status: unsigned.Status, Message: unsigned.Message}
	}
	return nil
}
