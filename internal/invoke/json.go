package invoke

import (
	"encoding/binary"
	"math/bits"
)

// maxNesting is how deep arrays and objects may lie in each other, as in encoding/json.
const maxNesting = 10_000

// validJSON reports whether b is one JSON value. It agrees with json.Valid, which a
// fuzz target holds it to, and is three times (many short strings) to twelve times
// (long ones) as fast: every event passes through here, and of a large one this was
// half of what Kiln did. The libraries that were tried, gjson and fastjson, lie
// between. It does not look at UTF-8.
func validJSON(b []byte) bool {
	var objects [(maxNesting + 63) / 64]uint64 // a bit for each level: an object, or else an array
	var object bool
	depth, i := 0, 0

value:
	if i = skipSpace(b, i); i == len(b) {
		return false
	}
	switch b[i] {
	case '{', '[':
		if depth == maxNesting {
			return false
		}
		end := b[i] + 2 // the closing one's place in ASCII
		object = b[i] == '{'
		level, bit := depth/64, uint64(1)<<(depth%64)
		if objects[level] &^= bit; object {
			objects[level] |= bit
		}
		depth++
		if i = skipSpace(b, i+1); i < len(b) && b[i] == end {
			goto closed
		}
		if object {
			goto name
		}
		goto value
	case '"':
		i = skipString(b, i+1)
	case 't':
		i = skipWord(b, i, "true")
	case 'f':
		i = skipWord(b, i, "false")
	case 'n':
		i = skipWord(b, i, "null")
	default:
		i = skipNumber(b, i)
	}
	if i < 0 {
		return false
	}

next:
	i = skipSpace(b, i)
	if depth == 0 || i == len(b) {
		return depth == 0 && i == len(b)
	}
	object = objects[(depth-1)/64]>>((depth-1)%64)&1 == 1
	switch {
	case b[i] == ',' && object:
		i = skipSpace(b, i+1)
		goto name
	case b[i] == ',':
		i++
		goto value
	case b[i] == '}' && object, b[i] == ']' && !object:
		goto closed
	}
	return false

closed:
	i++
	depth--
	goto next

name:
	if i == len(b) || b[i] != '"' {
		return false
	}
	if i = skipString(b, i+1); i < 0 {
		return false
	}
	if i = skipSpace(b, i); i == len(b) || b[i] != ':' {
		return false
	}
	i++
	goto value
}

// The following return where what they skip ends, or -1 where it is none.

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\r' || b[i] == '\t') {
		i++
	}
	return i
}

func skipWord(b []byte, i int, word string) int {
	if len(b)-i < len(word) || string(b[i:i+len(word)]) != word {
		return -1
	}
	return i + len(word)
}

// skipString begins behind the opening quote. It looks at eight bytes at once for
// one that means something: a quote, a backslash, a control character.
func skipString(b []byte, i int) int {
	const each, high = 0x0101010101010101, 0x8080808080808080
	for {
		var found uint64 // the high bit of such bytes; exact for the first
		for ; i+8 <= len(b); i += 8 {
			word := binary.LittleEndian.Uint64(b[i:])
			quote, slash := word^each*'"', word^each*'\\'
			if found = ((word-each*' ')&^word | (quote-each)&^quote | (slash-each)&^slash) & high; found != 0 {
				break
			}
		}
		if found != 0 {
			i += bits.TrailingZeros64(found) / 8
		} else {
			for i < len(b) && b[i] >= ' ' && b[i] != '"' && b[i] != '\\' {
				i++
			}
		}
		switch {
		case i == len(b) || b[i] < ' ':
			return -1
		case b[i] == '"':
			return i + 1
		}
		if i = skipEscape(b, i+1); i < 0 {
			return -1
		}
	}
}

// skipEscape begins behind the backslash.
func skipEscape(b []byte, i int) int {
	if i == len(b) {
		return -1
	}
	switch b[i] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return i + 1
	case 'u':
		if len(b)-i < 5 {
			return -1
		}
		for _, digit := range b[i+1 : i+5] {
			if letter := digit | 0x20; (digit < '0' || digit > '9') && (letter < 'a' || letter > 'f') {
				return -1
			}
		}
		return i + 5
	}
	return -1
}

func skipNumber(b []byte, i int) int {
	if i < len(b) && b[i] == '-' {
		i++
	}
	if i < len(b) && b[i] == '0' {
		i++
	} else if i = skipDigits(b, i); i < 0 {
		return -1
	}
	if i < len(b) && b[i] == '.' {
		if i = skipDigits(b, i+1); i < 0 {
			return -1
		}
	}
	if i < len(b) && (b[i] == 'e' || b[i] == 'E') {
		if i++; i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		return skipDigits(b, i)
	}
	return i
}

func skipDigits(b []byte, i int) int {
	from := i
	for i < len(b) && '0' <= b[i] && b[i] <= '9' {
		i++
	}
	if i == from {
		return -1
	}
	return i
}
