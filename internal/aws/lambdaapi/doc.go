// Package lambdaapi is the wire of the AWS Lambda API, generated from AWS's
// model: the types of all 85 operations, their routes, how requests are read and
// checked, how answers and errors are written. Handler puts it together as an
// http.Handler in front of a Service.
//
// It does nothing that an operation means, and knows neither accounts nor keys.
// The Lambda API door uses it; tests use it to fake that door.
package lambdaapi

//go:generate go run kiln/internal/aws/generate
