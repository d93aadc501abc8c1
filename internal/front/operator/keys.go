package operator

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"time"

	"kiln/internal/identity"
	"kiln/internal/lambda"
)

// Keys is what the door asks of the identity package.
type Keys interface {
	CreateKey(ctx context.Context, account lambda.AccountID, name, policy string) (k *identity.Key, secret string, err error)
	Keys(account lambda.AccountID) []*identity.Key
	RevokeKey(ctx context.Context, account lambda.AccountID, nameOrID string) (*identity.Key, error)
}

// Key is an access key as it looks outside.
type Key struct {
	ID      string          `json:"id"`
	Name    string          `json:"name"`
	Account string          `json:"account"`
	ARN     string          `json:"arn"`
	Created time.Time       `json:"created"`
	Policy  json.RawMessage `json:"policy,omitempty"` // none: everything in its account
	Secret  string          `json:"secret,omitempty"` // only in the answer that made it
	First   bool            `json:"first,omitempty"`  // it closed Kiln to everybody without a key
}

func keyOf(k *identity.Key) Key {
	return Key{ID: k.ID, Name: k.Name, Account: string(k.Account), ARN: k.ARN(), Created: k.Created, Policy: json.RawMessage(k.Policy)}
}

// KeyList is the answer to a request for the keys.
type KeyList struct {
	Keys []Key `json:"keys"`
}

// KeyOrder is the body of a request for a new key.
type KeyOrder struct {
	Name    string          `json:"name"`
	Account string          `json:"account,omitempty"` // the caller's own
	Policy  json.RawMessage `json:"policy,omitempty"`
}

// maxKeyOrder bounds the body of a request for a key, in bytes.
const maxKeyOrder = 64 << 10

// userARN is the holder of a key, as policies name it. A name may be *.
type userARN struct {
	lambda.Scope
	name string
}

func (a userARN) String() string { return identity.UserARN(a.Account, a.name) }

func (d *door) createKey(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxKeyOrder))
	if err != nil {
		d.refuse(w, r, lambda.InvalidParameter("the request's body cannot be read: %s", err))
		return
	}
	d.act(w, r, "CreateKey", true, body, func(c *call) (any, error) {
		var order KeyOrder
		if err := json.Unmarshal(body, &order); err != nil {
			return nil, lambda.InvalidParameter("the request's body is not as expected: %s", err)
		}
		account, err := c.account(order.Account)
		if err == nil {
			err = c.may(userARN{lambda.Scope{Account: account}, order.Name})
		}
		if err != nil {
			return nil, err
		}
		if err := c.leavesAWay(account, order); err != nil {
			return nil, err
		}
		first := !d.Access.Keyed()
		k, secret, err := d.Keys.CreateKey(r.Context(), account, order.Name, string(order.Policy))
		if err != nil {
			return nil, err
		}
		made := keyOf(k)
		made.Secret, made.First = secret, first
		return made, nil
	})
}

// leavesAWay refuses a first key after which nobody could make another.
func (c *call) leavesAWay(account lambda.AccountID, order KeyOrder) error {
	operator := c.door.Access.Operator()
	if c.door.Access.Keyed() || account == operator && order.Policy == nil {
		return nil
	}
	return lambda.InvalidParameter("The first key closes Kiln to everybody else, so it must be one that can make others: of account %s, and without a policy. Create that first, or configure access_key and secret_key_file.", operator)
}

// listKeys shows the caller's account's keys, and those of all to whoever runs Kiln.
func (d *door) listKeys(w http.ResponseWriter, r *http.Request) {
	d.act(w, r, "ListKeys", false, nil, func(c *call) (any, error) {
		account, err := c.account(r.URL.Query().Get("account"))
		if err == nil {
			err = c.may(userARN{lambda.Scope{Account: account}, "*"})
		}
		if err != nil {
			return nil, err
		}
		if r.URL.Query().Get("account") == "" && c.operates() {
			account = ""
		}
		list := KeyList{Keys: []Key{}}
		for _, k := range d.Keys.Keys(account) {
			list.Keys = append(list.Keys, keyOf(k))
		}
		return list, nil
	})
}

func (d *door) revokeKey(w http.ResponseWriter, r *http.Request) {
	d.act(w, r, "RevokeKey", true, nil, func(c *call) (any, error) {
		account, err := c.account(r.URL.Query().Get("account"))
		if err != nil {
			return nil, err
		}
		name := r.PathValue("key")
		for _, k := range d.Keys.Keys(account) {
			if k.ID == name {
				name = k.Name // policies name a key's holder
			}
		}
		if err := c.may(userARN{lambda.Scope{Account: account}, name}); err != nil {
			return nil, err
		}
		k, err := d.Keys.RevokeKey(r.Context(), account, name)
		if err != nil {
			return nil, err
		}
		return keyOf(k), nil
	})
}

// account is the one that a request is about: the caller's own, unless it names
// another.
func (c *call) account(named string) (lambda.AccountID, error) {
	if named == "" {
		return c.caller.Scope.Account, nil
	}
	if !validAccount(named) {
		return "", lambda.InvalidParameter("%q is not an account: use twelve digits, such as 123456789012", named)
	}
	return lambda.AccountID(named), nil
}

func validAccount(s string) bool {
	if len(s) != 12 {
		return false
	}
	for _, c := range s {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}
