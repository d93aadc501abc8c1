package api

import (
	"context"
	"strings"
	"time"

	"kiln/internal/aws/lambdaapi"
	"kiln/internal/aws/policy"
	"kiln/internal/front"
	"kiln/internal/lambda"
	"kiln/internal/registry"
)

// CreateFunctionUrlConfig gives a function, or one of its aliases, a URL.
func (c *call) CreateFunctionUrlConfig(ctx context.Context, in *lambdaapi.CreateFunctionUrlConfigInput) (*lambdaapi.CreateFunctionUrlConfigOutput, error) {
	arn, err := c.reachable(in.FunctionName, in.Qualifier, in.AuthType)
	if err != nil {
		return nil, err
	}
	if _, err := c.door.Registry.Owner(arn); err != nil {
		return nil, noFunction()
	}
	var made registry.Owner
	err = c.door.Registry.Attach(ctx, arn, func(o *registry.Owner) error {
		if o.Attached.URL != nil {
			return lambda.Conflict("Failed to create function url config for [functionArn = %s]. Error message:  FunctionUrlConfig exists for this Lambda function", o.ARN)
		}
		now := time.Now().UTC()
		o.Attached.URL = &lambda.FunctionURL{
			ID: lambda.NewFunctionURLID(), AuthType: *in.AuthType, InvokeMode: lambdaapi.Value(in.InvokeMode), CORS: readCORS(in.Cors), Created: now, Modified: now,
		}
		made = *o
		return nil
	})
	if err != nil {
		return nil, err
	}
	u := c.showURL(made)
	return &lambdaapi.CreateFunctionUrlConfigOutput{
		FunctionUrl: u.FunctionUrl, FunctionArn: u.FunctionArn, AuthType: u.AuthType, Cors: u.Cors, CreationTime: u.CreationTime, InvokeMode: in.InvokeMode,
	}, nil
}

// GetFunctionUrlConfig shows a URL.
func (c *call) GetFunctionUrlConfig(_ context.Context, in *lambdaapi.GetFunctionUrlConfigInput) (*lambdaapi.GetFunctionUrlConfigOutput, error) {
	arn, err := c.reachable(in.FunctionName, in.Qualifier, nil)
	if err != nil {
		return nil, err
	}
	o, err := c.door.Registry.Owner(arn)
	if err != nil || o.Attached.URL == nil {
		return nil, noResource()
	}
	u := c.showURL(o)
	return &lambdaapi.GetFunctionUrlConfigOutput{
		FunctionUrl: u.FunctionUrl, FunctionArn: u.FunctionArn, AuthType: u.AuthType, Cors: u.Cors,
		CreationTime: u.CreationTime, LastModifiedTime: u.LastModifiedTime, InvokeMode: u.InvokeMode,
	}, nil
}

// ListFunctionUrlConfigs shows a page of the URLs of a function and its aliases.
func (c *call) ListFunctionUrlConfigs(_ context.Context, in *lambdaapi.ListFunctionUrlConfigsInput) (*lambdaapi.ListFunctionUrlConfigsOutput, error) {
	page, next, err := c.owners(in.FunctionName, in.Marker, in.MaxItems, func(a *lambda.Attached) bool { return a.URL != nil }, noFunction())
	if err != nil {
		return nil, err
	}
	out := &lambdaapi.ListFunctionUrlConfigsOutput{FunctionUrlConfigs: []lambdaapi.FunctionUrlConfig{}, NextMarker: next}
	for _, o := range page {
		out.FunctionUrlConfigs = append(out.FunctionUrlConfigs, *c.showURL(o))
	}
	return out, nil
}

