package lambda

import "maps"

// Retag returns the tags with some set and some removed, as a map of its own; nil when none are left.
func Retag(tags, set map[string]string, remove []string) (map[string]string, error) {
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
