// Package machine reads how much memory the machine has for execution environments,
// and how short of it it is. Where Kiln runs in a control group with a limit, that is
// the machine. The scheduler asks it; the daemon asks it for the memory budget.
package machine

import (
	"math"
	"strconv"
	"strings"
)

// Memory is the state of the machine's memory, in bytes.
type Memory struct {
	Total     int64
	Available int64 // what can be had without swapping
	// Stalled is the share of the last ten seconds in which everything waited for
	// memory, from 0 to 1: the kernel's pressure stall information.
	Stalled float64
}

// Unknown is what is known where there is nothing to read: memory without end.
var Unknown = Memory{Total: math.MaxInt64, Available: math.MaxInt64}

// parseMeminfo reads /proc/meminfo.
func parseMeminfo(text string) (m Memory, ok bool) {
	found := 0
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(line, ":")
		var into *int64
		switch name {
		case "MemTotal":
			into = &m.Total
		case "MemAvailable":
			into = &m.Available
		default:
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err != nil || kib < 0 || kib > math.MaxInt64>>10 {
			return Unknown, false
		}
		*into = kib << 10
		found++
	}
	if found < 2 {
		return Unknown, false
	}
	return m, true
}

// parseStalled reads the file of pressure stall information about memory.
func parseStalled(text string) float64 {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, "full avg10="); ok {
			figure, _, _ := strings.Cut(rest, " ")
			percent, err := strconv.ParseFloat(figure, 64)
			if err != nil || !(percent >= 0 && percent <= 100) {
				return 0
			}
			return percent / 100
		}
	}
	return 0
}

// group is the memory of one control group, in bytes.
type group struct{ limit, used, reclaimable int64 }

// within is the memory of a machine that is such a group of another.
func (m Memory) within(g group) Memory {
	m.Total = min(m.Total, g.limit)
	m.Available = max(0, min(m.Available, g.limit-g.used+g.reclaimable))
	return m
}

// parseFigure reads a file with one number; "max" is none.
func parseFigure(text string) (int64, bool) {
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	return n, err == nil && n >= 0
}

// parseReclaimable reads the page cache that nothing has used lately from memory.stat.
func parseReclaimable(text, name string) int64 {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			n, _ := parseFigure(rest)
			return n
		}
	}
	return 0
}

// parseGroup finds the group of the memory controller in /proc/self/cgroup: its path,
// and whether that is in a hierarchy of version 2.
func parseGroup(text string) (path string, v2 bool) {
	for line := range strings.Lines(text) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		switch {
		case parts[0] == "0" && parts[1] == "":
			path, v2 = parts[2], true
		case hasController(parts[1]):
			return parts[2], false
		}
	}
	return path, v2
}

func hasController(list string) bool {
	for c := range strings.SplitSeq(list, ",") {
		if c == "memory" {
			return true
		}
	}
	return false
}
