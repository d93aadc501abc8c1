package lambda

// Attached is what belongs to a function, a version or an alias without being
// frozen by publishing. It is immutable: a change makes a new one.
type Attached struct {
	Policy Policy // its Revision is that of the owner
	// CodeSigning is the ARN of a function's code signing configuration; "" for none.
	CodeSigning string `json:",omitempty"`
	// URL is that of a function, by $LATEST, or of an alias.
	URL *FunctionURL `json:",omitempty"`
	// EventInvoke is what becomes of asynchronous invocations by this qualifier.
	EventInvoke *EventInvokeConfig `json:",omitempty"`
	// RecursiveLoop is a function's: Allow, or "" for Terminate.
	RecursiveLoop string `json:",omitempty"`
	// RuntimeManagement is a version's; nil: its runtime is updated on its own.
	RuntimeManagement *RuntimeManagement `json:",omitempty"`
}

// RuntimeManagement says when a function's runtime is updated.
type RuntimeManagement struct {
	UpdateOn   string // Auto, FunctionUpdate or Manual
	VersionARN string // of the runtime, with Manual
}
