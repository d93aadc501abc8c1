package api

import (
	"context"
	"time"

	"kiln/internal/aws/lambdaapi"
	"kiln/internal/lambda"
	"kiln/internal/registry"
)

// PutFunctionEventInvokeConfig says anew what becomes of asynchronous invocations of a
// function, by one of its qualifiers.
func (c *call) PutFunctionEventInvokeConfig(ctx context.Context, in *lambdaapi.PutFunctionEventInvokeConfigInput) (*lambdaapi.PutFunctionEventInvokeConfigOutput, error) {
	return c.configureEvents(ctx, in, false)
}

// UpdateFunctionEventInvokeConfig changes what the request names. DestinationConfig is
// replaced whole.
func (c *call) UpdateFunctionEventInvokeConfig(ctx context.Context, in *lambdaapi.UpdateFunctionEventInvokeConfigInput) (*lambdaapi.UpdateFunctionEventInvokeConfigOutput, error) {
	return c.configureEvents(ctx, (*lambdaapi.PutFunctionEventInvokeConfigInput)(in), true)
}

// configureEvents sets what the request names; of the rest it keeps what there must be, or
// nothing.
func (c *call) configureEvents(ctx context.Context, in *lambdaapi.PutFunctionEventInvokeConfigInput, keep bool) (*lambdaapi.FunctionEventInvokeConfig, error) {
	arn, err := c.events(in.FunctionName, in.Qualifier)
	if err != nil {
		return nil, err
	}
	if in.MaximumRetryAttempts == nil && in.MaximumEventAgeInSeconds == nil && in.DestinationConfig == nil {
		return nil, lambda.InvalidParameter("You must specify at least one of error handling or destination setting.")
	}
	if _, err := c.door.Registry.Owner(arn); err != nil {
		return nil, noEventFunction()
	}
	var changed registry.Owner
	err = c.door.Registry.Attach(ctx, arn, func(o *registry.Owner) error {
		config := new(lambda.EventInvokeConfig)
		if keep {
			if o.Attached.EventInvoke == nil {
				return noEventInvoke(arn)
			}
			*config = *o.Attached.EventInvoke
		}
		if in.MaximumRetryAttempts != nil {
			config.MaximumRetryAttempts = in.MaximumRetryAttempts
		}
		if in.MaximumEventAgeInSeconds != nil {
			config.MaximumEventAge = in.MaximumEventAgeInSeconds
		}
		if d := in.DestinationConfig; d != nil {
			config.OnSuccess, config.OnFailure = "", ""
			if d.OnSuccess != nil {
				config.OnSuccess = lambda.Destination(lambdaapi.Value(d.OnSuccess.Destination))
			}
			if d.OnFailure != nil {
				config.OnFailure = lambda.Destination(lambdaapi.Value(d.OnFailure.Destination))
			}
			if err := c.checkDestinations(arn, config.OnSuccess, config.OnFailure); err != nil {
				return err
			}
		}
		config.Modified = time.Now().UTC()
		o.Attached.EventInvoke = config
		changed = *o
		return nil
	})
	if err != nil {
		return nil, err
	}
	return showEventInvoke(changed), nil
}

// checkDestinations refuses what the function cannot send records to. Whether a queue,
// topic, bus or bucket is there only shows when one is sent.
func (c *call) checkDestinations(arn lambda.FunctionARN, success, failure lambda.Destination) error {
	// S3 takes failures alone.
	if failure != "" && failure.Service() == "" || success != "" && (success.Service() == "" || success.Service() == "s3") {
		show := func(kind string, d lambda.Destination) string {
			if d == "" {
				return "null"
			}
			return kind + "(destination=" + string(d) + ")"
		}
		return lambda.InvalidParameter("The provided destination config DestinationConfig(onSuccess=%s, onFailure=%s) is invalid.", show("OnSuccess", success), show("OnFailure", failure))
	}
	for _, d := range []lambda.Destination{failure, success} {
		if d.Service() != "lambda" {
			continue
		}
		to, err := lambda.ParseFunctionARN(string(d))
		if err == nil && to.Scope == arn.Scope { // of others it is not told what they have
			_, err = c.door.Registry.Owner(to)
		}
		switch {
		case err != nil || to.Scope != arn.Scope:
			return lambda.InvalidParameter("The destination ARN %s is invalid.", d)
		case to.Name == arn.Name:
			return lambda.InvalidParameter("You can't specify the function as a destination for itself.")
		}
	}
	return nil
}

