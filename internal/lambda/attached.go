package lambda

import "time"

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
	// Reserved is how many concurrent executions a function has to itself, and at most;
	// nil: it shares with all that reserve none.
	Reserved *int `json:",omitempty"`
	// Provisioned is a version's or an alias's provisioned concurrency.
	Provisioned *Provisioned `json:",omitempty"`
}

// Provisioned is a provisioned concurrency configuration.
type Provisioned struct {
	Requested int
	Modified  time.Time
}

// RuntimeManagement says when a function's runtime is updated.
type RuntimeManagement struct {
	UpdateOn   string // Auto, FunctionUpdate or Manual
	VersionARN string // of the runtime, with Manual
}

// Share is what of its scope's concurrent executions there is for a function's
// invocations by one qualifier.
type Share struct {
	Provisioned int  // for the qualifier alone
	Reserves    bool // Reserved is what the function has to itself, and at most
	Reserved    int
	Function    int // provisioned for any qualifier of the function; if it reserves, a part of that
	Claimed     int // what all functions of the scope have to themselves, either way
}
