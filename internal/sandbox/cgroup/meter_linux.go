package cgroup

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"kiln/internal/sandbox"
)

// Meter reads a sandbox's memory. It is read after every invocation, so it keeps
// the kernel's files open: opening them costs several times the reading. Methods
// are called by one goroutine at a time.
type Meter struct {
	cg     *Cgroup
	procs  file
	stat   file
	peak   file
	status map[int]file // by process
	buffer []byte
}

// file is a descriptor plus one; 0 is none.
type file int

// meterBuffer is more than any of the files is long, but for the list of
// processes, of which a sandbox has 1,024 at most.
const meterBuffer = 16 << 10

// NewMeter returns a meter of that cgroup, which must be there already.
func NewMeter(cg *Cgroup) *Meter {
	m := &Meter{cg: cg, status: map[int]file{}}
	if dirs := cg.dirs(); len(dirs) > 0 {
		m.procs = open(filepath.Join(dirs[0], "cgroup.procs"))
	}
	if cg.memory != "" {
		m.stat = open(filepath.Join(cg.memory, "memory.stat"))
		m.peak = open(filepath.Join(cg.memory, cg.peakFile()))
	}
	return m
}

// Close closes the files.
func (m *Meter) Close() {
	for _, f := range []file{m.procs, m.stat, m.peak} {
		f.close()
	}
	for _, f := range m.status {
		f.close()
	}
	m.procs, m.stat, m.peak, m.status = 0, 0, 0, nil
}

// Read returns the memory of the sandbox's processes, of which init is none. The
// peak is the processes' own high-water marks; their sum may count shared pages
// twice, so it is bounded by the cgroup's mark, which has page cache on top.
func (m *Meter) Read(init int) (u sandbox.Usage, err error) {
	if m.buffer == nil {
		m.buffer = make([]byte, meterBuffer)
	}
	var pids []int
	if m.procs != 0 {
		pids = numbers(m.procs.read(m.buffer))
	} else {
		pids = descendants(init)
	}
	m.processes(pids, init, &u)
	if m.stat == 0 {
		return u, nil
	}
	stat := m.stat.read(m.buffer)
	if len(stat) == 0 {
		return u, fmt.Errorf("read memory.stat of %s: it is gone", m.cg.memory)
	}
	u.CurrentBytes = anonymous(stat, m.cg.v2)
	if bound := numbers(m.peak.read(m.buffer)); len(bound) > 0 {
		u.PeakBytes = min(u.PeakBytes, int64(bound[0]))
	}
	return u, nil
}

// processes adds what each process but init says of itself. The file of a process
// that is gone gives nothing, also when its id is another's now.
func (m *Meter) processes(pids []int, init int, u *sandbox.Usage) {
	alive := 0
	for _, pid := range pids {
		if pid == init { // listed for its forking thread; its memory is not the function's
			continue
		}
		alive++
		status := m.status[pid].read(m.buffer)
		if len(status) == 0 {
			m.status[pid].close()
			m.status[pid] = open("/proc/" + strconv.Itoa(pid) + "/status")
			status = m.status[pid].read(m.buffer)
		}
		u.Add(status)
	}
	if len(m.status) == alive {
		return
	}
	for pid, f := range m.status {
		if !slices.Contains(pids, pid) {
			f.close()
			delete(m.status, pid)
		}
	}
}

func open(path string) file {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	return file(fd + 1)
}

// read returns the file's content as it is now, in buffer; nothing if it is gone.
func (f file) read(buffer []byte) []byte {
	if f == 0 {
		return nil
	}
	n, err := unix.Pread(int(f)-1, buffer, 0)
	if err != nil {
		return nil
	}
	return buffer[:n]
}

func (f file) close() {
	if f != 0 {
		_ = unix.Close(int(f) - 1) // it was only read
	}
}

// numbers are the whole numbers in text, between white space.
func numbers(text []byte) (list []int) {
	for field := range bytes.FieldsSeq(text) {
		if n, err := strconv.Atoi(string(field)); err == nil {
			list = append(list, n)
		}
	}
	return list
}

// descendants lists the processes below pid, from the children files of /proc.
func descendants(pid int) (list []int) {
	for next := []int{pid}; len(next) > 0; next = next[1:] {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", next[0]))
		for _, t := range tasks {
			b, _ := os.ReadFile(t)
			for _, f := range numbers(b) {
				list, next = append(list, f), append(next, f)
			}
		}
	}
	return list
}
