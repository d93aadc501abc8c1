// Package handlers holds the tests of what a handler experiences and what its
// caller and its log see of it, in each language, through a real Kiln.
package handlers
