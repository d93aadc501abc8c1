// Package lambda is Kiln's vocabulary: functions, invocations, names, limits and
// errors as AWS Lambda defines them. It holds no behaviour beyond parsing and
// printing, imports the standard library only, and is used by every other package.
package lambda

import (
	"crypto/rand"
	"encoding/hex"
	"strconv"
)

// AccountID is the twelve digits of an AWS account; the account is Kiln's tenant.
type AccountID string

// Region is an AWS region, such as us-east-1.
type Region string

// Scope is where a resource lives. Every key, pool, cgroup, metric and log path
// begins with it.
type Scope struct {
	Account AccountID
	Region  Region
}

func (s Scope) String() string { return string(s.Account) + "/" + string(s.Region) }

// Owner is the account that a resource of the scope belongs to.
func (s Scope) Owner() AccountID { return s.Account }

// DefaultAccount is the account of a Kiln that was given none.
const DefaultAccount AccountID = "000000000000"

// DefaultRegion is the region of a request that names none.
const DefaultRegion Region = "us-east-1"

// FunctionName is the bare name of a function: 1–64 of [a-zA-Z0-9-_].
type FunctionName string

// Qualifier picks a version of a function: "" (unqualified), $LATEST, a number
// or an alias.
type Qualifier string

// Latest is the one mutable version.
const Latest Qualifier = "$LATEST"

// Number is the version that the qualifier means, or 0 where it means none by its number.
func (q Qualifier) Number() int64 {
	n, err := strconv.ParseInt(string(q), 10, 64)
	if err != nil || n < 1 || NumberedVersion(n) != q { // 007 is none
		return 0
	}
	return n
}

// NumberedVersion is the qualifier of a published version.
func NumberedVersion(n int64) Qualifier { return Qualifier(strconv.FormatInt(n, 10)) }

// RequestID identifies one invocation over all its attempts: a UUID.
type RequestID string

// NewRequestID returns a random request id.
func NewRequestID() RequestID { return RequestID(NewUUID()) }

// RevisionID changes with every change of a function; clients use it for
// optimistic concurrency.
type RevisionID string

// NewRevisionID returns a random revision id.
func NewRevisionID() RevisionID { return RevisionID(NewUUID()) }

// NewUUID returns a random (version 4) UUID in its usual form.
func NewUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand aborts the program instead
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	var out [36]byte
	hex.Encode(out[0:8], b[0:4])
	hex.Encode(out[9:13], b[4:6])
	hex.Encode(out[14:18], b[6:8])
	hex.Encode(out[19:23], b[8:10])
	hex.Encode(out[24:36], b[10:16])
	out[8], out[13], out[18], out[23] = '-', '-', '-', '-'
	return string(out[:])
}
