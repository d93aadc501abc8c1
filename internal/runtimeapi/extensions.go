package runtimeapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"kiln/internal/lambda"
)

const (
	// MaxExtensions is how many extensions one environment may have: AWS's quota.
	MaxExtensions = 10
	// maxExtensionName bounds a name in bytes: that of a file.
	maxExtensionName = 255
	// maxControlBody bounds what an extension registers, subscribes or reports, in bytes.
	maxControlBody = 64 << 10
)

// The events that extensions register for.
const (
	invokeEvent   = "INVOKE"
	shutdownEvent = "SHUTDOWN"
)

// ExtensionState is where an extension stands in the protocol.
//
//	Started ──register──▶ Registered ──next──▶ Ready ──event──▶ Running
//	   │                      │                  ▲                 │
//	   │ cannot be started    │ init/error       └───── next ──────┘
//	   ▼                      ▼
//	LaunchError           InitError        registered ──exit/error──▶ ExitError
//	                                       started ──ends unasked──▶ Exited
//
// External extensions are Started before the runtime is, internal ones appear as
// Registered. A next while Ready is for a request that was lost.
type ExtensionState string

// The states of an extension.
const (
	ExtensionStarted     ExtensionState = "Started"
	ExtensionLaunchError ExtensionState = "LaunchError"
	ExtensionRegistered  ExtensionState = "Registered"
	ExtensionReady       ExtensionState = "Ready"
	ExtensionRunning     ExtensionState = "Running"
	ExtensionInitError   ExtensionState = "InitError"
	ExtensionExitError   ExtensionState = "ExitError"
	ExtensionExited      ExtensionState = "Exited"
)

// Extension is an extension as others see it.
type Extension struct {
	Name      string
	External  bool
	State     ExtensionState
	Events    []string // that it registered for
	ErrorType string   // of a state that is a failure
}

// WantsShutdown tells whether the extension registered for the event SHUTDOWN.
func (x Extension) WantsShutdown() bool { return slices.Contains(x.Events, shutdownEvent) }

// ExtensionReport is the error that an extension posted.
type ExtensionReport struct {
	Extension Extension
	Message   string // errorMessage of the document, or ""
}

// extension is one extension of the environment. All is guarded by Server.mu.
type extension struct {
	Extension
	id         string // that it identifies itself with
	owed       *extensionEvent
	wake       chan struct{} // that there is something owed; holds one
	waiting    bool          // a next waits
	busy       bool          // it has not asked for the next event since the last INVOKE
	subscribed string        // the telemetry API that it uses
}

type extensionEvent struct {
	id   string // of INVOKE
	body []byte
}

// Registered is closed once every external extension has registered: the runtime
// may be started.
func (s *Server) Registered() <-chan struct{} { return s.registered }

// ExtensionsReady is closed once the runtime and every extension asked for their
// first event. Nobody registers or subscribes any more.
func (s *Server) ExtensionsReady() <-chan struct{} { return s.extensionsReady }

// ExtensionFailed yields the errors that extensions posted.
func (s *Server) ExtensionFailed() <-chan ExtensionReport { return s.extensionFailed }

// Extensions lists the external extensions, and the internal ones in the order of
// their registration.
func (s *Server) Extensions() []Extension {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]Extension, len(s.extensions))
	for i, x := range s.extensions {
		list[i] = x.Extension
	}
	return list
}

// ExtensionEnded says that an external extension could not be started, or ended
// unasked. One that said why it failed has already.
func (s *Server) ExtensionEnded(name string, state ExtensionState, errorType string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x := s.find(func(x *extension) bool { return x.Name == name }); x != nil && x.ErrorType == "" {
		x.State, x.ErrorType = state, errorType
	}
}

