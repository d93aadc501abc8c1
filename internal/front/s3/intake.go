package s3

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"

	"kiln/internal/aws/lambdaapi"
	"kiln/internal/front"
	"kiln/internal/invoke/notification"
	"kiln/internal/lambda"
)

// maxEvents bounds what another store may say at once, in bytes.
const maxEvents = 1 << 20

// Intake takes the events of buckets that other stores have, from whoever has the secret:
// in the header Authorization, as it is or as a bearer's, or as the parameter secret of the URL.
// The parameter function names who gets them; else it is who is told of the bucket here.
type Intake struct {
	Notifications *notification.Service
	Scope         lambda.Scope // of functions, and of buckets
	Secret        string       // "": it is not open
	Log           *slog.Logger
}

func (i Intake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := i.take(r); err != nil {
		f := front.Refusal(err)
		switch {
		case f != nil:
		case errors.Is(err, notification.ErrForeign):
			f = &lambdaapi.Fault{Code: "InvalidRequestContentException", Status: http.StatusBadRequest, Message: err.Error()}
		default: // it comes again
			i.Log.Error("events of another store were not taken", "error", err)
			f = &lambdaapi.Fault{Code: "ServiceException", Status: http.StatusServiceUnavailable, Message: "Kiln could not keep the events; its log says why. Send them again."}
		}
		lambdaapi.WriteFault(w, f)
		return
	}
	w.WriteHeader(http.StatusOK)
}

func (i Intake) take(r *http.Request) error {
	if i.Secret == "" {
		return lambda.NotFound("Kiln takes no events of other stores: set s3_events_secret_file in kiln.toml, and restart kiln.")
	}
	q := r.URL.Query()
	given := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	if given == "" {
		given = q.Get("secret")
	}
	want, got := sha256.Sum256([]byte(i.Secret)), sha256.Sum256([]byte(given))
	if subtle.ConstantTimeCompare(want[:], got[:]) != 1 {
		return lambda.AccessDenied("The secret is not the one in s3_events_secret_file: send it as Authorization: Bearer SECRET, or as ?secret=SECRET.")
	}
	text, err := io.ReadAll(io.LimitReader(r.Body, maxEvents+1))
	if err != nil {
		return lambda.InvalidRequestContent("The events were cut off: %v", err)
	}
	if len(text) > maxEvents {
		return lambda.RequestTooLarge("%d bytes of events are too many at once (limit %d bytes)", len(text), maxEvents)
	}
	var function *lambda.FunctionARN
	if name := q.Get("function"); name != "" {
		arn, err := lambda.ParseFunction(name, "", i.Scope)
		if err != nil {
			return err
		}
		function = &arn
	}
	return i.Notifications.Relay(r.Context(), i.Scope, function, text)
}
