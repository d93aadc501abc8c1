//go:build unix && !linux

package process

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"kiln/internal/sandbox"
)

// find returns the living processes of a sandbox: those whose environment shows
// its marker, which ps tells for processes of one's own user, those in a group
// that it started, and the children of both.
func find(ctx context.Context, id string, leaders []int) ([]int, error) {
	out, err := exec.CommandContext(ctx, "ps", "-axEww", "-o", "pid=,ppid=,pgid=,stat=,command=").Output()
	if err != nil {
		return nil, fmt.Errorf("ps: %w", err)
	}
	ours := map[int]bool{}
	parent := map[int]int{}
	for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
		var pid, ppid, pgid int
		var stat string
		if _, err := fmt.Sscan(s.Text(), &pid, &ppid, &pgid, &stat); err != nil || strings.HasPrefix(stat, "Z") {
			continue
		}
		parent[pid] = ppid
		if slices.Contains(leaders, pgid) || slices.Contains(strings.Fields(s.Text()), marker+"="+id) {
			ours[pid] = true
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

// memory reads resident sizes, which here include mapped files: ps tells no more.
func memory(ctx context.Context, pids []int) (u sandbox.Usage, err error) {
	if len(pids) == 0 {
		return u, nil
	}
	list := strings.Trim(strings.ReplaceAll(fmt.Sprint(pids), " ", ","), "[]")
	out, _ := exec.CommandContext(ctx, "ps", "-o", "rss=", "-p", list).Output() // fails when one of them is gone
	for f := range strings.FieldsSeq(string(out)) {
		var kb int64
		if _, err := fmt.Sscan(f, &kb); err == nil {
			u.CurrentBytes += kb << 10
		}
	}
	u.PeakBytes = u.CurrentBytes
	return u, nil
}

// limit does nothing: only the process itself could set its limits here.
func limit(int) {}

// keepDescriptors marks everything above standard error close-on-exec.
func keepDescriptors() {
	fds, _ := os.ReadDir("/dev/fd")
	for _, e := range fds {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd > 2 {
			syscall.CloseOnExec(fd)
		}
	}
}
