package cli

import (
	"reflect"
	"slices"
	"testing"

	"kiln/internal/config"
)

// TestFlagsHaveKeys: a flag that belongs to no key of the configuration would do nothing.
func TestFlagsHaveKeys(t *testing.T) {
	t.Parallel()
	for _, f := range reflect.VisibleFields(reflect.TypeFor[settings]()) {
		if f.Name != "ConfigFile" && !slices.ContainsFunc(config.Keys(), func(key string) bool { return isField(f.Name, key) }) {
			t.Errorf("the flag of %s has no key", f.Name)
		}
	}
}
