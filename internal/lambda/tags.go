package lambda

import (
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

// Retag returns the tags with some set and some removed, as a map of its own; nil when none are left.
func Retag(tags, set map[string]string, remove []string) (map[string]string, error) {
	for _, key := range slices.Sorted(maps.Keys(set)) {
		switch n := utf8.RuneCountInString(key); {
		case n < 1 || n > maxTagKey:
			return nil, InvalidParameter("A tag's key must have 1 to %d characters; one has %d.", maxTagKey, n)
		case strings.HasPrefix(strings.ToLower(key), "aws:"):
			return nil, InvalidParameter("Tag keys that begin with aws: are reserved for AWS's use: %s", key)
		case utf8.RuneCountInString(set[key]) > maxTagValue:
			return nil, InvalidParameter("The value of the tag %s must have no more than %d characters.", key, maxTagValue)
		}
	}
	now := make(map[string]string, len(tags)+len(set))
	maps.Copy(now, tags)
	maps.Copy(now, set)
	for _, key := range remove {
		delete(now, key)
	}
	switch {
	case len(now) > MaxTags:
		return nil, InvalidParameter("Number of tags exceeds resource tag limit.")
	case len(now) == 0:
		return nil, nil
	}
	return now, nil
}
