package seal

import (
	"slices"

	"golang.org/x/sys/unix"
)

// The filter of system calls is a list of what may be called, modelled on what
// containers usually have (github.com/moby/profiles), less what no function
// needs. What is refused answers EPERM. What is refused and younger than Linux
// 5.1 answers ENOSYS, which is what programs that want such a call have to expect,
// and do without it: so does the C library without clone3.
//
// A filter sees numbers, not what pointers lead to. Arguments are compared in
// their low 32 bits, because that is all that the kernel takes of them.

// firstYoung is the first number that all machines have in common.
const firstYoung = unix.SYS_PIDFD_SEND_SIGNAL

// allowed are the calls that need no look at their arguments; others may be
// called on amd64 alone (filter_linux_amd64.go).
var allowed = []uint32{
	// Files.
	unix.SYS_CHDIR, unix.SYS_CLOSE, unix.SYS_CLOSE_RANGE, unix.SYS_COPY_FILE_RANGE, unix.SYS_DUP, unix.SYS_DUP3,
	unix.SYS_FACCESSAT, unix.SYS_FACCESSAT2, unix.SYS_FADVISE64, unix.SYS_FALLOCATE, unix.SYS_FCHDIR, unix.SYS_FCHMOD,
	unix.SYS_FCHMODAT, unix.SYS_FCHMODAT2, unix.SYS_FCHOWN, unix.SYS_FCHOWNAT, unix.SYS_FCNTL, unix.SYS_FDATASYNC,
	unix.SYS_FGETXATTR, unix.SYS_FLISTXATTR, unix.SYS_FLOCK, unix.SYS_FREMOVEXATTR, unix.SYS_FSETXATTR, unix.SYS_FSTAT,
	unix.SYS_FSTATFS, unix.SYS_FSYNC, unix.SYS_FTRUNCATE, unix.SYS_GETCWD, unix.SYS_GETDENTS64, unix.SYS_GETXATTR,
	unix.SYS_INOTIFY_ADD_WATCH, unix.SYS_INOTIFY_INIT1, unix.SYS_INOTIFY_RM_WATCH, unix.SYS_LGETXATTR, unix.SYS_LINKAT,
	unix.SYS_LISTXATTR, unix.SYS_LLISTXATTR, unix.SYS_LREMOVEXATTR, unix.SYS_LSEEK, unix.SYS_LSETXATTR, unix.SYS_MKDIRAT,
	unix.SYS_OPENAT, unix.SYS_OPENAT2, unix.SYS_PREAD64, unix.SYS_PREADV, unix.SYS_PREADV2, unix.SYS_PWRITE64,
	unix.SYS_PWRITEV, unix.SYS_PWRITEV2, unix.SYS_READ, unix.SYS_READAHEAD, unix.SYS_READLINKAT, unix.SYS_READV,
	unix.SYS_REMOVEXATTR, unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2, unix.SYS_SENDFILE, unix.SYS_SETXATTR, unix.SYS_SPLICE,
	unix.SYS_STATFS, unix.SYS_STATX, unix.SYS_SYMLINKAT, unix.SYS_SYNC_FILE_RANGE, unix.SYS_TEE, unix.SYS_TRUNCATE,
	unix.SYS_UMASK, unix.SYS_UNLINKAT, unix.SYS_UTIMENSAT, unix.SYS_WRITE, unix.SYS_WRITEV,
	unix.SYS_IO_CANCEL, unix.SYS_IO_DESTROY, unix.SYS_IO_GETEVENTS, unix.SYS_IO_PGETEVENTS, unix.SYS_IO_SETUP, unix.SYS_IO_SUBMIT,
	// Waiting for events and time.
	unix.SYS_CLOCK_GETRES, unix.SYS_CLOCK_GETTIME, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_EPOLL_CREATE1, unix.SYS_EPOLL_CTL,
	unix.SYS_EPOLL_PWAIT, unix.SYS_EPOLL_PWAIT2, unix.SYS_EVENTFD2, unix.SYS_GETITIMER, unix.SYS_GETTIMEOFDAY, unix.SYS_NANOSLEEP,
	unix.SYS_PPOLL, unix.SYS_PSELECT6, unix.SYS_RESTART_SYSCALL, unix.SYS_SETITIMER, unix.SYS_SIGNALFD4, unix.SYS_TIMER_CREATE,
	unix.SYS_TIMER_DELETE, unix.SYS_TIMER_GETOVERRUN, unix.SYS_TIMER_GETTIME, unix.SYS_TIMER_SETTIME, unix.SYS_TIMERFD_CREATE,
	unix.SYS_TIMERFD_GETTIME, unix.SYS_TIMERFD_SETTIME, unix.SYS_TIMES,
	// Memory.
	unix.SYS_BRK, unix.SYS_MADVISE, unix.SYS_MEMBARRIER, unix.SYS_MEMFD_CREATE, unix.SYS_MINCORE, unix.SYS_MLOCK,
	unix.SYS_MLOCK2, unix.SYS_MLOCKALL, unix.SYS_MMAP, unix.SYS_MPROTECT, unix.SYS_MREMAP, unix.SYS_MSEAL, unix.SYS_MSYNC,
	unix.SYS_MUNLOCK, unix.SYS_MUNLOCKALL, unix.SYS_MUNMAP, unix.SYS_PKEY_ALLOC, unix.SYS_PKEY_FREE, unix.SYS_PKEY_MPROTECT,
	// Processes, threads and signals.
	unix.SYS_EXECVE, unix.SYS_EXECVEAT, unix.SYS_EXIT, unix.SYS_EXIT_GROUP, unix.SYS_FUTEX, unix.SYS_FUTEX_REQUEUE,
	unix.SYS_FUTEX_WAIT, unix.SYS_FUTEX_WAITV, unix.SYS_FUTEX_WAKE, unix.SYS_GET_ROBUST_LIST, unix.SYS_GETCPU, unix.SYS_GETPGID,
	unix.SYS_GETPID, unix.SYS_GETPPID, unix.SYS_GETPRIORITY, unix.SYS_GETRLIMIT, unix.SYS_GETRUSAGE, unix.SYS_GETSID,
	unix.SYS_GETTID, unix.SYS_IOPRIO_GET, unix.SYS_IOPRIO_SET, unix.SYS_KILL, unix.SYS_PIDFD_OPEN, unix.SYS_PIDFD_SEND_SIGNAL,
	unix.SYS_PRLIMIT64, unix.SYS_RSEQ, unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPENDING, unix.SYS_RT_SIGPROCMASK,
	unix.SYS_RT_SIGQUEUEINFO, unix.SYS_RT_SIGRETURN, unix.SYS_RT_SIGSUSPEND, unix.SYS_RT_SIGTIMEDWAIT, unix.SYS_RT_TGSIGQUEUEINFO,
	unix.SYS_SCHED_GET_PRIORITY_MAX, unix.SYS_SCHED_GET_PRIORITY_MIN, unix.SYS_SCHED_GETAFFINITY, unix.SYS_SCHED_GETATTR,
	unix.SYS_SCHED_GETPARAM, unix.SYS_SCHED_GETSCHEDULER, unix.SYS_SCHED_RR_GET_INTERVAL, unix.SYS_SCHED_SETAFFINITY,
	unix.SYS_SCHED_SETATTR, unix.SYS_SCHED_SETPARAM, unix.SYS_SCHED_SETSCHEDULER, unix.SYS_SCHED_YIELD, unix.SYS_SET_ROBUST_LIST,
	unix.SYS_SET_TID_ADDRESS, unix.SYS_SETPGID, unix.SYS_SETPRIORITY, unix.SYS_SETRLIMIT, unix.SYS_SETSID, unix.SYS_SIGALTSTACK,
	unix.SYS_TGKILL, unix.SYS_TKILL, unix.SYS_WAIT4, unix.SYS_WAITID,
	// Users: there is one, but programs ask, and change to what they are.
	unix.SYS_CAPGET, unix.SYS_CAPSET, unix.SYS_GETEGID, unix.SYS_GETEUID, unix.SYS_GETGID, unix.SYS_GETGROUPS,
	unix.SYS_GETRESGID, unix.SYS_GETRESUID, unix.SYS_GETUID, unix.SYS_SETFSGID, unix.SYS_SETFSUID, unix.SYS_SETGID,
	unix.SYS_SETGROUPS, unix.SYS_SETREGID, unix.SYS_SETRESGID, unix.SYS_SETRESUID, unix.SYS_SETREUID, unix.SYS_SETUID,
	// The network, and what processes share.
	unix.SYS_ACCEPT, unix.SYS_ACCEPT4, unix.SYS_BIND, unix.SYS_CONNECT, unix.SYS_GETPEERNAME, unix.SYS_GETSOCKNAME,
	unix.SYS_GETSOCKOPT, unix.SYS_LISTEN, unix.SYS_PIPE2, unix.SYS_RECVFROM, unix.SYS_RECVMMSG, unix.SYS_RECVMSG,
	unix.SYS_SENDMMSG, unix.SYS_SENDMSG, unix.SYS_SENDTO, unix.SYS_SETSOCKOPT, unix.SYS_SHUTDOWN,
	unix.SYS_MQ_GETSETATTR, unix.SYS_MQ_NOTIFY, unix.SYS_MQ_OPEN, unix.SYS_MQ_TIMEDRECEIVE, unix.SYS_MQ_TIMEDSEND, unix.SYS_MQ_UNLINK,
	unix.SYS_MSGCTL, unix.SYS_MSGGET, unix.SYS_MSGRCV, unix.SYS_MSGSND, unix.SYS_SEMCTL, unix.SYS_SEMGET, unix.SYS_SEMOP,
	unix.SYS_SEMTIMEDOP, unix.SYS_SHMAT, unix.SYS_SHMCTL, unix.SYS_SHMDT, unix.SYS_SHMGET,
	// The machine, and giving up more.
	unix.SYS_GETRANDOM, unix.SYS_LANDLOCK_ADD_RULE, unix.SYS_LANDLOCK_CREATE_RULESET, unix.SYS_LANDLOCK_RESTRICT_SELF,
	unix.SYS_SECCOMP, unix.SYS_SYSINFO, unix.SYS_UNAME,
}

