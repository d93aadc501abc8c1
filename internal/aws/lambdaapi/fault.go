package lambdaapi

import (
	"net/http"
	"strconv"

	"kiln/internal/aws/wire"
)

// Fault is an error as a caller of the API sees it. It is an error itself, for
// hooks and services that know AWS's answer.
type Fault = wire.Fault

// NewFault makes the fault of an exception, with the status that AWS gives it.
func NewFault(code, message string) *Fault {
	return &Fault{Code: code, Status: statusOf(code), Message: message}
}

func (u Unimplemented) refuse(operation string) error {
	if u.May != nil {
		if err := u.May(); err != nil {
			return err
		}
	}
	return notBuilt(operation)
}

func notBuilt(operation string) *Fault {
	return NewFault("NotImplementedException", operation+" is not built yet in Kiln. docs/compatibility.md lists what is.")
}

// WriteFault answers a request with an error, in the shape that AWS gives to its
// exception. For doors that fail before they reach the Handler.
func WriteFault(w http.ResponseWriter, f *Fault) {
	key, typed := errorShape(f.Code)
	if f.Status == 0 {
		f = &Fault{Code: f.Code, Status: statusOf(f.Code), Message: f.Message, Reason: f.Reason, RetryAfter: f.RetryAfter}
	}
	b := []byte{'{'}
	if f.Reason != "" && f.Code == "TooManyRequestsException" {
		b = append(b, `"Reason":`...)
		b = append(b, quoted(f.Reason)...)
		b = append(b, ',')
	}
	if typed {
		kind := "User"
		if f.Status >= 500 {
			kind = "Service"
		}
		b = append(b, `"Type":"`+kind+`",`...)
	}
	b = append(b, `"`+key+`":`...)
	b = append(b, quoted(f.Message)...)
	b = append(b, '}')

	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(b)))
	h.Set("X-Amzn-Errortype", f.Code)
	if f.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(f.RetryAfter))
	}
	w.WriteHeader(f.Status)
	w.Write(b) // the caller has gone if this fails
}

func quoted(s string) []byte {
	b, err := wire.Marshal(s)
	if err != nil {
		panic(err) // a string always has a JSON form
	}
	return b
}
