package lambda

import (
	"errors"
	"fmt"
	"net/http"
)

// Error is what a caller of the Lambda API sees: AWS's code and a message in
// AWS's words. Any other error is a ServiceException to the caller and is logged
// whole for the operator.
type Error struct {
	Code    string // AWS's exception name, such as ResourceNotFoundException
	Status  int    // HTTP status
	Message string
	Reason  string // TooManyRequestsException only

	RetryAfter int // seconds; 0: not said
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }

// NotFound is a ResourceNotFoundException.
func NotFound(format string, args ...any) *Error {
	return newError("ResourceNotFoundException", http.StatusNotFound, format, args...)
}

// InvalidParameter is an InvalidParameterValueException.
func InvalidParameter(format string, args ...any) *Error {
	return newError("InvalidParameterValueException", http.StatusBadRequest, format, args...)
}

// Violation is what a value gets that breaks a rule of the model for its member, where the
// request has it in another place.
func Violation(member, value, rule string) *Error {
	return newError("ValidationException", http.StatusBadRequest,
		"1 validation error detected: Value '%s' at '%s' failed to satisfy constraint: %s", value, member, rule)
}

// Conflict is a ResourceConflictException.
func Conflict(format string, args ...any) *Error {
	return newError("ResourceConflictException", http.StatusConflict, format, args...)
}

// PreconditionFailed is what a RevisionId that is not the latest gets; api is the
// operation that shows the latest.
func PreconditionFailed(api string) *Error {
	return newError("PreconditionFailedException", http.StatusPreconditionFailed,
		"The Revision Id provided does not match the latest Revision Id. Call the %s API to retrieve the latest Revision Id", api)
}

// PolicyLengthExceeded is what a policy of that many bytes gets.
func PolicyLengthExceeded(size int) *Error {
	return newError("PolicyLengthExceededException", http.StatusBadRequest,
		"The final policy size (%d) is bigger than the limit (%d).", size, MaxPolicy)
}

// AccessDenied is an AccessDeniedException.
func AccessDenied(format string, args ...any) *Error {
	return newError("AccessDeniedException", http.StatusForbidden, format, args...)
}

// InvalidRequestContent is what a payload that is not JSON gets.
func InvalidRequestContent(format string, args ...any) *Error {
	return newError("InvalidRequestContentException", http.StatusBadRequest, format, args...)
}

// RequestTooLarge is what a payload above its limit gets.
func RequestTooLarge(format string, args ...any) *Error {
	return newError("RequestTooLargeException", http.StatusRequestEntityTooLarge, format, args...)
}

// RequestEntityTooLarge is what a deployment package above its limit gets.
func RequestEntityTooLarge(format string, args ...any) *Error {
	return newError("RequestEntityTooLargeException", http.StatusRequestEntityTooLarge, format, args...)
}

// UnzippedTooLarge is what a package gets whose content, or that itself, is above the limit.
func UnzippedTooLarge() *Error {
	return InvalidParameter("Unzipped size must be smaller than %d bytes", MaxUnzipped)
}

// S3AccessDenied is what a caller gets whose package S3, or a policy, withholds.
func S3AccessDenied(o S3Object, message string) *Error {
	return AccessDenied("Your access has been denied by S3, please make sure your request credentials have permission to GetObject for %s/%s. S3 Error Code: AccessDenied. S3 Error Message: %s", o.Bucket, o.Key, message)
}

// Throttled is a TooManyRequestsException for a reason of AWS's list.
func Throttled(reason string) *Error {
	e := newError("TooManyRequestsException", http.StatusTooManyRequests, "Rate Exceeded.")
	e.Reason = reason
	return e
}

// NoSigningConfig is what attaching a code signing configuration gets that is not there.
func NoSigningConfig(arn string) *Error {
	return newError("CodeSigningConfigNotFoundException", http.StatusNotFound,
		"The code signing configuration cannot be found. Check that the provided configuration is not deleted: %s.", arn)
}

// CodeVerificationFailed is what unsigned code gets where signatures are enforced.
func CodeVerificationFailed(function FunctionName) *Error {
	return newError("CodeVerificationFailedException", http.StatusBadRequest,
		"Lambda cannot deploy the function. The function or layer might be signed using a signature that the client is not configured to accept. Check the provided signature for %s.", function)
}

// CodeStorageExceeded is what a package gets for which the account has no room.
func CodeStorageExceeded() *Error {
	return newError("CodeStorageExceededException", http.StatusBadRequest, "Code storage limit exceeded.")
}

// NoProvisionedConcurrency is what there is of a version or an alias that has none.
func NoProvisionedConcurrency() *Error {
	return newError("ProvisionedConcurrencyConfigNotFoundException", http.StatusNotFound, "No Provisioned Concurrency Config found for this function")
}

// NotBuilt says that Kiln does not do this yet.
func NotBuilt(what string) *Error {
	return newError("NotImplementedException", http.StatusNotImplemented,
		"%s is not built yet in Kiln. docs/compatibility.md lists what is.", what)
}

// AsError returns the *Error in err's chain, or nil.
func AsError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return nil
}

func newError(code string, status int, format string, args ...any) *Error {
	message := format
	if len(args) > 0 {
		message = fmt.Sprintf(format, args...)
	}
	return &Error{Code: code, Status: status, Message: message}
}
