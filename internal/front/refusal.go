package front

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"strings"

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

// Service is the service that the request was signed for, or "".
func Service(r *http.Request) string {
	s, err := sigv4.Parse(r)
	if err != nil {
		return ""
	}
	return s.Service
}

// Refuse answers a request in the format that the clients of its service read.
func Refuse(w http.ResponseWriter, r *http.Request, f *lambdaapi.Fault) {
	contentType := r.Header.Get("Content-Type")
	h := w.Header()
	switch service := Service(r); {
	case service == "lambda" || service == "kiln" || service == "":
		lambdaapi.WriteFault(w, f)
	case service == "s3":
		h.Set("Content-Type", "application/xml")
		w.WriteHeader(f.Status)
		writeXML(w, struct {
			XMLName xml.Name `xml:"Error"`
			Code    string
			Message string
		}{Code: f.Code, Message: f.Message})
	case strings.HasPrefix(contentType, "application/x-www-form-urlencoded"):
		h.Set("Content-Type", "text/xml")
		w.WriteHeader(f.Status)
		type detail struct{ Type, Code, Message string }
		writeXML(w, struct {
			XMLName xml.Name `xml:"ErrorResponse"`
			Error   detail
		}{Error: detail{"Sender", f.Code, f.Message}})
	default:
		h.Set("Content-Type", "application/x-amz-json-1.0")
		h.Set("X-Amzn-Errortype", f.Code)
		w.WriteHeader(f.Status)
		body, _ := json.Marshal(map[string]string{"__type": f.Code, "message": f.Message}) // strings always marshal
		_, _ = w.Write(body)                                                               // the caller is gone if this fails
	}
}

func writeXML(w io.Writer, v any) {
	_, _ = io.WriteString(w, xml.Header)
	_ = xml.NewEncoder(w).Encode(v) // the caller is gone if this fails
}
