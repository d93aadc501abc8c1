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
	first  int   // the first process
	own    []int // processes whose memory is not the function's; the first among them
	shared bool  // only shared memory is the function's, what is above base
	base   int64
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

// NewMeter returns a meter of that cgroup, which must be there already, and whose
// first process is not the function's.
func NewMeter(cg *Cgroup, first int) *Meter {
	m := &Meter{cg: cg, first: first, own: []int{first}, status: map[int]file{}, buffer: make([]byte, meterBuffer)}
	if dirs := cg.dirs(); len(dirs) > 0 {
		m.procs = open(filepath.Join(dirs[0], "cgroup.procs"))
	}
	if cg.memory != "" {
		m.stat = open(filepath.Join(cg.memory, "memory.stat"))
		m.peak = open(filepath.Join(cg.memory, cg.peakFile()))
	}
	return m
}

// NewSharedMeter returns a meter of a cgroup whose processes of now are not the
// function's, and in which only shared memory is, of later ones, of which several may
// be views of the same memory.
func NewSharedMeter(cg *Cgroup, first int) *Meter {
	m := NewMeter(cg, first)
	m.shared, m.own = true, append(m.pids(), first)
	m.base = m.current(m.stat.read(m.buffer))
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

// Read returns the memory of the function's processes. The peak is their own
// high-water marks; their sum may count shared pages twice, so it is bounded by the
// cgroup's mark, which has page cache on top.
func (m *Meter) Read() (u sandbox.Usage, err error) {
	m.processes(&u)
	if m.stat == 0 {
		return u, nil
	}
	stat := m.stat.read(m.buffer)
	if len(stat) == 0 {
		return u, fmt.Errorf("read memory.stat of %s: it is gone", m.cg.memory)
	}
	u.CurrentBytes = max(0, m.current(stat)-m.base)
	if bound := numbers(m.peak.read(m.buffer)); len(bound) > 0 {
		u.PeakBytes = min(u.PeakBytes, int64(bound[0]))
	}
	return u, nil
}

// current is what memory.stat tells of functions' memory.
func (m *Meter) current(stat []byte) int64 {
	switch {
	case !m.shared:
		return anonymous(stat, m.cg.v2)
	case m.cg.v2:
		return field(stat, "shmem")
	default:
		return field(stat, "total_shmem")
	}
}

func (m *Meter) pids() []int {
	if m.procs != 0 {
		return numbers(m.procs.read(m.buffer))
	}
	return descendants(m.first)
}

// processes adds what each of the function's processes says of itself. The file of
// one that is gone gives nothing, also when its id is another's now.
func (m *Meter) processes(u *sandbox.Usage) {
	pids := slices.DeleteFunc(m.pids(), func(pid int) bool { return slices.Contains(m.own, pid) })
	if m.shared {
		pids = distinct(pids)
	}
	for _, pid := range pids {
		status := m.status[pid].read(m.buffer)
		if len(status) == 0 {
			m.status[pid].close()
			m.status[pid] = open("/proc/" + strconv.Itoa(pid) + "/status")
			status = m.status[pid].read(m.buffer)
		}
		u.Add(status)
	}
	if len(m.status) == len(pids) {
		return
	}
	for pid, f := range m.status {
		if !slices.Contains(pids, pid) {
			f.close()
			delete(m.status, pid)
		}
	}
}

// distinct leaves one process of those that are the same memory.
func distinct(pids []int) (list []int) {
	const kcmpVM = 1
	for _, pid := range pids {
		if !slices.ContainsFunc(list, func(other int) bool {
			order, _, errno := unix.RawSyscall6(unix.SYS_KCMP, uintptr(pid), uintptr(other), kcmpVM, 0, 0, 0)
			return errno == 0 && order == 0
		}) {
			list = append(list, pid)
		}
	}
	return list
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