// GetFunctionEventInvokeConfig shows what becomes of asynchronous invocations.
func (c *call) GetFunctionEventInvokeConfig(_ context.Context, in *lambdaapi.GetFunctionEventInvokeConfigInput) (*lambdaapi.GetFunctionEventInvokeConfigOutput, error) {
	arn, err := c.events(in.FunctionName, in.Qualifier)
	if err != nil {
		return nil, err
	}
	o, err := c.door.Registry.Owner(arn)
	if err != nil || o.Attached.EventInvoke == nil {
		return nil, noEventInvoke(arn)
	}
	return showEventInvoke(o), nil
}

// ListFunctionEventInvokeConfigs shows a page of a function's configurations, one for
// each qualifier that has one.
func (c *call) ListFunctionEventInvokeConfigs(_ context.Context, in *lambdaapi.ListFunctionEventInvokeConfigsInput) (*lambdaapi.ListFunctionEventInvokeConfigsOutput, error) {
	page, next, err := c.owners(in.FunctionName, in.Marker, in.MaxItems, func(a *lambda.Attached) bool { return a.EventInvoke != nil }, noEventFunction())
	if err != nil {
		return nil, err
	}
	out := &lambdaapi.ListFunctionEventInvokeConfigsOutput{FunctionEventInvokeConfigs: []lambdaapi.FunctionEventInvokeConfig{}, NextMarker: next}
	for _, o := range page {
		out.FunctionEventInvokeConfigs = append(out.FunctionEventInvokeConfigs, *showEventInvoke(o))
	}
	return out, nil
}

// DeleteFunctionEventInvokeConfig leaves asynchronous invocations to the defaults.
func (c *call) DeleteFunctionEventInvokeConfig(ctx context.Context, in *lambdaapi.DeleteFunctionEventInvokeConfigInput) (*lambdaapi.DeleteFunctionEventInvokeConfigOutput, error) {
	arn, err := c.events(in.FunctionName, in.Qualifier)
	if err != nil {
		return nil, err
	}
	if _, err := c.door.Registry.Owner(arn); err != nil {
		return nil, noEventInvoke(arn)
	}
	return &lambdaapi.DeleteFunctionEventInvokeConfigOutput{}, c.door.Registry.Attach(ctx, arn, func(o *registry.Owner) error {
		if o.Attached.EventInvoke == nil {
			return noEventInvoke(arn)
		}
		o.Attached.EventInvoke = nil
		return nil
	})
}

// events names what a request about asynchronous invocations is about, $LATEST too.
func (c *call) events(name, qualifier *string) (lambda.FunctionARN, error) {
	arn, err := c.function(name, qualifier)
	if err == nil && arn.Qualifier == "" {
		arn.Qualifier = lambda.Latest
	}
	return arn, err
}

func noEventFunction() error { return lambda.NotFound("The function doesn't exist.") }

func noEventInvoke(arn lambda.FunctionARN) error {
	return lambda.NotFound("The function %s doesn't have an EventInvokeConfig", arn)
}

func showEventInvoke(o registry.Owner) *lambdaapi.FunctionEventInvokeConfig {
	config := o.Attached.EventInvoke
	return &lambdaapi.FunctionEventInvokeConfig{
		LastModified:             &lambdaapi.Epoch{Time: config.Modified},
		FunctionArn:              new(o.ARN.String()),
		MaximumRetryAttempts:     config.MaximumRetryAttempts,
		MaximumEventAgeInSeconds: config.MaximumEventAge,
		DestinationConfig: &lambdaapi.DestinationConfig{
			OnSuccess: &lambdaapi.OnSuccess{Destination: optional(string(config.OnSuccess))},
			OnFailure: &lambdaapi.OnFailure{Destination: optional(string(config.OnFailure))},
		},
	}
}
