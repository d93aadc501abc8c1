// Package logsapi is the wire of the Amazon CloudWatch Logs API, generated from
// AWS's model for the operations that Kiln serves: their types, how requests are
// read and checked. Handler puts it together as an http.Handler in front of a
// Service. The protocol is AWS's JSON 1.1: one path, and a header that names the
// operation.
//
// It does nothing that an operation means. The logs door uses it.
package logsapi
