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
	return permission(to, o.Function.Account, o.key())
}

// Permission is what the execution role of the batch's function, in the account, must be
// allowed, as that of an outcome's.
func (b Batch) Permission(to lambda.Destination, account lambda.AccountID) (action string, on lambda.ARN) {
	return permission(to, account, b.Key)
}

func permission(to lambda.Destination, account lambda.AccountID, key string) (action string, on lambda.ARN) {
	of := func(name string) lambda.ARN { return lambda.ForeignARN{Name: name, Account: account} }
	name := string(to)
	switch to.Service() {
	case "sqs":
		return "sqs:SendMessage", of(name)
	case "sns":
		return "sns:Publish", of(name)
	case "events":
		return "events:PutEvents", of(name)
	case "s3":
		return "s3:PutObject", of(name + "/" + key)
	case "lambda":
		if arn, err := lambda.ParseFunctionARN(name); err == nil {
			return "lambda:InvokeFunction", arn
		}
	}
	return "", nil
}
