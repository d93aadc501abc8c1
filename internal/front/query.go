package front

import (
	"cmp"

	"kiln/internal/aws/wire"
)

// queryCodes are what the services of the query protocol call refusals.
var queryCodes = map[string]string{
	"AccessDeniedException":               "AccessDenied",
	"ExpiredTokenException":               "ExpiredToken",
	"IncompleteSignatureException":        "IncompleteSignature",
	"InvalidSignatureException":           "SignatureDoesNotMatch",
	"MissingAuthenticationTokenException": "MissingAuthenticationToken",
	"UnrecognizedClientException":         "InvalidClientTokenId",
}

// QueryRefusal is Refusal for the services of the query protocol, IAM and STS.
func QueryRefusal(err error) *wire.Fault {
	f := Refusal(err)
	if f == nil {
		return nil
	}
	f.Code = cmp.Or(queryCodes[f.Code], f.Code)
	return f
}
