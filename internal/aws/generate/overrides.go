package main

// The live service differs from its published model in the places below, and
// Kiln follows the service. Keys are a structure and its member, in Go's names.

// rule changes what is checked of one member; nil leaves the model's bound.
type rule struct {
	max      *float64
	dropEnum bool
}

var rules = map[string]rule{
	// The model bounds memory by what Managed Instances may have.
	"CreateFunctionInput.MemorySize":              {max: new(10240.0)},
	"UpdateFunctionConfigurationInput.MemorySize": {max: new(10240.0)},
	// The model knows no upper bound of a timeout.
	"CreateFunctionInput.Timeout":              {max: new(900.0)},
	"UpdateFunctionConfigurationInput.Timeout": {max: new(900.0)},
	// An unknown runtime is an InvalidParameterValueException with a wording and
	// a list of its own, which change with the calendar: the service checks it.
	"CreateFunctionInput.Runtime":              {dropEnum: true},
	"UpdateFunctionConfigurationInput.Runtime": {dropEnum: true},
}

// statuses are success statuses that differ from the model's.
var statuses = map[string]int{
	// 200 with StatusCode is for deletions that go on in the background.
	"DeleteFunction": 204,
}

// limit bounds an operation's body. Its fault reads "Request must be smaller than
// <bytes> bytes for the <name> operation".
type limit struct {
	bytes      int64
	code, name string
}

// defaultLimit covers every operation that has no limit below: no request of
// theirs comes near 1 MB.
var defaultLimit = limit{1 << 20, "RequestEntityTooLargeException", ""}

var limits = map[string]limit{
	// 50 MiB of zip in base64, and room for the other members.
	"CreateFunction":      {70_167_211, "RequestEntityTooLargeException", ""},
	"UpdateFunctionCode":  {70_167_211, "RequestEntityTooLargeException", ""},
	"PublishLayerVersion": {70_167_211, "RequestEntityTooLargeException", ""},
	// The payload of a synchronous invocation.
	"Invoke":                   {6 << 20, "RequestTooLargeException", "InvokeFunction"},
	"InvokeWithResponseStream": {6 << 20, "RequestTooLargeException", ""},
	"InvokeAsync":              {1 << 20, "RequestTooLargeException", ""},
	// 1 MiB of events, each of which JSON may make longer: a control character
	// takes six bytes.
	"PutLogEvents": {8 << 20, "", ""},
	// One update may carry a payload of 6 MiB.
	"CheckpointDurableExecution": {8 << 20, "RequestEntityTooLargeException", ""},
}

// actions are IAM actions that are not called like their operation.
var actions = map[string]string{
	"Invoke":                   "lambda:InvokeFunction",
	"InvokeWithResponseStream": "lambda:InvokeFunction",
	"InvokeAsync":              "lambda:InvokeFunction",
	"GetLayerVersionByArn":     "lambda:GetLayerVersion",
}

// renames are shapes whose Go name would collide or read badly.
var renames = map[string]string{
	"InvocationRequest":  "InvokeInput",
	"InvocationResponse": "InvokeOutput",
	"Operation":          "DurableOperation", // Operation is an operation of the API
	"Event":              "DurableEvent",
	"Execution":          "DurableExecution",
}

// lookaround maps the patterns that RE2 cannot express, and one that is too narrow, to
// matchers written by hand in lambdaapi/patterns.go.
var lookaround = map[string]string{
	`(?!^[0-9]+$)([a-zA-Z0-9-_]+)`:              "matchAlias",
	`(^(?!(system\x2e)))(^[_a-zA-Z0-9])([^$]*)`: "matchCollectionName",
	`((?!^\d+$)^[0-9a-zA-Z-_]+$)`:               "matchFunctionURLQualifier",
	`[0-9A-Za-z\.\-_]*(?<!\.)`:                  "matchS3Bucket",
	`arn:(aws[a-zA-Z0-9-]*):([a-zA-Z0-9\-])+:([a-z]{2}(-gov)?-[a-z]+-\d{1})?:(\d{12})?:(.*)`: "matchARN",
}

// worded are patterns whose violation the service words in a way of its own, which
// begins "The specified value for <member> is invalid."
var worded = map[string]string{
	`[\w+=,.@-]+`: "It must contain only alphanumeric characters and/or the following: +=,.@_-",
	`(\u002F)|(\u002F[\u0021-\u007E]+\u002F)`: "It must begin and end with / and contain only alphanumeric characters and/or / characters.",
	`((/[A-Za-z0-9\.,\+@=_-]+)*)/`:            "It must begin and end with / and contain only alphanumeric characters and/or / characters.",
}

// unmodelled are codes that the service answers but its model does not list,
// with their status and the name of their message member.
var unmodelled = []struct {
	code    string
	status  int
	message string
}{
	{"AccessDeniedException", 403, "Message"},
	{"ExpiredTokenException", 403, "message"},
	{"IncompleteSignatureException", 403, "message"},
	{"InvalidSignatureException", 403, "message"},
	{"MissingAuthenticationTokenException", 403, "message"},
	{"NotImplementedException", 501, "message"},
	{"RequestEntityTooLargeException", 413, "Message"},
	{"SerializationException", 400, "message"},
	{"ThrottlingException", 429, "message"},
	{"UnknownOperationException", 404, "message"},
	{"UnrecognizedClientException", 403, "message"},
	{"ValidationException", 400, "message"},
}
