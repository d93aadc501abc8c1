package lambda

// Attached is what belongs to a function, a version or an alias without being
// frozen by publishing. It is immutable: a change makes a new one.
type Attached struct {
	Policy Policy // its Revision is that of the owner
	// CodeSigning is the ARN of a function's code signing configuration; "" for none.
	CodeSigning string `json:",omitempty"`
}
