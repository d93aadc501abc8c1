package lambda

import (
	"fmt"
	"regexp"
	"strings"
)

// ARN is the full name of something that belongs to an account.
type ARN interface {
	Owner() AccountID
	String() string
}

// Anything is what an action is about that is about no one thing, such as a list.
type Anything struct{ Scope }

func (Anything) String() string { return "*" }

// ForeignARN is the ARN of what another service has, taken for the account's.
type ForeignARN struct {
	Name    string
	Account AccountID
}

// Owner is the account.
func (a ForeignARN) Owner() AccountID { return a.Account }

func (a ForeignARN) String() string { return a.Name }

// FunctionARN is the full name of a function, with the qualifier that its user
// wrote, if any.
type FunctionARN struct {
	Scope
	Name      FunctionName
	Qualifier Qualifier
}

func (a FunctionARN) String() string {
	s := "arn:aws:lambda:" + string(a.Region) + ":" + string(a.Account) + ":function:" + string(a.Name)
	if a.Qualifier != "" {
		s += ":" + string(a.Qualifier)
	}
	return s
}

// Unqualified returns the ARN of the function itself.
func (a FunctionARN) Unqualified() FunctionARN {
	a.Qualifier = ""
	return a
}

// Qualified returns the ARN with that qualifier.
func (a FunctionARN) Qualified(q Qualifier) FunctionARN {
	a.Qualifier = q
	return a
}

// functionReference has AWS's own pattern for FunctionName, with the parts named.
var functionReference = regexp.MustCompile(`^(?:arn:(?:aws[a-zA-Z-]*)?:lambda:)?(?:(?P<region>[a-z]{2}(?:(?:-gov)|(?:-iso(?:[a-z]?)))?-[a-z]+-\d{1}):)?(?:(?P<account>\d{12}):)?(?:function:)?(?P<name>[a-zA-Z0-9-_]+)(?::(?P<qualifier>\$LATEST(?:\.PUBLISHED)?|[a-zA-Z0-9-_]+))?$`)

// ParseFunction resolves what a caller gave as FunctionName — a name, a partial
// or a full ARN, each with or without a qualifier — and as Qualifier, for a
// request made in the scope here.
//
// The errors are AWS's: ResourceNotFoundException for another region,
// InvalidParameterValueException for qualifiers that contradict each other.
func ParseFunction(reference string, qualifier Qualifier, here Scope) (FunctionARN, error) {
	m := functionReference.FindStringSubmatch(reference)
	if m == nil {
		return FunctionARN{}, InvalidParameter("%q is not a function name, a partial ARN or an ARN", reference)
	}
	arn := FunctionARN{Scope: here, Name: FunctionName(m[3]), Qualifier: Qualifier(m[4])}
	if m[1] != "" && Region(m[1]) != here.Region {
		return FunctionARN{}, NotFound("Functions from '%s' are not reachable in this region ('%s')", m[1], here.Region)
	}
	if m[2] != "" {
		arn.Account = AccountID(m[2])
	}
	switch {
	case qualifier == "":
	case arn.Qualifier == "":
		arn.Qualifier = qualifier
	case arn.Qualifier != qualifier:
		return FunctionARN{}, InvalidParameter("The derived qualifier from the function name does not match the specified qualifier.")
	}
	return arn, nil
}

// ParseFunctionARN parses a full function ARN.
func ParseFunctionARN(s string) (FunctionARN, error) {
	parts := strings.Split(s, ":")
	if len(parts) < 7 || len(parts) > 8 || parts[0] != "arn" || parts[2] != "lambda" || parts[5] != "function" {
		return FunctionARN{}, fmt.Errorf("%q is not a function ARN", s)
	}
	return ParseFunction(s, "", Scope{Account: AccountID(parts[4]), Region: Region(parts[3])})
}
