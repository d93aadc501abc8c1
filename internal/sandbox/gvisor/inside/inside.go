// Package inside is the first processes of the gvisor driver's sandboxes: one around
// gVisor, which starts it, and one in it, which starts the function's processes.
package inside

// The first arguments of a program that is to call Init before all else.
const (
	OuterArg = "gvisor-outer" // the first process around gVisor
	InnerArg = "gvisor-inner" // the first process in gVisor
)

// What is set in the environment of the processes that they name.
const (
	OuterMark = "KILN_GVISOR_OUTER"
	InnerMark = "KILN_GVISOR_INNER"
)

// Networks of a gVisor, in runsc's words.
const (
	NoNetwork   = "none"    // a loopback interface in gVisor's own stack
	OwnNetwork  = "sandbox" // that stack with the interfaces of the namespace, which it takes over
	HostNetwork = "host"    // the host's sockets
)

// AssignedDir is a folder in the root that nothing looks into before a function's code is there.
const AssignedDir = "/mnt"
