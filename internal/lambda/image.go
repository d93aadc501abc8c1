package lambda

import "fmt"

// MaxImage bounds an image with all its layers, uncompressed, in bytes.
const MaxImage = 10 << 30

// ImageConfig is a function's ImageConfig: what it says goes before the image's own.
type ImageConfig struct {
	EntryPoint       []string
	Command          []string
	WorkingDirectory string
}

// MaxImageSettings bounds an ImageConfig in JSON, in bytes.
const MaxImageSettings = 16 << 10

// ReasonCode is a StateReasonCode, which is a LastUpdateStatusReasonCode too.
type ReasonCode string

// Why an image cannot be a function's code.
const (
	ImageDeleted      ReasonCode = "ImageDeleted"
	ImageAccessDenied ReasonCode = "ImageAccessDenied"
	InvalidImage      ReasonCode = "InvalidImage"
	InternalError     ReasonCode = "InternalError"
)

// Failure is why a change of a function has failed for good: what its State or
// LastUpdateStatus Failed is shown with.
type Failure struct {
	Code   ReasonCode
	Reason string
}

func (f *Failure) Error() string { return fmt.Sprintf("%s: %s", f.Code, f.Reason) }

// Refusal is the failure as the answer to the request that would bring it about.
func (f *Failure) Refusal() *Error {
	if f.Code == ImageAccessDenied {
		return AccessDenied("%s", f.Reason)
	}
	return InvalidParameter("%s", f.Reason)
}
