package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Error is why a text is no policy, in IAM's words.
type Error struct{ Message string }

func (e *Error) Error() string { return e.Message }

func malformed(format string, args ...any) *Error { return &Error{fmt.Sprintf(format, args...)} }

// Kind is where a policy stands.
type Kind int

const (
	// Identity is what a user, a role or a key may do.
	Identity Kind = iota
	// Trust is who may assume a role. Its resource is the role.
	Trust
	// Resource is who may do what to a resource.
	Resource
)

// versions of the policy language. In the first, ${…} is no variable.
const (
	version2008 = "2008-10-17"
	version2012 = "2012-10-17"
)

// maxNesting of lists and objects is far above what a policy needs; IAM's own
// limits are of bytes.
const maxNesting = 10

// document is a policy as it is written.
type document struct {
	Version   *string
	ID        *string `json:"Id"`
	Statement oneOrMore[written]
}

// written is a statement as it is written.
type written struct {
	Sid                     *string
	Effect                  string
	Action, NotAction       *oneOrMore[string]
	Resource, NotResource   *oneOrMore[string]
	Principal, NotPrincipal *namedPrincipals
	Condition               map[string]map[string]oneOrMore[scalar]
}

// oneOrMore is a list that may be written as its only element.
type oneOrMore[T any] []T

func (l *oneOrMore[T]) UnmarshalJSON(b []byte) error {
	if b[0] == '[' {
		return strict(b, (*[]T)(l))
	}
	*l = make([]T, 1)
	return strict(b, &(*l)[0])
}

// scalar is a text that may be written as a number or a boolean.
type scalar string

func (s *scalar) UnmarshalJSON(b []byte) error {
	var text string
	if b[0] == '"' {
		err := json.Unmarshal(b, &text)
		*s = scalar(text)
		return err
	}
	if b[0] == '{' || b[0] == '[' || b[0] == 'n' {
		return errors.New("a value of a condition is a text, a number or a boolean")
	}
	*s = scalar(b)
	return nil
}

// namedPrincipals are by kind, such as AWS and Service; "*" alone is anybody of AWS.
type namedPrincipals map[string]oneOrMore[string]

func (p *namedPrincipals) UnmarshalJSON(b []byte) error {
	if b[0] != '"' {
		return strict(b, (*map[string]oneOrMore[string])(p))
	}
	var text string
	if err := json.Unmarshal(b, &text); err != nil || text != "*" {
		return errors.New(`a principal is "*" or an object`)
	}
	*p = namedPrincipals{"AWS": {"*"}}
	return nil
}

// strict decodes one JSON value, without members that are unknown, null, or in
// another case.
func strict(b []byte, into any) error {
	if string(bytes.TrimSpace(b)) == "null" {
		return errors.New("null has no meaning in a policy")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the policy")
	}
	return nil
}

// members finds what encoding/json forgives and IAM does not: member names in
// another case, and the same member twice.
func members(text []byte) error {
	d := json.NewDecoder(bytes.NewReader(text))
	var object func(depth int) error
	object = func(depth int) error {
		token, err := d.Token()
		if err != nil {
			return err
		}
		open, ok := token.(json.Delim)
		if !ok {
			return nil
		}
		if depth == maxNesting {
			return errors.New("it is nested too deeply")
		}
		seen := map[string]bool{}
		for d.More() {
			if open == '{' {
				name, err := d.Token()
				if err != nil {
					return err
				}
				text := name.(string) // so it is in an object
				if seen[text] || foldsToElement(text) && depth < 3 {
					return fmt.Errorf("%q stands twice, or in another case", text)
				}
				seen[text] = true
			}
			if err := object(depth + 1); err != nil {
				return err
			}
		}
		_, err = d.Token()
		return err
	}
	return object(0)
}

var elements = []string{"Version", "Id", "Statement", "Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Principal", "NotPrincipal", "Condition"}

// foldsToElement tells whether a name is an element's but for its case.
func foldsToElement(name string) bool {
	return !slices.Contains(elements, name) && slices.ContainsFunc(elements, func(e string) bool { return strings.EqualFold(e, name) })
}

// Parse reads a policy. Its errors are *Error.
func Parse(kind Kind, text []byte) (Document, error) {
	var d document
	if members(text) != nil || strict(text, &d) != nil || len(d.Statement) == 0 {
		return Document{}, malformed("Syntax errors in policy.")
	}
	version := version2008
	if d.Version != nil {
		version = *d.Version
	}
	switch {
	case version != version2008 && version != version2012:
		return Document{}, malformed("Syntax errors in policy.")
	case kind == Identity && version != version2012:
		return Document{}, malformed("Policy document must be version 2012-10-17 or greater.")
	}
	var parsed Document
	sids := map[string]bool{}
	for i := range d.Statement {
		w := &d.Statement[i]
		s, err := w.read(kind, version == version2012)
		if err != nil {
			return Document{}, err
		}
		if w.Sid != nil && *w.Sid != "" {
			if sids[*w.Sid] {
				return Document{}, malformed("Statement IDs (SID) in a single policy must be unique.")
			}
			sids[*w.Sid] = true
		}
		parsed.statements = append(parsed.statements, s)
	}
	return parsed, nil
}