// Shutdown tells the extensions that registered for it that the environment ends.
func (s *Server) Shutdown(reason string, deadline time.Time) {
	body, _ := json.Marshal(struct { // strings and a number always marshal
		Type     string `json:"eventType"`
		Reason   string `json:"shutdownReason"`
		Deadline int64  `json:"deadlineMs"`
	}{shutdownEvent, reason, deadline.UnixMilli()})
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range s.extensions {
		if x.WantsShutdown() {
			x.owe(&extensionEvent{body: body})
		}
	}
}

// owe has the extension given an event, in place of one that it has not got. s.mu is held.
func (x *extension) owe(e *extensionEvent) {
	x.owed = e
	select {
	case x.wake <- struct{}{}:
	default:
	}
}

// invoke tells the extensions that registered for it of an invocation. s.mu is held.
func (s *Server) invoke(x *exchange) {
	var body []byte
	for _, e := range s.extensions {
		if !slices.Contains(e.Events, invokeEvent) {
			continue
		}
		if body == nil {
			body = invokeBody(x.invocation)
			x.extensions = make(chan struct{})
		}
		e.busy = true
		e.owe(&extensionEvent{id: lambda.NewUUID(), body: body})
	}
	s.invoked = x
}

func invokeBody(inv *lambda.Invocation) []byte {
	type tracing struct {
		Type  string `json:"type"`
		Value string `json:"value"`
	}
	event := struct {
		Type     string           `json:"eventType"`
		Deadline int64            `json:"deadlineMs"`
		ID       lambda.RequestID `json:"requestId"`
		ARN      string           `json:"invokedFunctionArn"`
		Tracing  *tracing         `json:"tracing,omitempty"`
	}{invokeEvent, inv.Deadline.UnixMilli(), inv.ID, inv.ARN.String(), nil}
	if inv.TraceHeader != "" {
		event.Tracing = &tracing{"X-Amzn-Trace-Id", inv.TraceHeader}
	}
	body, _ := json.Marshal(event) // strings and a number always marshal
	return body
}

func (s *Server) routeExtension(w http.ResponseWriter, r *http.Request, path string) {
	for _, route := range []struct {
		path, method string
		serve        func(http.ResponseWriter, *http.Request)
	}{
		{"extension/register", http.MethodPost, s.register},
		{"extension/event/next", http.MethodGet, s.nextEvent},
		{"extension/init/error", http.MethodPost, func(w http.ResponseWriter, r *http.Request) {
			s.extensionError(w, r, ExtensionInitError, "Extension.InitError")
		}},
		{"extension/exit/error", http.MethodPost, func(w http.ResponseWriter, r *http.Request) {
			s.extensionError(w, r, ExtensionExitError, "Extension.ExitError")
		}},
	} {
		if route.path == path {
			if allowed(w, r, route.method) {
				route.serve(w, r)
			}
			return
		}
	}
	refuse(w, http.StatusNotFound, "NotFound", "no such path: "+r.URL.Path)
}

// forbidden is how the Extensions API refuses.
func forbidden(w http.ResponseWriter, errorType, format string, args ...any) {
	refuse(w, http.StatusForbidden, errorType, fmt.Sprintf(format, args...))
}

// find returns the first extension of which that is true, or nil. s.mu is held.
func (s *Server) find(which func(*extension) bool) *extension {
	if i := slices.IndexFunc(s.extensions, which); i >= 0 {
		return s.extensions[i]
	}
	return nil
}

