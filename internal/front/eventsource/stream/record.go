package stream

import (
	"bytes"
	"cmp"
	"encoding/json"
	"hash/fnv"
	"strings"
	"time"
)

// record is one of a stream.
type record struct {
	sequence string // decimal
	key      string // records of one key keep their order
	arrived  time.Time
	event    []byte // JSON, as the function gets it
	view     []byte // JSON, as filters see it, until they have
}

// lane is the one of so many that records of the key are in. It must never change:
// positions are of lanes.
func laneOf(key string, of int) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(key)) // never fails
	return int(h.Sum32() % uint32(of))
}

// compare orders sequence numbers, which are decimals of any length. "" is before all.
func compare(a, b string) int {
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
}

// appendString appends JSON.
func appendString(b []byte, s string) []byte {
	var quoted bytes.Buffer
	e := json.NewEncoder(&quoted)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // of a string, it cannot fail
	return append(b, bytes.TrimSpace(quoted.Bytes())...)
}

// appendMember appends the member of an object, as "name":"value".
func appendMember(b []byte, name, value string) []byte {
	if b[len(b)-1] != '{' {
		b = append(b, ',')
	}
	b = append(b, '"')
	b = append(b, name...)
	b = append(b, `":`...)
	return appendString(b, value)
}
