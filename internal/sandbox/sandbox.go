// Package sandbox is the contract of the places where functions run: a Driver
// makes Sandboxes, a Sandbox listens, dials, runs processes, reports its memory and is
// destroyed. Its drivers live in its folders (linux, process) and pass one
// conformance suite (sandboxtest). It knows nothing of Lambda: the environment
// package joins a sandbox to a runtime API.
package sandbox

import (
	"context"
	"net"
	"os"
	"syscall"

	"kiln/internal/sandbox/pid1"
)

// DirError is what Exec says of a working directory that is none.
type DirError = pid1.DirError

// Driver makes sandboxes. All methods are safe for concurrent use.
type Driver interface {
	// Name is the driver's configured name: linux, process.
	Name() string
	// Describe says what the driver keeps apart on this machine, for the start
	// message, `kiln doctor` and health.
	Describe() Description
	// Create makes a sandbox in which nothing runs yet. On error nothing is left behind.
	Create(ctx context.Context, spec Spec) (Sandbox, error)
	// Sweep removes whatever sandboxes of an earlier, killed daemon left under
	// the driver's directory: processes, mounts, cgroups, directories. It is
	// called once, before the first Create.
	Sweep(ctx context.Context) error
	// Close destroys every sandbox that is left. Create fails afterwards.
	Close() error
}

// Exposer is an optional capability of a Driver whose processes enter folders of
// the host as other users: Expose lets those through the folders, without showing
// what is in them.
type Exposer interface {
	Expose(folders ...string) error
}

// Waiter is an optional capability of a Driver that begins sandboxes ahead of time:
// Waiting is how many have been begun and are nobody's.
type Waiter interface {
	Waiting() int
}

// Rooter is an optional capability of a Driver: the root file system of its
// sandboxes may be an image's (Spec.Root). MountPoints are the paths that must
// exist in such a root, folders with a slash at their end: the root is shared and
// read-only, so that the driver cannot make them.
type Rooter interface {
	MountPoints() []string
}

// Preparer is an optional capability of a Driver: a sandbox is made, and programs of
// ours are started in it, before it is known for which function.
type Preparer interface {
	// PreparedPaths are those of every sandbox that Prepare makes.
	PreparedPaths() Paths
	// Prepare makes a sandbox whose Task and Opt are empty folders and whose
	// memory has no limit; the spec names no Task, Opt or Root. It fails with
	// errors.ErrUnsupported where this machine does not allow it.
	Prepare(ctx context.Context, spec Spec) (Prepared, error)
}

// Prepared is a Sandbox that is nobody's until Assign.
type Prepared interface {
	Sandbox
	// Assign mounts the spec's Task and Opt and bounds memory; the rest of the
	// spec is as Prepare had it. Processes inside see the mounts at once, but in a working directory that lies below one only once
	// they have entered it anew. It is called once, before any code of a
	// function runs inside; after an error only Destroy may follow.
	Assign(ctx context.Context, spec Spec) error
}

// Description is what a driver says of itself.
type Description struct {
	Isolates  bool     // false: functions can see and disturb each other and the host
	OwnKernel bool     // no function's system call is the host's
	BoundsTmp bool     // whether Spec.TmpBytes is enforced
	Summary   string   // one sentence for people
	Missing   []string // what this machine lacks, each with what would give it
}

// Spec is what a sandbox is made from. Paths are the host's and must exist; they
// appear read-only inside, at the places that Sandbox.Paths tells.
type Spec struct {
	ID      string // unique among living sandboxes; [a-z0-9-]
	Group   string // account/region/function: where its cgroup and its directory are kept
	Root    string // the root file system, which must have the driver's MountPoints; "": one with the host's programs
	Task    string // the function's code; "" only where a Root has it
	Opt     string // merged layers; "" for none
	Runtime string // the runtime client; "" for none
	Lang    string // the interpreter's prefix, when it is outside /usr; "" for none

	Network Network // what it reaches; a driver that cannot keep it from the network reaches all

	MemoryBytes int64 // limit on anonymous and shared memory; 0 for none
	TmpBytes    int64 // size of the scratch directory
	MilliCPU    int64 // its part of the processors' time where others want it too, in thousandths of one; 0 for an even part
}

// Paths are where things are for the processes inside.
type Paths struct {
	Task, Opt, Runtime, Lang, Tmp string
	// Env are variables that the driver's way of isolating needs, such as a
	// private HOME; they come before all others.
	Env []string
}

// Sandbox is one sealed place. Methods are safe for concurrent use; after
// Destroy they fail.
type Sandbox interface {
	Paths() Paths
	// Listen opens a TCP listener on 127.0.0.1:port as seen from inside. Where
	// the sandbox shares the host's network, another free port is taken: read
	// it from the listener's address.
	Listen(ctx context.Context, port int) (net.Listener, error)
	// Dial connects to 127.0.0.1:port as seen from inside, where a process
	// listens. It waits until ctx ends for one that does not accept.
	Dial(ctx context.Context, port int) (net.Conn, error)
	// Exec starts a process in a process group of its own. It may be called
	// several times; each process has its own output.
	Exec(ctx context.Context, cmd Command) (Process, error)
	// KillAll kills every process inside, those that escaped their group
	// included, and returns once they are gone. Scratch files and listeners stay,
	// and Exec works again.
	KillAll(ctx context.Context) error
	// Usage reads the sandbox's memory now.
	Usage(ctx context.Context) (Usage, error)
	// Destroy kills every process and removes everything but the logs written
	// so far. It is idempotent, and returns once nothing is left.
	Destroy(ctx context.Context) error
}

// Freezer is an optional capability of a Sandbox: its processes get no CPU
// between Freeze and Thaw.
type Freezer interface {
	Freeze(ctx context.Context) error
	Thaw(ctx context.Context) error
}

// Limiter is an optional capability of a Sandbox: from LimitCPU on, its processes
// get no more of the processors' time than Spec.MilliCPU, even where nobody else
// wants it. errors.ErrUnsupported says that this machine cannot.
type Limiter interface {
	LimitCPU() error
}

// Command is a process to start.
type Command struct {
	Path string   // of the executable, as seen inside; without a slash, a name to look for on Env's PATH
	Args []string // argv, from argv[0]
	Env  []string // the whole environment but Paths.Env
	Dir  string   // working directory, as seen inside
	// Stdout and Stderr become descriptors 1 and 2; Telemetry, if not nil,
	// becomes descriptor 3. Standard input is empty. The caller keeps its copies and may close
	// them once Exec returned.
	Stdout, Stderr, Telemetry *os.File
}

// Process is one started process.
type Process interface {
	// Done is closed when the process is gone and Exit may be read.
	Done() <-chan struct{}
	// Exit says how it ended; valid after Done.
	Exit() Exit
	// Signal sends to the whole process group. Signalling a process that is gone is no error.
	Signal(sig syscall.Signal) error
}

// Exit is how a process ended.
type Exit struct {
	Code   int            // exit status, when Signal is 0
	Signal syscall.Signal // the signal that killed it, or 0
	OOM    bool           // the memory limit killed it, or another process of the sandbox
}

// Usage is a sandbox's memory by one definition in every driver: anonymous plus
// shared memory, without page cache, which AWS does not charge either.
type Usage struct {
	CurrentBytes int64
	PeakBytes    int64 // the highest since the sandbox was created, spikes between readings included as far as the kernel tells
}
