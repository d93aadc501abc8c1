package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes, written as 512MiB, 1.5GiB, 10MB or 4096.
type Size int64

// sizeUnits, the longest name first: MiB ends with B too.
var sizeUnits = []struct {
	name  string
	bytes int64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12},
	{"B", 1},
}

// ParseSize parses a Size.
func ParseSize(s string) (Size, error) {
	number, unit := strings.TrimSpace(s), int64(1)
	for _, u := range sizeUnits {
		if rest, ok := strings.CutSuffix(number, u.name); ok {
			number, unit = strings.TrimSpace(rest), u.bytes
			break
		}
	}
	bad := fmt.Errorf("%q is not a size; write it as 512MiB, 1.5GiB or a number of bytes", s)
	whole, fraction, pointed := strings.Cut(number, ".")
	n, err := strconv.ParseUint(whole, 10, 63)
	if err != nil || pointed && fraction == "" {
		return 0, bad
	}
	if n > uint64(math.MaxInt64/unit) {
		return 0, fmt.Errorf("%q is larger than any size", s)
	}
	bytes := int64(n) * unit
	if pointed {
		for _, digit := range fraction {
			if digit < '0' || digit > '9' {
				return 0, bad
			}
		}
		part, err := strconv.ParseFloat("0."+fraction, 64)
		if err != nil {
			return 0, bad
		}
		extra := int64(part * float64(unit))
		if extra > math.MaxInt64-bytes {
			return 0, fmt.Errorf("%q is larger than any size", s)
		}
		bytes += extra
	}
	return Size(bytes), nil
}

// String writes the size so that ParseSize reads the same again.
func (s Size) String() string {
	for i := 3; i >= 0; i-- {
		if u := sizeUnits[i]; s != 0 && int64(s)%u.bytes == 0 {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10) + "B"
}

// MarshalText implements encoding.TextMarshaler.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Size) UnmarshalText(text []byte) (err error) {
	*s, err = ParseSize(string(text))
	return err
}

// Duration is a time span, written as 10m, 1h30m or 500ms.
type Duration time.Duration

// String writes the duration so that time.ParseDuration reads the same again,
// without the zeros of time.Duration: 10m, not 10m0s.
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is not a duration; write it as 10m, 1h30m or 500ms", text)
	}
	*d = Duration(v)
	return nil
}
