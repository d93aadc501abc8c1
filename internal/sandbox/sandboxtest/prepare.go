package sandboxtest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"kiln/internal/sandbox"
)

// testPrepare gives a sandbox in which a process runs already to a function.
func testPrepare(t *testing.T, b *bench) {
	driver, ok := b.Driver.(sandbox.Preparer)
	if !ok {
		t.Skip("this driver prepares no sandboxes")
	}
	assigned := b.spec()
	assigned.MemoryBytes, assigned.TmpBytes = 128<<20, 64<<20
	unassigned := assigned
	unassigned.Task, unassigned.Opt, unassigned.MemoryBytes = "", "", 0
	if _, err := driver.Prepare(t.Context(), assigned); err == nil {
		t.Error("a sandbox with code was prepared")
	}
	p, err := driver.Prepare(t.Context(), unassigned)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	destroyLater(t, p)
	s := &box{p, t}
	if got := driver.PreparedPaths(); got.Task != p.Paths().Task || got.Opt != p.Paths().Opt || got.Runtime != p.Paths().Runtime || got.Tmp != p.Paths().Tmp {
		t.Errorf("paths %+v, announced %+v", p.Paths(), got)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	waiting := s.script("/bin/bash", "-c", `ls -A $TASK $OPT; cat $CLIENT/file; echo; read <&3
cd $TASK; cat file; echo; cat $OPT/file; echo; ls -A $TMP
touch $TASK/new 2>/dev/null || touch $OPT/new 2>/dev/null || echo sealed
echo x >$TMP/x && cat $TMP/x; df --output=size -BM $TMP; ls -A /mnt`)
	waiting.Telemetry = r
	c := s.start(waiting)
	_ = r.Close()
	c.expect("client")
	if err := p.Assign(t.Context(), unassigned); err == nil {
		t.Error("a sandbox was assigned to no function")
	}
	larger := assigned
	if larger.TmpBytes *= 2; p.Assign(t.Context(), larger) == nil {
		t.Error("a sandbox was assigned to a function with a larger /tmp")
	}
	if err := p.Assign(t.Context(), assigned); err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteString("\n"); err != nil {
		t.Fatal(err)
	}
	want := []string{"/opt:", "/var/task:", "client", "code", "layers", "sealed", "x", "1M-blocks"}
	got := strings.Fields(c.text())
	if len(got) != len(want)+1 || !slices.Equal(got[:len(want)], want) {
		t.Fatalf("printed %q, want %q and the size of /tmp", got, want)
	}
	if size, _ := strconv.Atoi(strings.TrimSuffix(got[len(want)], "M")); b.Describe().BoundsTmp && (size < 32 || size > 80) {
		t.Errorf("/tmp has %d MiB, want 64", size)
	}
	// It is as any other from here on.
	bounds := !slices.ContainsFunc(b.Describe().Missing, func(m string) bool { return strings.Contains(m, "memory") })
	if e := s.python("m = bytearray(200 << 20)\nfor i in range(0, len(m), 4096): m[i] = 1\n").wait(); bounds && !e.OOM {
		t.Errorf("200 MB in 128 MB: ended with %+v", e)
	}
	if err := p.Assign(t.Context(), assigned); err == nil {
		t.Error("a sandbox was assigned twice")
	}
	created, err := b.Create(t.Context(), b.spec())
	if err != nil {
		t.Fatal(err)
	}
	destroyLater(t, created)
	if p, ok := created.(sandbox.Prepared); ok && p.Assign(t.Context(), assigned) == nil {
		t.Error("a function's sandbox was assigned to another")
	}

	broken := assigned
	broken.Task = filepath.Join(b.code, "missing")
	unassigned.ID = ID("broken")
	if p, err = driver.Prepare(t.Context(), unassigned); err != nil {
		t.Fatal(err)
	}
	destroyLater(t, p)
	if err := p.Assign(t.Context(), broken); err == nil {
		t.Error("a folder that is not there was assigned")
	}
	if err := p.Destroy(t.Context()); err != nil {
		t.Error(err)
	}
	if err := p.Assign(t.Context(), assigned); err == nil {
		t.Error("a destroyed sandbox was assigned")
	}
}

func destroyLater(t *testing.T, s sandbox.Sandbox) {
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := s.Destroy(ctx); err != nil {
			t.Errorf("destroy: %v", err)
		}
	})
}
