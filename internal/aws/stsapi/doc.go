// Package stsapi is the wire of AWS STS, generated from AWS's model for the
// operations that Kiln serves: their types and how requests are checked. Package
// query reads and answers them.
//
// It does nothing that an operation means. The sts door uses it.
package stsapi
