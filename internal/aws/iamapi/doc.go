// Package iamapi is the wire of the AWS IAM API, generated from AWS's model for the
// operations that Kiln serves: their types and how requests are checked. Package
// query reads and answers them.
//
// It does nothing that an operation means. The iam door uses it.
package iamapi
