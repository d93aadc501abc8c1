// Package conformance holds the tests that drive a real Kiln with the clients
// that people use (the AWS CLI, boto3, the SDKs for Go and JavaScript, a browser
// that must not get in) and compare what they see with what AWS would show them.
package conformance
