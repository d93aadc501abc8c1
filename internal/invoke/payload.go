package invoke

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"

	"kiln/internal/lambda"
)

// checkPayload refuses what is not one JSON value. The payload is passed on as it is.
func checkPayload(payload []byte) error {
	text := utf8.Valid(payload)
	if text && validJSON(payload) {
		return nil
	}
	const message = "Could not parse request body into json: Could not parse payload into json: %s"
	if !text {
		at := 0
		for r, size := utf8.DecodeRune(payload); r != utf8.RuneError || size != 1; r, size = utf8.DecodeRune(payload[at:]) {
			at += size
		}
		return lambda.InvalidRequestContent(message, fmt.Sprintf("Invalid UTF-8 start byte %#x%s", payload[at], place(payload, at)))
	}
	var value json.RawMessage
	err := json.Unmarshal(payload, &value)
	at := len(payload)
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		at = int(syntax.Offset)
	}
	return lambda.InvalidRequestContent(message, err.Error()+place(payload, max(at-1, 0)))
}

// place says where in a payload the byte is, in the words of AWS's parser.
func place(payload []byte, at int) string {
	before := payload[:min(at, len(payload))]
	line := 1 + bytes.Count(before, []byte{'\n'})
	column := len(before) - bytes.LastIndexByte(before, '\n')
	return fmt.Sprintf("\n at [Source: REDACTED; line: %d, column: %d]", line, column)
}

func decodeClientContext(encoded string) (string, error) {
	if encoded == "" {
		return "", nil
	}
	if len(encoded) > lambda.MaxClientContext {
		return "", lambda.InvalidRequestContent("Client context must be no more than %d bytes in base64; it is %d.", lambda.MaxClientContext, len(encoded))
	}
	decoded, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || !json.Valid(decoded) {
		return "", lambda.InvalidRequestContent("Client context must be a valid Base64-encoded JSON object.")
	}
	// The context travels in a header: no line breaks outside of strings are needed.
	var compact bytes.Buffer
	if err := json.Compact(&compact, decoded); err != nil {
		return "", err
	}
	return compact.String(), nil
}
