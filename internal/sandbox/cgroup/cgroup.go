// Package cgroup limits, measures, freezes and ends the processes of a sandbox, with
// the kernel's control groups of version 1 or 2, whichever the machine has. The
// drivers that run on Linux use it; it knows nothing of what runs in a cgroup.
package cgroup
