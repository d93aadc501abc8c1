package api

import (
	"cmp"
	"encoding/base64"

	"kiln/internal/lambda"
	"kiln/internal/registry"
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

// owners is a page of what of a function has something attached, and the marker of the
// next; missing is the answer where there is no such function, nil for the usual one.
func (c *call) owners(name, marker *string, maxItems *int, has func(*lambda.Attached) bool, missing error) (page []registry.Owner, next *string, err error) {
	arn, err := c.function(name, nil)
	if err != nil {
		return nil, nil, err
	}
	after, err := readMarker(marker)
	if err != nil {
		return nil, nil, err
	}
	page, more, err := c.door.Registry.Owners(arn, has, lambda.Qualifier(after), pageSize(maxItems))
	if err != nil {
		return nil, nil, cmp.Or(missing, err)
	}
	if more {
		next = writeMarker(string(page[len(page)-1].ARN.Qualifier))
	}
	return page, next, nil
}

func badMarker(marker string) error {
	return lambda.InvalidParameter("The provided Marker is not one that a list returned: %s", marker)
}
