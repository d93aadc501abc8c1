// Package seal starts a process that may do little: with a filter of its system calls,
// behind a lock on its files, born in its cgroup. Process 1 of the linux driver's sandboxes
// uses it.
package seal
