// Package load holds what Kiln does under many clients, hostile clients, hostile
// packages and hostile functions: tests with real daemons that look for mixed up
// answers, for figures that do not add up, and for what is left afterwards.
package load