func (s *Server) register(w http.ResponseWriter, r *http.Request) {
	name := r.Header.Get("Lambda-Extension-Name")
	switch {
	case name == "":
		forbidden(w, "Extension.InvalidExtensionName", "Empty extension name")
		return
	case len(name) > maxExtensionName:
		forbidden(w, "Extension.InvalidExtensionName", "Extension name longer than %d bytes", maxExtensionName)
		return
	}
	var request struct {
		Events            []string          `json:"events"`
		ConfigurationKeys []json.RawMessage `json:"configurationKeys"`
	}
	if err := readJSON(w, r, &request); err != nil {
		forbidden(w, "InvalidRequestFormat", "%s", err)
		return
	}
	if len(request.ConfigurationKeys) > 0 {
		forbidden(w, "InvalidRequestFormat", "configurationKeys are deprecated; use environment variables instead")
		return
	}
	x, refusal := s.enrol(name, request.Events)
	if refusal != nil {
		forbidden(w, refusal.Type, "%s", refusal.Message)
		return
	}
	answer := struct {
		Name    lambda.FunctionName `json:"functionName"`
		Version lambda.Qualifier    `json:"functionVersion"`
		Handler string              `json:"handler"`
		Account lambda.AccountID    `json:"accountId,omitempty"`
	}{s.function.ARN.Name, s.function.Version, s.function.Settings.Handler, ""}
	for feature := range strings.SplitSeq(r.Header.Get("Lambda-Extension-Accept-Feature"), ",") {
		if strings.TrimSpace(feature) == "accountId" {
			answer.Account = s.function.ARN.Account
		}
	}
	body, _ := json.Marshal(answer) // strings always marshal
	w.Header().Set("Lambda-Extension-Identifier", x.id)
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body) // an extension that is gone is noticed by its exit
}