// UpdateFunctionUrlConfig changes a URL's settings. Cors is replaced whole; empty, it is
// taken away.
func (c *call) UpdateFunctionUrlConfig(ctx context.Context, in *lambdaapi.UpdateFunctionUrlConfigInput) (*lambdaapi.UpdateFunctionUrlConfigOutput, error) {
	arn, err := c.reachable(in.FunctionName, in.Qualifier, in.AuthType)
	if err != nil {
		return nil, err
	}
	if _, err := c.door.Registry.Owner(arn); err != nil {
		return nil, noFunction()
	}
	var changed registry.Owner
	err = c.door.Registry.Attach(ctx, arn, func(o *registry.Owner) error {
		if o.Attached.URL == nil {
			return noResource()
		}
		u := *o.Attached.URL
		set(&u.AuthType, in.AuthType)
		set(&u.InvokeMode, in.InvokeMode)
		if in.Cors != nil {
			u.CORS = readCORS(in.Cors)
		}
		u.Modified = time.Now().UTC()
		o.Attached.URL = &u
		changed = *o
		return nil
	})
	if err != nil {
		return nil, err
	}
	u := c.showURL(changed)
	return &lambdaapi.UpdateFunctionUrlConfigOutput{
		FunctionUrl: u.FunctionUrl, FunctionArn: u.FunctionArn, AuthType: u.AuthType, Cors: u.Cors,
		CreationTime: u.CreationTime, LastModifiedTime: u.LastModifiedTime, InvokeMode: in.InvokeMode,
	}, nil
}

// DeleteFunctionUrlConfig takes a URL away. Its id is never given again.
func (c *call) DeleteFunctionUrlConfig(ctx context.Context, in *lambdaapi.DeleteFunctionUrlConfigInput) (*lambdaapi.DeleteFunctionUrlConfigOutput, error) {
	arn, err := c.reachable(in.FunctionName, in.Qualifier, nil)
	if err != nil {
		return nil, err
	}
	if _, err := c.door.Registry.Owner(arn); err != nil {
		return nil, noResource()
	}
	return &lambdaapi.DeleteFunctionUrlConfigOutput{}, c.door.Registry.Attach(ctx, arn, func(o *registry.Owner) error {
		if o.Attached.URL == nil {
			return noResource()
		}
		o.Attached.URL = nil
		return nil
	})
}

// reachable names what a request about a URL is about: a function, or an alias of it.
func (c *call) reachable(name, qualifier, authType *string) (lambda.FunctionARN, error) {
	keys := policy.Keys{}
	if authType != nil {
		keys.Set("lambda:FunctionUrlAuthType", *authType)
	}
	arn, err := c.functionWith(name, qualifier, keys)
	if err == nil && arn.Qualifier != "" && (arn.Qualifier == lambda.Latest || strings.Trim(string(arn.Qualifier), "0123456789") == "") {
		err = lambda.Violation("qualifier", string(arn.Qualifier), `Member must satisfy regular expression pattern: ((?!^\d+$)^[0-9a-zA-Z-_]+$)`)
	}
	return arn, err
}

func noFunction() error { return lambda.NotFound("Function does not exist") }

func noResource() error { return lambda.NotFound("The resource you requested does not exist.") }

func readCORS(in *lambdaapi.Cors) *lambda.CORS {
	if in == nil || in.AllowCredentials == nil && in.MaxAge == nil && len(in.AllowHeaders)+len(in.AllowMethods)+len(in.AllowOrigins)+len(in.ExposeHeaders) == 0 {
		return nil
	}
	return &lambda.CORS{
		Credentials: in.AllowCredentials, Headers: in.AllowHeaders, Methods: in.AllowMethods, Origins: in.AllowOrigins, ExposeHeaders: in.ExposeHeaders, MaxAge: in.MaxAge,
	}
}

// showURL is the URL of an owner as lists show it.
func (c *call) showURL(o registry.Owner) *lambdaapi.FunctionUrlConfig {
	u := o.Attached.URL
	if o.ARN.Qualifier == lambda.Latest {
		o.ARN = o.ARN.Unqualified()
	}
	out := &lambdaapi.FunctionUrlConfig{
		FunctionUrl:      new(front.FunctionURL(c.base, u.ID, o.ARN.Region)),
		FunctionArn:      new(o.ARN.String()),
		CreationTime:     urlTime(u.Created),
		LastModifiedTime: urlTime(u.Modified),
		AuthType:         &u.AuthType,
		InvokeMode:       new("BUFFERED"),
	}
	set(out.InvokeMode, optional(u.InvokeMode))
	if o := u.CORS; o != nil {
		out.Cors = &lambdaapi.Cors{
			AllowCredentials: o.Credentials, AllowHeaders: o.Headers, AllowMethods: o.Methods, AllowOrigins: o.Origins, ExposeHeaders: o.ExposeHeaders, MaxAge: o.MaxAge,
		}
	}
	return out
}

// urlTime is a time as only function URLs have it.
func urlTime(t time.Time) *string { return new(t.Format("2006-01-02T15:04:05.000Z")) }
