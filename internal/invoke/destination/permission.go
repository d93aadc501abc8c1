package destination

import "kiln/internal/lambda"

// Permission is what the execution role of the outcome's function must be allowed, on
// what, for the outcome to be sent there. A dead letter asks for the same. It is "" of
// what nothing can be sent to.
//
// Kiln does not know the policies that queues, topics, buses and buckets have
// themselves, nor whose a bucket is. To Kiln they are the function's account's, so that
// the role's policies decide; the service has its own say when Kiln asks it.
func Permission(to lambda.Destination, o Outcome) (action string, on lambda.ARN) {
	name, owner := string(to), o.Function.Account
	switch to.Service() {
	case "sqs":
		return "sqs:SendMessage", elsewhere{name, owner}
	case "sns":
		return "sns:Publish", elsewhere{name, owner}
	case "events":
		return "events:PutEvents", elsewhere{name, owner}
	case "s3":
		return "s3:PutObject", elsewhere{name + "/" + o.key(), owner}
	case "lambda":
		if arn, err := lambda.ParseFunctionARN(name); err == nil {
			return "lambda:InvokeFunction", arn
		}
	}
	return "", nil
}

// elsewhere is the ARN of what another service has.
type elsewhere struct {
	name  string
	owner lambda.AccountID
}

func (e elsewhere) Owner() lambda.AccountID { return e.owner }

func (e elsewhere) String() string { return e.name }
