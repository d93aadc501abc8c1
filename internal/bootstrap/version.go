package bootstrap

import (
	"slices"
	"strconv"
	"strings"
)

// version is the leading numbers of a version: 3.13.0rc2 is 3, 13, 0.
type version []int

func parseVersion(s string) (v version) {
	for part := range strings.SplitSeq(strings.TrimPrefix(s, "v"), ".") {
		end := 0
		for end < len(part) && '0' <= part[end] && part[end] <= '9' {
			end++
		}
		n, err := strconv.Atoi(part[:end])
		if err != nil {
			break
		}
		v = append(v, n)
		if end < len(part) {
			break
		}
	}
	return v
}

// branch is the first n numbers, what an identifier names: 3.13 of 3.13.1.
func (v version) branch(n int) version { return v[:min(n, len(v))] }

func (v version) compare(w version) int { return slices.Compare(v, w) }

func (v version) String() string {
	parts := make([]string, len(v))
	for i, n := range v {
		parts[i] = strconv.Itoa(n)
	}
	return strings.Join(parts, ".")
}

// label names an exact version as AWS does: nodejs:22.v11 for 22.11.0.
func label(family string, v version, branch int) string {
	s := family + ":" + v.branch(branch).String()
	if len(v) > branch {
		s += ".v" + strconv.Itoa(v[branch])
	}
	return s
}
