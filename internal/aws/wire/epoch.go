package wire

import (
	"strconv"
	"time"
)

// Epoch is a time that travels as seconds since 1970, a JSON number with three
// decimals at most. Times that travel as text are strings in the model.
type Epoch struct{ time.Time }

// MarshalJSON writes seconds.
func (e Epoch) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, float64(e.UnixMilli())/1000, 'f', -1, 64), nil
}

// ISO8601 formats t as AWS shows times in strings: 2026-01-31T12:34:56.789+0000.
func ISO8601(t time.Time) string {
	return t.UTC().Format("2006-01-02T15:04:05.000-0700")
}