// rules are the calls whose answer depends on their arguments.
func rules() []segment {
	const (
		namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER |
			unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWCGROUP
		askPersonality  = 0xffffffff
		setMM           = 35 // PR_SET_MM: what /proc says of the process
		setUserDispatch = 59 // PR_SET_SYSCALL_USER_DISPATCH
		shareCore       = 62 // PR_SCHED_CORE
	)
	noSuchFamily, noSuchProtocol, nothing := errno(unix.EAFNOSUPPORT), errno(unix.EPROTONOSUPPORT), errno(0)
	return []segment{
		{unix.SYS_CLONE, []unix.SockFilter{load(0), {Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, Jt: 0, Jf: 1, K: namespaces}, refuse, allow}},
		// Kinds of network that no function uses are parts of the kernel that
		// nobody has looked at for long, and loads for whoever asks.
		{unix.SYS_SOCKET, slices.Concat(
			[]unix.SockFilter{load(0)},
			when(unix.AF_UNIX, allow),
			when(unix.AF_NETLINK, load(2), jump(unix.NETLINK_ROUTE, 0, 1), allow, noSuchProtocol),
			[]unix.SockFilter{jump(unix.AF_INET, 2, 0), jump(unix.AF_INET6, 1, 0), noSuchFamily, load(2)},
			when(0, allow), when(unix.IPPROTO_TCP, allow), when(unix.IPPROTO_UDP, allow),
			when(unix.IPPROTO_ICMP, allow), when(unix.IPPROTO_ICMPV6, allow),
			[]unix.SockFilter{noSuchProtocol},
		)},
		{unix.SYS_SOCKETPAIR, slices.Concat([]unix.SockFilter{load(0)}, when(unix.AF_UNIX, allow), []unix.SockFilter{noSuchFamily})},
		{unix.SYS_IOCTL, slices.Concat([]unix.SockFilter{load(1)},
			when(unix.TIOCSTI, refuse), when(unix.TIOCLINUX, refuse), when(unix.TIOCSETD, refuse), []unix.SockFilter{allow})},
		{unix.SYS_PRCTL, slices.Concat([]unix.SockFilter{load(0)},
			when(setMM, refuse), when(setUserDispatch, refuse), when(shareCore, refuse), []unix.SockFilter{allow})},
		{unix.SYS_PERSONALITY, slices.Concat([]unix.SockFilter{load(0)}, when(0, allow), when(askPersonality, allow), []unix.SockFilter{refuse})},
		{unix.SYS_MKNODAT, noDevice(2)},
		// Every file system of the machine would be written out.
		{unix.SYS_SYNC, []unix.SockFilter{nothing}},
		{unix.SYS_SYNCFS, []unix.SockFilter{nothing}},
	}
}

