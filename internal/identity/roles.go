package identity

import (
	"kiln/internal/aws/policy"
	"kiln/internal/lambda"
)

// RolePolicies returns what the sessions of a role may do; ok is false where there
// is no such role. None can be made yet.
func (s *Store) RolePolicies(lambda.AccountID, string) (documents []policy.Document, ok bool) {
	return nil, false
}
