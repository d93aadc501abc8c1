package destination

import (
	"encoding/json"
	"strconv"
	"strings"
	"unicode/utf8"

	"kiln/internal/lambda"
)

// Letter is a dead letter: an event that came to nothing, and why.
type Letter struct {
	RequestID lambda.RequestID
	Payload   []byte // the event, JSON; sent unchanged
	// ErrorCode is the HTTP status of the last answer: 200 of a function error. 0
	// leaves the attribute out.
	ErrorCode int
	// ErrorMessage is what the last answer says. It is cut to AWS's length.
	ErrorMessage string
	// TraceHeader is the invocation's X-Amzn-Trace-Id, or "".
	TraceHeader string
}

// maxErrorMessage is how much of ErrorMessage is sent, in bytes, as on AWS.
const maxErrorMessage = 1 << 10

// ErrorMessage is what an error document says, or "".
func ErrorMessage(document []byte) string {
	var said struct {
		ErrorMessage any `json:"errorMessage"`
	}
	if json.Unmarshal(document, &said) != nil {
		return ""
	}
	message, _ := said.ErrorMessage.(string)
	return message
}

// attribute is one of a message, a String or a Number.
type attribute struct{ name, kind, value string }

// attributes of the letter's message. One without a value is refused: it is left out.
func (l Letter) attributes() []attribute {
	list := []attribute{{"RequestID", "String", string(l.RequestID)}}
	if l.ErrorCode != 0 {
		list = append(list, attribute{"ErrorCode", "Number", strconv.Itoa(l.ErrorCode)})
	}
	if message := cut(sendable(l.ErrorMessage), maxErrorMessage); message != "" {
		list = append(list, attribute{"ErrorMessage", "String", message})
	}
	return list
}

// sendable replaces what SQS does not take in text: it refuses the whole message for
// one such character, such as a terminal's escape in an error message.
func sendable(s string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case c == '\t', c == '\n', c == '\r', c >= 0x20 && c < 0xFFFE, c > 0xFFFF:
			return c
		}
		return utf8.RuneError
	}, s)
}

// cut shortens s to at most n bytes of whole characters.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