// noDevice refuses the modes of devices, of both kinds.
func noDevice(mode uint32) []unix.SockFilter {
	const common = unix.S_IFMT &^ (unix.S_IFBLK ^ unix.S_IFCHR)
	return []unix.SockFilter{load(mode), and(common), jump(unix.S_IFCHR, 0, 1), refuse, allow}
}

var (
	allow  = answer32(unix.SECCOMP_RET_ALLOW)
	kill   = answer32(unix.SECCOMP_RET_KILL_PROCESS)
	refuse = errno(unix.EPERM)
	absent = errno(unix.ENOSYS)
)

func answer32(k uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k}
}

func errno(e unix.Errno) unix.SockFilter { return answer32(unix.SECCOMP_RET_ERRNO | uint32(e)) }

// Offsets in struct seccomp_data, on machines that store the low half first.
const (
	numberAt   = 0
	machineAt  = 4
	argumentAt = 16
)

func loadAt(offset uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
}

// load takes the low half of an argument.
func load(argument uint32) unix.SockFilter { return loadAt(argumentAt + 8*argument) }

func and(mask uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: mask}
}

// jump skips so many instructions, by whether what was loaded is value.
func jump(value uint32, same, other uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: same, Jf: other, K: value}
}

// when does then if what was loaded is value; then ends with an answer.
func when(value uint32, then ...unix.SockFilter) []unix.SockFilter {
	return append([]unix.SockFilter{jump(value, 0, uint8(len(then)))}, then...)
}

