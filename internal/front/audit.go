package front

import (
	"context"
	"log/slog"
	"net/http"

	"kiln/internal/aws/wire"
	"kiln/internal/lambda"
)

// Audit writes a line for each call that changes something, and for each that is
// refused: who it was, and what came of it. It never holds what was sent: payloads,
// variables and secrets stand in no line. It is safe for concurrent use; a nil one
// writes nothing.
type Audit struct{ log *slog.Logger }

// NewAudit returns an Audit that writes to log.
func NewAudit(log *slog.Logger) *Audit { return &Audit{log} }

// Act is one call that is over.
type Act struct {
	// Who made it. Where the signature was refused, that is what the request claims.
	Who       lambda.Principal
	Operation string
	Action    string     // as policies name it
	Resource  lambda.ARN // or nil
	RequestID string
	Changes   bool        // it is for changing something
	Fault     *wire.Fault // nil: it was carried out
}

// Record writes the line of a call, if it is one to have a line.
func (a *Audit) Record(act Act) {
	refused := act.Fault != nil && (act.Fault.Status == http.StatusForbidden || act.Fault.Status == http.StatusUnauthorized)
	if a == nil || !act.Changes && !refused {
		return
	}
	outcome := "ok"
	if act.Fault != nil {
		outcome = act.Fault.Code
	}
	attributes := []slog.Attr{
		slog.String("account", string(act.Who.Account)), slog.String("principal", act.Who.ARN), slog.String("access_key", act.Who.AccessKey),
		slog.String("operation", act.Operation), slog.String("action", act.Action),
	}
	if act.Resource != nil {
		attributes = append(attributes, slog.String("resource", act.Resource.String()))
	}
	source := act.Who.Environment // a call from within has no address
	if act.Who.From.IsValid() {
		source = act.Who.From.String()
	}
	attributes = append(attributes, slog.String("source", source), slog.String("request_id", act.RequestID), slog.String("outcome", outcome))
	a.log.LogAttrs(context.Background(), slog.LevelInfo, "audit", attributes...)
}
