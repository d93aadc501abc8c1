package sandbox

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
)

// Loopback is the address that Dial connects to, for drivers and messages.
func Loopback(port int) string { return "127.0.0.1:" + strconv.Itoa(port) }

var idPattern = regexp.MustCompile(`^[a-z0-9-]{1,64}$`)

// Check says what is wrong with a spec, for drivers to call first: ID and Group
// become names of directories and cgroups.
func (s Spec) Check() error {
	if s.Task == "" && s.Root == "" {
		return errors.New("sandbox task directory: want an absolute path")
	}
	return s.checkNames()
}

// CheckUnassigned is Check of a spec for Preparer.Prepare.
func (s Spec) CheckUnassigned() error {
	if s.Task != "" || s.Opt != "" || s.Root != "" {
		return errors.New("a prepared sandbox has no task, opt or root directory yet")
	}
	return s.checkNames()
}

func (s Spec) checkNames() error {
	if !idPattern.MatchString(s.ID) {
		return fmt.Errorf("sandbox id %q: want 1 to 64 of a-z, 0-9 and -", s.ID)
	}
	if s.Group == "" || !filepath.IsLocal(s.Group) || filepath.Clean(s.Group) != s.Group {
		return fmt.Errorf("sandbox group %q: want a relative path such as account/region/function", s.Group)
	}
	if !slices.Contains([]string{"", NetworkNone, NetworkNAT, NetworkHost}, s.Network.Mode) {
		return fmt.Errorf("sandbox network %q: want %q, %q or %q", s.Network.Mode, NetworkNone, NetworkNAT, NetworkHost)
	}
	for what, p := range map[string]string{"root": s.Root, "task": s.Task, "opt": s.Opt, "runtime": s.Runtime, "lang": s.Lang} {
		if p != "" && !filepath.IsAbs(p) {
			return fmt.Errorf("sandbox %s directory %q: want an absolute path", what, p)
		}
	}
	return nil
}