// enrol registers an extension, or says why not.
func (s *Server) enrol(name string, events []string) (*extension, *lambda.ErrorDocument) {
	no := func(errorType, format string, args ...any) (*extension, *lambda.ErrorDocument) {
		return nil, &lambda.ErrorDocument{Type: errorType, Message: fmt.Sprintf(format, args...)}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.find(func(x *extension) bool { return x.Name == name && x.External })
	for _, e := range events {
		switch {
		case e != invokeEvent && e != shutdownEvent:
			return no("Extension.InvalidEventType", "%s: event is not known", e)
		case e == shutdownEvent && x == nil:
			return no("Extension.InvalidEventType", "%s: event is not for internal extensions", e)
		}
	}
	switch {
	case x != nil && x.State != ExtensionStarted:
		return no("Extension.InvalidExtensionState", extensionTransition, x.State, ExtensionRegistered, name)
	case x != nil:
	case s.closedTo():
		return no("Extension.RegistrationClosed", "Extension registration closed already")
	case s.awaited > 0: // there is no runtime yet, which alone has internal ones
		return no("Extension.InvalidExtensionName", "No file in /opt/extensions is called %q: an external extension registers under the full name of its file", name)
	case s.find(func(x *extension) bool { return x.Name == name }) != nil:
		return no("Extension.InvalidExtensionState", "Extension with this name already registered")
	case len(s.extensions) >= MaxExtensions:
		return no("Extension.TooManyExtensions", "Extension limit (%d) reached", MaxExtensions)
	default:
		x = newExtension(name)
		s.extensions = append(s.extensions, x)
	}
	for _, e := range events {
		if !slices.Contains(x.Events, e) {
			x.Events = append(x.Events, e)
		}
	}
	x.State = ExtensionRegistered
	if x.External {
		if s.awaited--; s.awaited == 0 {
			close(s.registered)
		}
	}
	return x, nil
}

func newExtension(name string) *extension {
	return &extension{Extension: Extension{Name: name, State: ExtensionStarted}, id: lambda.NewUUID(), wake: make(chan struct{}, 1)}
}

// closedTo tells whether internal extensions come too late. s.mu is held.
func (s *Server) closedTo() bool { return s.state != started }

const extensionTransition = "State transition from %s to %s failed for extension %s. Error: State transition is not allowed"

var uuidPattern = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

// identify returns the extension that makes the request.
func (s *Server) identify(w http.ResponseWriter, r *http.Request) *extension {
	const header = "Lambda-Extension-Identifier"
	id := r.Header.Get(header)
	switch {
	case id == "":
		forbidden(w, "Extension.MissingExtensionIdentifier", "Missing %s header", header)
		return nil
	case !uuidPattern.MatchString(id):
		forbidden(w, "Extension.InvalidExtensionIdentifier", "Invalid %s", header)
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.find(func(x *extension) bool { return strings.EqualFold(x.id, id) })
	if x == nil {
		forbidden(w, "Extension.UnknownExtensionIdentifier", "Unknown extension %s", id)
	}
	return x
}

// nextEvent gives an extension its next event, whenever that comes.
func (s *Server) nextEvent(w http.ResponseWriter, r *http.Request) {
	x := s.identify(w, r)
	if x == nil {
		return
	}
	s.mu.Lock()
	from := x.State
	if from != ExtensionRegistered && from != ExtensionRunning && (from != ExtensionReady || x.waiting) {
		s.mu.Unlock()
		forbidden(w, "Extension.InvalidExtensionState", extensionTransition, from, ExtensionReady, x.id)
		return
	}
	x.State, x.waiting = ExtensionReady, true
	if x.busy && x.owed == nil {
		x.busy = false
		s.rest()
	}
	s.settle()
	s.mu.Unlock()

	for {
		select {
		case <-x.wake:
		case <-r.Context().Done():
		case <-s.closed:
			return
		}
		s.mu.Lock()
		if r.Context().Err() != nil { // the extension's next request takes the event
			x.waiting = false
			if x.owed != nil {
				x.owe(x.owed)
			}
			s.mu.Unlock()
			return
		}
		event := x.owed
		if event != nil && x.State == ExtensionReady {
			x.State, x.waiting, x.owed = ExtensionRunning, false, nil
			s.mu.Unlock()
			writeExtensionEvent(w, event)
			return
		}
		s.mu.Unlock()
	}
}

func writeExtensionEvent(w http.ResponseWriter, e *extensionEvent) {
	if e.id != "" {
		w.Header().Set("Lambda-Extension-Event-Identifier", e.id)
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(e.body) // an extension that is gone is noticed by its exit
}

// rest notices that the last extension is done with an invocation. s.mu is held.
func (s *Server) rest() {
	if s.find(func(x *extension) bool { return x.busy }) == nil && s.invoked != nil && s.invoked.extensions != nil {
		close(s.invoked.extensions)
		s.invoked = nil
	}
}

// settle notices that the runtime and the last extension are ready. s.mu is held.
func (s *Server) settle() {
	if s.settled || s.state == started || s.state == initFailed ||
		s.find(func(x *extension) bool { return x.State != ExtensionReady }) != nil {
		return
	}
	s.settled = true
	close(s.extensionsReady)
}

// extensionError takes the report of an extension that failed.
func (s *Server) extensionError(w http.ResponseWriter, r *http.Request, to ExtensionState, otherwise string) {
	x := s.identify(w, r)
	if x == nil {
		return
	}
	const header = "Lambda-Extension-Function-Error-Type"
	errorType := r.Header.Get(header)
	if errorType == "" {
		forbidden(w, "Extension.MissingHeader", "%s not found", header)
		return
	}
	var document lambda.ErrorDocument
	_ = readJSON(w, r, &document) // it need not be there, or any good
	s.mu.Lock()
	from := x.State
	switch {
	case from == to: // said twice
		s.mu.Unlock()
		accept(w)
		return
	case to == ExtensionInitError && from != ExtensionRegistered,
		from != ExtensionRegistered && from != ExtensionReady && from != ExtensionRunning:
		s.mu.Unlock()
		forbidden(w, "Extension.InvalidExtensionState", extensionTransition, from, to, x.id)
		return
	}
	x.State, x.ErrorType = to, otherwise
	if known := knownExtensionError.FindString(errorType); known != "" {
		x.ErrorType = known
	}
	report := ExtensionReport{Extension: x.Extension, Message: document.Message}
	s.mu.Unlock()
	s.extensionFailed <- report // never full: each has one
	accept(w)
}

var knownExtensionError = regexp.MustCompile(`Extension\.[A-Z][a-zA-Z]+`)

// readJSON reads a request's body, which is small.
func readJSON(w http.ResponseWriter, r *http.Request, into any) error {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxControlBody))
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return fmt.Errorf("body of more than %d bytes", maxControlBody)
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(body, into)
}
