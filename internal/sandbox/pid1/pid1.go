// Package pid1 is what every first process of a sandbox does: it takes requests from the
// daemon, starts processes, signals them, tells of their ends, and gives up what neither it nor
// they need. The linux and gvisor drivers build theirs on it. It imports little, because
// such a process is started for each sandbox.
package pid1

// Name is what who looks at the machine's processes sees of such a process.
const Name = "kiln-sandbox"
