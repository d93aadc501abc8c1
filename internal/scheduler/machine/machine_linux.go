package machine

import (
	"os"
	"path"
	"path/filepath"
)

// Read reads the machine's memory now.
func Read() Memory { return read("/") }

// read is Read of a machine whose /proc and /sys are below a folder.
func read(root string) Memory {
	text := func(name string) string {
		b, _ := os.ReadFile(filepath.Join(root, name)) // what is not there says nothing
		return string(b)
	}
	m, ok := parseMeminfo(text("proc/meminfo"))
	if !ok {
		return Unknown
	}
	m.Stalled = parseStalled(text("proc/pressure/memory"))
	names := struct{ folder, limit, used, cache string }{"sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"}
	own, v2 := parseGroup(text("proc/self/cgroup"))
	if v2 {
		names.folder, names.limit, names.used, names.cache = "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"
	}
	if own == "" {
		return m
	}
	// A container often sees its group as the root; every group above has a say too.
	for dir := path.Clean("/" + own); ; dir = path.Dir(dir) {
		folder := names.folder + dir
		limit, limited := parseFigure(text(filepath.Join(folder, names.limit)))
		used, known := parseFigure(text(filepath.Join(folder, names.used)))
		if limited && known && limit < m.Total {
			m = m.within(group{limit, used, parseReclaimable(text(filepath.Join(folder, "memory.stat")), names.cache)})
			if v2 {
				m.Stalled = max(m.Stalled, parseStalled(text(filepath.Join(folder, "memory.pressure"))))
			}
		}
		if dir == "/" {
			return m
		}
	}
}
