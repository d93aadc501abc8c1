package api

import (
	"encoding/base64"

	"kiln/internal/lambda"
)

// maxPage is how many items AWS lists at once, whatever MaxItems says.
const maxPage = 50

// pageSize is how many items a list shows at once.
func pageSize(maxItems *int) int {
	if maxItems == nil {
		return maxPage
	}
	return min(maxPage, *maxItems)
}

// A marker is where the last page ended, in a form that nobody is tempted to make.
func writeMarker(last string) *string { return new(base64.RawURLEncoding.EncodeToString([]byte(last))) }

func readMarker(marker *string) (string, error) {
	if marker == nil {
		return "", nil
	}
	last, err := base64.RawURLEncoding.DecodeString(*marker)
	if err != nil {
		return "", badMarker(*marker)
	}
	return string(last), nil
}

func badMarker(marker string) error {
	return lambda.InvalidParameter("The provided Marker is not one that a list returned: %s", marker)
}
