package images

import (
	"path/filepath"
	"strings"
	"testing"

	"kiln/test/kiln"
)

// A restored function of an image runs without the registry that it came from.
func TestBackup(t *testing.T) {
	t.Parallel()
	d, r := start(t), serve(t)
	if err := create(t, d, "f", r.push(t, "team/app:v1", image(t, standard, file{name: "srv/x"})), nil, nil); err != nil {
		t.Fatal(err)
	}
	answer := func(d *kiln.Daemon) string {
		text, _, _ := strings.Cut(invoke(t, d, "f", "{}"), `,"uid":`) // which differs between environments
		return text
	}
	want := answer(d)
	file, data := filepath.Join(t.TempDir(), "backup"), filepath.Join(t.TempDir(), "data")
	if code, out := kiln.Run(t, "backup", file, "--endpoint", d.URL); code != 0 {
		t.Fatal(out)
	}
	r.down.Store(true)
	if code, out := kiln.Run(t, "restore", file, "--data", data); code != 0 {
		t.Fatal(out)
	}
	if got := answer(kiln.StartIn(t, data, nil)); got != want {
		t.Errorf("it answers %s, and answered %s", got, want)
	}
}
