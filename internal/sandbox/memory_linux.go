package sandbox

import (
	"bytes"
	"os"
	"strconv"
)

// ProcessMemory sums the memory of processes by the definition of Usage, as far
// as one look at each tells: current is what is resident of anonymous and shared
// memory, peak what was resident at most (the kernel's own high-water mark, so
// spikes between looks count) less the files mapped now. Processes that are gone count nothing.
func ProcessMemory(pids []int) Usage {
	var u Usage
	for _, pid := range pids {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
		if err != nil {
			continue
		}
		u.Add(b)
	}
	return u
}

// Add adds one process, by the content of its /proc/<pid>/status.
func (u *Usage) Add(processStatus []byte) {
	s := statusBytes(processStatus)
	u.CurrentBytes += s.anon + s.shmem
	u.PeakBytes += max(s.peak-s.file, s.anon+s.shmem)
}

type status struct{ peak, anon, file, shmem int64 }

// statusBytes reads the resident set sizes from /proc/<pid>/status.
func statusBytes(b []byte) (s status) {
	for line := range bytes.Lines(b) {
		name, rest, _ := bytes.Cut(line, []byte(":"))
		var to *int64
		switch string(name) {
		case "VmHWM":
			to = &s.peak
		case "RssAnon":
			to = &s.anon
		case "RssFile":
			to = &s.file
		case "RssShmem":
			to = &s.shmem
		default:
			continue
		}
		if f := bytes.Fields(rest); len(f) > 0 {
			kb, _ := strconv.ParseInt(string(f[0]), 10, 64)
			*to = kb << 10
		}
	}
	return s
}
