package process

import (
	"bytes"
	"context"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"kiln/internal/sandbox"
)

// find returns the living processes of a sandbox: those that carry its marker,
// those in the session or group of a process that it started, and the children
// of both. A process that leaves all three is not found: this driver isolates nothing.
func find(ctx context.Context, id string, leaders []int) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	want := []byte(marker + "=" + id)
	ours := map[int]bool{}
	parent := map[int]int{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		st, ok := stat(pid)
		if !ok || st.state == 'Z' || st.state == 'X' {
			continue // a zombie holds nothing, and is its parent's to reap
		}
		parent[pid] = st.ppid
		if slices.Contains(leaders, st.session) || slices.Contains(leaders, st.pgrp) {
			ours[pid] = true
			continue
		}
		env, err := os.ReadFile("/proc/" + e.Name() + "/environ")
		if err != nil {
			continue
		}
		for v := range bytes.SplitSeq(env, []byte{0}) {
			if bytes.Equal(v, want) {
				ours[pid] = true
			}
		}
	}
	for again := true; again; {
		again = false
		for pid, pp := range parent {
			if ours[pp] && !ours[pid] {
				ours[pid], again = true, true
			}
		}
	}
	pids := make([]int, 0, len(ours))
	for pid := range ours {
		pids = append(pids, pid)
	}
	return pids, nil
}

type statFields struct {
	state               byte
	ppid, pgrp, session int
}

// stat reads /proc/<pid>/stat; the name in parentheses may hold anything.
func stat(pid int) (s statFields, ok bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return s, false
	}
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(f) < 4 {
		return s, false
	}
	s.state = f[0][0]
	for i, to := range []*int{&s.ppid, &s.pgrp, &s.session} {
		if *to, err = strconv.Atoi(string(f[i+1])); err != nil {
			return s, false
		}
	}
	return s, true
}

// memory reads what processes use now and at most.
func memory(_ context.Context, pids []int) (sandbox.Usage, error) {
	return sandbox.ProcessMemory(pids), nil
}

// limit sets AWS's limit of open files, as far as the kernel lets: for a
// process of another user it takes CAP_SYS_RESOURCE.
func limit(pid int) {
	_ = unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: openFiles, Max: openFiles}, nil)
	_ = unix.Prlimit(pid, unix.RLIMIT_CORE, &unix.Rlimit{}, nil)
}

// keepDescriptors marks everything above standard error close-on-exec.
func keepDescriptors() {
	_ = unix.CloseRange(3, 1<<32-1, unix.CLOSE_RANGE_CLOEXEC)
}