func (w *written) read(kind Kind, variables bool) (s statement, err error) {
	switch {
	case w.Effect == "" && kind == Trust:
		return s, malformed("Missing required field Effect cannot be empty!")
	case w.Effect != "Allow" && w.Effect != "Deny",
		w.Action != nil && w.NotAction != nil, w.Resource != nil && w.NotResource != nil, w.Principal != nil && w.NotPrincipal != nil:
		return s, malformed("Syntax errors in policy.")
	}
	s.deny = w.Effect == "Deny"
	if s.actions, err = readActions(kind, w.Action, w.NotAction); err != nil {
		return s, err
	}
	if s.resources, err = w.readResources(kind, variables); err != nil {
		return s, err
	}
	if s.principals, err = w.readPrincipals(kind); err != nil {
		return s, err
	}
	for operator, keys := range w.Condition {
		c, ok := newCondition(operator)
		if !ok {
			return s, malformed("Invalid Condition type : %s.", operator)
		}
		for key, values := range keys {
			if !strings.Contains(key, ":") {
				return s, malformed("Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.")
			}
			of := c
			of.key = strings.ToLower(key)
			for _, value := range values {
				if err := checkValue(operator, string(value)); err != nil {
					return s, err
				}
				of.values = append(of.values, newPattern(string(value), variables))
			}
			s.conditions = append(s.conditions, of)
		}
	}
	return s, nil
}

// checkValue refuses what an operator could never be true for.
func checkValue(operator, value string) error {
	if strings.Contains(value, "${") {
		return nil
	}
	switch {
	case strings.Contains(operator, "Numeric"):
		if _, err := strconv.ParseFloat(value, 64); err != nil {
			return malformed("Syntax errors in policy.")
		}
	case strings.Contains(operator, "Date"):
		if _, ok := parseDate(value); !ok {
			return malformed("The policy failed legacy parsing")
		}
	}
	return nil
}

var vendorPattern = regexp.MustCompile(`^[a-zA-Z0-9.-]+$`)

func readActions(kind Kind, actions, others *oneOrMore[string]) (p patterns, err error) {
	if p.negated = actions == nil; p.negated {
		actions = others
	}
	if actions == nil || len(*actions) == 0 {
		if kind == Trust {
			return p, malformed("Missing required field Action cannot be empty!")
		}
		return p, malformed("Policy statement must contain actions.")
	}
	for _, action := range *actions {
		vendor, name, found := strings.Cut(action, ":")
		switch {
		case action == "*":
		case !found:
			return p, malformed("Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.")
		case strings.Contains(name, ":"):
			return p, malformed("Actions/Condition can contain only one colon.")
		case vendor != "*" && !vendorPattern.MatchString(vendor):
			return p, malformed("Vendor %s is not valid", vendor)
		case kind == Trust && !strings.EqualFold(vendor, "sts"):
			return p, malformed("AssumeRole policy may only specify STS AssumeRole actions.")
		}
		p.list = append(p.list, newPattern(strings.ToLower(action), false))
	}
	return p, nil
}

func (w *written) readResources(kind Kind, variables bool) (p patterns, err error) {
	list := w.Resource
	if p.negated = list == nil; p.negated {
		list = w.NotResource
	}
	if kind == Trust {
		if list != nil {
			return p, malformed("Has prohibited field Resource")
		}
		return patterns{negated: true}, nil // the role, whatever its name
	}
	if list == nil || len(*list) == 0 {
		return p, malformed("Policy statement must contain resources.")
	}
	for _, resource := range *list {
		if err := checkResource(resource); err != nil {
			return p, err
		}
		p.list = append(p.list, newPattern(resource, variables))
	}
	return p, nil
}

// checkResource wants an ARN, perhaps without its last parts, or everything.
func checkResource(resource string) error {
	if resource == "*" {
		return nil
	}
	part := strings.SplitN(resource, ":", arnParts)
	switch {
	case len(part) == 1:
		return malformed(`Resource %s must be in ARN format or "*".`, resource)
	case part[0] != "arn", len(part) < arnParts && strings.Contains(resource, "::"):
		return malformed("The policy failed legacy parsing")
	case part[1] != "*" && part[1] != "aws" && !strings.HasPrefix(part[1], "aws-"):
		for len(part) < arnParts {
			part = append(part, "*")
		}
		return malformed(`Partition "%s" is not valid for resource "%s".`, part[1], strings.Join(part, ":"))
	case len(part) == 2, part[2] == "":
		return malformed("Resource vendor must be fully qualified and cannot contain regexes.")
	case part[2] == "iam" && len(part) > 3 && part[3] != "" && part[3] != "*":
		return malformed("IAM resource %s cannot contain region information.", resource)
	}
	return nil
}

var accountPattern = regexp.MustCompile(`^\d{12}$`)

func (w *written) readPrincipals(kind Kind) (*principals, error) {
	named, p := w.Principal, &principals{negated: w.Principal == nil}
	if p.negated {
		named = w.NotPrincipal
	}
	switch {
	case kind == Identity && named != nil:
		return nil, malformed("Policy document should not specify a principal.")
	case kind == Identity:
		return nil, nil
	case named == nil && kind == Trust:
		return nil, malformed("Missing required field Principal cannot be empty!")
	case named == nil:
		return nil, malformed("Missing required field Principal")
	}
	for kind, list := range *named {
		for _, name := range list {
			switch {
			case kind == "AWS" && name == "*":
				p.anyone = true
			case kind == "AWS" && accountPattern.MatchString(name):
				p.arns = append(p.arns, rootARN(name))
			case kind == "AWS" && strings.HasPrefix(name, "arn:") && !strings.Contains(name, "*"):
				p.arns = append(p.arns, name)
			case kind == "Service" && name != "" && !strings.Contains(name, "*"):
				p.services = append(p.services, name)
			case kind == "Federated" && name != "", kind == "CanonicalUser" && name != "":
				// Kiln knows no such principals: they never call.
			default:
				return nil, malformed(`Invalid principal in policy: "%s":"%s"`, kind, name)
			}
		}
	}
	return p, nil
}
