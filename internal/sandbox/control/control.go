// Package control is how the daemon and the first process of a sandbox speak: messages
// over a pair of sockets, with file descriptors that go along. The drivers that run on
// Linux use it; what the messages say is theirs.
package control
