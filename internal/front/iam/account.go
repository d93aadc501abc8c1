package iam

import (
	"context"
	"net/http"

	"kiln/internal/aws/iamapi"
	"kiln/internal/aws/wire"
	"kiln/internal/identity"
	"kiln/internal/lambda"
)

// ListAccountAliases shows that there are none.
func (c *call) ListAccountAliases(context.Context, *iamapi.ListAccountAliasesInput) (*iamapi.ListAccountAliasesOutput, error) {
	if err := c.may(lambda.Anything{Scope: c.caller.Scope}, nil); err != nil {
		return nil, err
	}
	return &iamapi.ListAccountAliasesOutput{AccountAliases: []string{}, IsTruncated: new(false)}, nil
}

// userARN is that of the holder of an access key.
type userARN struct {
	account lambda.AccountID
	name    string
}

func (a userARN) Owner() lambda.AccountID { return a.account }
func (a userARN) String() string          { return identity.UserARN(a.account, a.name) }

// GetUser shows the holder of an access key: whoever asks, unless there is a name.
func (c *call) GetUser(_ context.Context, in *iamapi.GetUserInput) (*iamapi.GetUserOutput, error) {
	who := c.caller.Principal
	if in.UserName == nil && who.Role != "" {
		return nil, invalid("ValidationError", "Must specify userName when calling with non-User credentials")
	}
	if in.UserName == nil && who.ARN == lambda.RootARN(c.account) {
		return &iamapi.GetUserOutput{User: &iamapi.User{Path: new("/"), UserId: new(string(c.account)), Arn: &who.ARN}}, nil
	}
	key := c.store.Key(c.account, who.AccessKey)
	name := wire.Value(in.UserName)
	if in.UserName != nil {
		key = c.store.Key(c.account, name)
	} else if key != nil {
		name = key.Name
	}
	if err := c.may(userARN{c.account, name}, nil); err != nil {
		return nil, err
	}
	if key == nil || key.Name != name {
		return nil, &wire.Fault{Code: "NoSuchEntity", Status: http.StatusNotFound, Message: "The user with name " + name + " cannot be found."}
	}
	credential, _ := c.store.Credential(key.ID)
	return &iamapi.GetUserOutput{User: &iamapi.User{Path: new("/"), UserName: &key.Name, UserId: &credential.Principal.UserID, Arn: new(key.ARN()), CreateDate: &key.Created}}, nil
}