// Filters reports whether the kernel has filters of system calls.
func Filters() bool {
	return unix.Prctl(unix.PR_GET_SECCOMP, 0, 0, 0, 0) == nil
}

// callNumbers is how many there are, and some more; above there are those of x32,
// which have a high bit set.
const callNumbers = 512

// NewFilter assembles the filter: a binary search in segments of numbers.
func NewFilter() *unix.SockFprog {
	var codes [callNumbers][]unix.SockFilter
	old, young, yes := []unix.SockFilter{refuse}, []unix.SockFilter{absent}, []unix.SockFilter{allow}
	for n := range codes {
		codes[n] = old
		if n >= firstYoung {
			codes[n] = young
		}
	}
	for _, list := range [][]uint32{allowed, otherAllowed} {
		for _, n := range list {
			codes[n] = yes
		}
	}
	for _, r := range append(rules(), otherRules()...) {
		codes[r.from] = r.code
	}
	list := make([]segment, 0, callNumbers)
	for n, code := range codes {
		if n == 0 || !slices.Equal(list[len(list)-1].code, code) {
			list = append(list, segment{uint32(n), code})
		}
	}
	program := make([]unix.SockFilter, 0, callNumbers)
	program = search(append(program, loadAt(machineAt), jump(machine, 1, 0), kill, loadAt(numberAt)), list)
	return &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
}

// segment is what happens to a number and those above, up to the next segment's.
type segment struct {
	from uint32
	code []unix.SockFilter
}

// search appends to a program what finds the segment of the loaded number.
func search(program []unix.SockFilter, s []segment) []unix.SockFilter {
	if len(s) == 1 {
		return append(program, s[0].code...)
	}
	half := len(s) / 2
	at := len(program)
	// A condition skips 255 instructions at most, which half of them may exceed.
	program = append(program,
		unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, Jf: 1, K: s[half].from},
		unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA})
	program = search(program, s[:half])
	program[at+1].K = uint32(len(program) - at - 2)
	return search(program, s[half:])
}
