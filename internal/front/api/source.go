package api

import (
	"kiln/internal/aws/lambdaapi"
	"kiln/internal/lambda"
)

// source is where the code of a request comes from: one of these.
type source struct {
	zip    []byte
	object *lambda.S3Object
	image  string
}

// code is the source of a new function's code, of the kind that its package type has.
func (c *call) code(kind lambda.PackageType, in *lambdaapi.FunctionCode) (source, error) {
	switch {
	case kind == lambda.Image && (in.ZipFile != nil || in.S3Bucket != nil || in.ImageUri == nil):
		return source{}, lambda.InvalidParameter("Please provide ImageUri, and no other source, when the intended function PackageType is Image.")
	case kind == lambda.Image:
		return source{image: *in.ImageUri}, c.mayFetch("images")
	case in.ImageUri != nil:
		return source{}, lambda.InvalidParameter("Please don't provide ImageUri when the intended function PackageType is Zip.")
	}
	return c.zip("function code", "FunctionCode", in.ZipFile, in.S3Bucket, in.S3Key, in.S3ObjectVersion)
}

// newCode is the source of a function's other code.
func (c *call) newCode(kind lambda.PackageType, in *lambdaapi.UpdateFunctionCodeInput) (source, error) {
	switch {
	case kind == lambda.Image && (in.ZipFile != nil || in.S3Bucket != nil || in.ImageUri == nil):
		return source{}, lambda.InvalidParameter("Please provide ImageUri when updating a function with packageType Image.")
	case kind == lambda.Image:
		return source{image: *in.ImageUri}, c.mayFetch("images")
	case in.ImageUri != nil:
		return source{}, lambda.InvalidParameter("Please don't provide ImageUri when updating a function with packageType Zip.")
	}
	return c.zip("function code", "FunctionCode", in.ZipFile, in.S3Bucket, in.S3Key, in.S3ObjectVersion)
}

// zip is a package sent with the request, or one in S3 that the caller may read; of
// is the structure of the model that names it.
func (c *call) zip(what, of string, zip []byte, bucket, key, version *string) (source, error) {
	inS3 := bucket != nil || key != nil || version != nil
	switch {
	case zip != nil && inS3:
		return source{}, lambda.InvalidParameter("Please do not provide other %s parameters when providing a ZipFile.", of)
	case zip != nil:
		return source{zip: zip}, nil
	case !inS3:
		return source{}, lambda.InvalidParameter("Please provide a source for %s.", what)
	case bucket == nil || key == nil:
		return source{}, lambda.InvalidParameter("Please provide both S3Bucket and S3Key as a source for %s.", what)
	}
	o := &lambda.S3Object{Account: c.caller.Scope.Account, Region: c.caller.Scope.Region, Bucket: *bucket, Key: *key, Version: lambdaapi.Value(version)}
	return source{object: o}, c.mayRead(o)
}

// mayFetch keeps functions from reaching, by way of what Kiln fetches for them, hosts
// and files that their sandbox keeps from them.
func (c *call) mayFetch(what string) error {
	if c.caller.Principal.Environment == "" {
		return nil
	}
	return lambda.AccessDenied("User: %s is not authorized to deploy %s: a function's own credentials make Kiln fetch nothing", c.caller.Principal.ARN, what)
}

// mayRead checks that the caller may read the object: Kiln asks S3 with credentials of
// its own, which may read more.
func (c *call) mayRead(o *lambda.S3Object) error {
	if err := c.mayFetch("packages from S3"); err != nil {
		return err
	}
	action := "s3:GetObject"
	if o.Version != "" {
		action = "s3:GetObjectVersion"
	}
	err := c.door.Access.Authorise(c.caller.Principal, action, objectARN{o, c.caller.Scope.Account})
	if refused := lambda.AsError(err); refused != nil {
		return lambda.S3AccessDenied(*o, refused.Message)
	}
	return err
}

// objectARN is an object's in S3. Kiln does not know whose a bucket is: callers'
// own policies decide.
type objectARN struct {
	object *lambda.S3Object
	caller lambda.AccountID
}

func (a objectARN) String() string          { return "arn:aws:s3:::" + a.object.Bucket + "/" + a.object.Key }
func (a objectARN) Owner() lambda.AccountID { return a.caller }
