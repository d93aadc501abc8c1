package destination

import (
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"

	"kiln/internal/aws/sdk"
	"kiln/internal/lambda"
)

// failure is why something was not sent.
type failure struct {
	to        lambda.Destination
	permanent bool
	says      string
	cause     error // nil where no service was asked
}

func (f *failure) Error() string { return fmt.Sprintf("send to %s: %s", f.to, f.says) }

func (f *failure) Unwrap() error { return f.cause }

// Permanent tells whether trying again cannot help: the target is not there, refuses,
// can be no target, or does not take as much.
func Permanent(err error) bool {
	var f *failure
	return errors.As(err, &f) && f.permanent
}

// refuse is a failure that no service was asked about.
func refuse(to lambda.Destination, format string, args ...any) error {
	return &failure{to: to, permanent: true, says: fmt.Sprintf(format, args...)}
}

// names are the services' own.
var names = map[string]string{"sqs": "SQS", "sns": "SNS", "events": "EventBridge", "s3": "S3"}

// explain says what came of asking the service at the endpoint. unsigned says that it
// was asked without credentials.
func explain(to lambda.Destination, endpoint string, unsigned bool, err error) error {
	service := names[to.Service()]
	f := &failure{to: to, cause: err}
	if answer := sdk.Answer(err); answer != nil {
		f.says = fmt.Sprintf("%s answers %s: %s", service, answer.ErrorCode(), answer.ErrorMessage())
		f.permanent = final(answer, err, unsigned)
	} else {
		f.says = fmt.Sprintf("the %s that Kiln is configured with (endpoints), %s, fails: %v", service, endpoint, sdk.Cause(err, service))
	}
	return f
}

// final tells whether the service will say the same again.
func final(answer smithy.APIError, err error, unsigned bool) bool {
	_, throttled := retry.DefaultThrottleErrorCodes[answer.ErrorCode()]
	if throttled || slices.Contains(passing, answer.ErrorCode()) {
		return false
	}
	var response *awshttp.ResponseError
	if !errors.As(err, &response) {
		return true // an entry of EventBridge, in an answer with status 200
	}
	switch status := response.HTTPStatusCode(); status {
	case http.StatusRequestTimeout, http.StatusConflict, http.StatusTooEarly, http.StatusTooManyRequests:
		return false
	case http.StatusUnauthorized, http.StatusForbidden:
		return !unsigned // credentials that could not be had just now may be there later
	default:
		return status < http.StatusInternalServerError
	}
}

// passing are the codes of errors that pass although their status is that of a wrong
// request: the service is busy, or whoever runs Kiln has to set its credentials, or its
// clock, right.
var passing = []string{
	"RequestTimeout", "RequestTimeoutException", "InternalFailure", "InternalError", "InternalException", "InternalErrorException", "ServiceUnavailable", "ServiceUnavailableException",
	"KMSThrottling", "KMSThrottlingException", "KmsThrottled", "KMS.ThrottlingException", "Throttled", "OverLimit", "ConcurrentModificationException",
	"RequestExpired", "RequestTimeTooSkewed", "RequestInTheFuture", "ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired",
	"InvalidClientTokenId", "UnrecognizedClientException", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch", "InvalidSignatureException",
	"IncompleteSignature", "MissingAuthenticationToken", "AuthFailure", "InvalidSecurity", "OptInRequired",
}
