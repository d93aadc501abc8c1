package operator

import (
	"net/http"

	"kiln/internal/aws/lambdaapi"
	"kiln/internal/front"
	"kiln/internal/lambda"
)

// call is one request for something that needs a signature.
type call struct {
	door     *door
	caller   front.Caller
	name     string // of the operation, such as CreateKey
	changes  bool
	resource lambda.ARN
	id       lambda.RequestID
}

// begin authenticates a request. A function's credentials are for AWS's APIs, not
// for changing the machine that it runs on.
func (d *door) begin(w http.ResponseWriter, r *http.Request, name string, changes bool, body []byte) (*call, error) {
	c := &call{door: d, name: name, changes: changes, id: lambda.NewRequestID()}
	w.Header().Set("X-Amzn-Requestid", string(c.id))
	var err error
	c.caller, err = d.Access.Authenticate(r, false)
	if err == nil && c.caller.Verify != nil {
		err = c.caller.Verify(body)
	}
	if err == nil && c.caller.Principal.Environment != "" {
		err = lambda.AccessDenied("User: %s is not authorized to perform: %s: the credentials of a function do not manage Kiln", c.caller.Principal.ARN, c.action())
	}
	return c, err
}

// action is the operation as policies name it.
func (c *call) action() string { return "kiln:" + c.name }

// operates tells whether the caller is of the account that Kiln is run by, which
// manages the machine, and the keys of every account.
func (c *call) operates() bool { return c.caller.Scope.Account == c.door.Access.Operator() }

// managed is something of another account that is managed as if it were one's own.
type managed struct {
	lambda.ARN
	by lambda.AccountID
}

func (m managed) Owner() lambda.AccountID { return m.by }

// may checks that the caller may do this to the resource.
func (c *call) may(resource lambda.ARN) error {
	c.resource = resource
	if c.operates() {
		resource = managed{resource, c.caller.Scope.Account}
	}
	return c.door.Access.Authorise(c.caller.Principal, c.action(), resource)
}

// over records what came of the call.
func (c *call) over(fault *lambdaapi.Fault) {
	c.door.Audit.Record(front.Act{
		Who: c.caller.Principal, Operation: c.name, Action: c.action(), Resource: c.resource, RequestID: string(c.id),
		Changes: c.changes, Fault: fault,
	})
}

// act serves an operation whose answer is JSON.
func (d *door) act(w http.ResponseWriter, r *http.Request, name string, changes bool, body []byte, do func(*call) (any, error)) {
	c, err := d.begin(w, r, name, changes, body)
	var answer any
	if err == nil {
		answer, err = do(c)
	}
	if err != nil {
		c.refuse(w, r, err)
		return
	}
	c.over(nil)
	writeJSON(w, answer)
}

func (c *call) refuse(w http.ResponseWriter, r *http.Request, err error) {
	fault := c.door.fault(r, err)
	c.over(fault)
	lambdaapi.WriteFault(w, fault)
}

// machineARN is a part of the machine, which belongs to the account that Kiln is
// run by.
type machineARN struct {
	lambda.Scope
	part string // such as runtime/python3.13
}

func (a machineARN) String() string {
	return "arn:aws:kiln:" + string(a.Region) + ":" + string(a.Account) + ":" + a.part
}

// machine names a part of the machine.
func (c *call) machine(part string) machineARN {
	return machineARN{lambda.Scope{Account: c.door.Access.Operator(), Region: c.caller.Scope.Region}, part}
}
