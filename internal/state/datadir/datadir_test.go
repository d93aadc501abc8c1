package datadir_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"kiln/internal/state"
	"kiln/internal/state/datadir"
)

// TestMain re-executes this binary as the holder of a data directory.
func TestMain(m *testing.M) {
	if dir := os.Getenv("KILN_TEST_HOLD"); dir != "" {
		if _, err := datadir.Open(dir, datadir.Config{}); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("held")
		bufio.NewReader(os.Stdin).ReadByte()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func open(t *testing.T, path string) *datadir.Dir {
	t.Helper()
	d, err := datadir.Open(path, datadir.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func refuses(t *testing.T, path string, words ...string) {
	t.Helper()
	d, err := datadir.Open(path, datadir.Config{})
	if err == nil {
		d.Close()
		t.Fatal("Open succeeded")
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not say %q", err, w)
		}
	}
}

func TestIdentityIsStable(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a", "data")
	d := open(t, path)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o700 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
	node := d.Node()
	sealed := d.Seal([]byte("secret"), []byte("function.1.name"))
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = open(t, path)
	defer d.Close()
	if d.Node() != node {
		t.Errorf("the node's id changed from %s to %s", node, d.Node())
	}
	plain, err := d.OpenSealed(sealed, []byte("function.1.name"))
	if err != nil || string(plain) != "secret" {
		t.Errorf("unsealed %q, %v", plain, err)
	}
	other := open(t, t.TempDir())
	defer other.Close()
	if other.Node() == node {
		t.Error("two directories share a node id")
	}
	if _, err := other.OpenSealed(sealed, []byte("function.1.name")); err == nil {
		t.Error("another directory's key opened the value")
	}
}

func TestSecondOpenerNamesTheHolder(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "KILN_TEST_HOLD="+path)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, _ := bufio.NewReader(out).ReadString('\n'); line != "held\n" {
		t.Fatalf("the holder says %q", line)
	}
	refuses(t, path, path, fmt.Sprintf("(pid %d)", cmd.Process.Pid), "--data")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	in.Close()
	open(t, path).Close() // a killed holder leaves nothing behind
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		spoil func(t *testing.T, path string)
		words []string
	}{
		{"newer format", write("format.json", `{"format":3,"node":"x"}`),
			[]string{"was written by a newer Kiln (format 3; this one knows 2): upgrade kiln or use another --data"}},
		{"damaged format", write("format.json", `{"format":`), []string{"format.json is damaged"}},
		{"no format", remove("format.json"), []string{"no format.json"}},
		{"no key", remove("master.key"), []string{"master.key", "restore it from a backup"}},
		{"short key", write("master.key", "abcd"), []string{"master.key is damaged"}},
		{"no data key", remove("data.key"), []string{"data.key is missing", "restore it from a backup"}},
		{"damaged data key", write("data.key", `{"sealed":`), []string{"data.key is damaged"}},
		{"foreign key", write("master.key", strings.Repeat("ab", 32)), []string{"is not the one", "kiln reseal"}},
		{"readable key", func(t *testing.T, path string) {
			if err := os.Chmod(filepath.Join(path, "master.key"), 0o640); err != nil {
				t.Fatal(err)
			}
		}, []string{"mode 0640", "chmod 600"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			path := t.TempDir()
			open(t, path).Close()
			test.spoil(t, path)
			refuses(t, path, test.words...)
			refuses(t, path, test.words...) // refusing changes nothing
		})
	}
	t.Run("foreign directory", func(t *testing.T) {
		t.Parallel()
		path := t.TempDir()
		write("thesis.tex", "x")(t, path)
		refuses(t, path, "thesis.tex", "not a data directory")
	})
	t.Run("file", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		refuses(t, path, path)
	})
}

// A start that was killed before the format file was written begins again.
func TestUnfinishedCreation(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	open(t, path).Close()
	for _, name := range []string{"format.json", "jetstream", "code", "images", "telemetry", "run"} {
		if err := os.Remove(filepath.Join(path, name)); err != nil {
			t.Fatal(err)
		}
	}
	write("format.json.tmp", `{"for`)(t, path)
	open(t, path).Close()
}

func TestSealedValuesAreBound(t *testing.T) {
	t.Parallel()
	d := open(t, t.TempDir())
	defer d.Close()
	sealed := d.Seal([]byte("secret"), []byte("a"))
	if bytes.Contains(sealed, []byte("secret")) || bytes.Equal(sealed, d.Seal([]byte("secret"), []byte("a"))) {
		t.Error("the value is not sealed with a fresh nonce")
	}
	if empty, err := d.OpenSealed(d.Seal(nil, nil), nil); err != nil || len(empty) != 0 {
		t.Errorf("empty value: %q, %v", empty, err)
	}
	if _, err := d.OpenSealed(sealed, []byte("b")); err == nil {
		t.Error("opened with other associated data")
	}
	for i := range sealed {
		spoiled := bytes.Clone(sealed)
		spoiled[i] ^= 1
		if _, err := d.OpenSealed(spoiled, []byte("a")); err == nil {
			t.Errorf("opened with byte %d flipped", i)
		}
		if _, err := d.OpenSealed(sealed[:i], []byte("a")); err == nil {
			t.Errorf("opened cut at %d", i)
		}
	}
}

func TestFloorOfFreeSpace(t *testing.T) {
	t.Parallel()
	for floor, full := range map[int64]bool{-1: false, 1: false, 1 << 60: true} {
		d, err := datadir.Open(t.TempDir(), datadir.Config{MinFree: floor})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		for range 2 {
			if err := d.Free(); errors.Is(err, state.ErrFull) != full {
				t.Errorf("floor %d: %v", floor, err)
			}
		}
		if err := d.Room(1); errors.Is(err, state.ErrFull) != full {
			t.Errorf("floor %d, room for a byte: %v", floor, err)
		}
		if err := d.Room(1 << 60); !errors.Is(err, state.ErrFull) {
			t.Errorf("floor %d, room for everything: %v", floor, err)
		}
	}
	if _, err := datadir.Open(t.TempDir(), datadir.Config{MinFree: -2}); err == nil {
		t.Error("a negative floor was accepted")
	}
}

func write(name, content string) func(*testing.T, string) {
	return func(t *testing.T, path string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(path, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func remove(name string) func(*testing.T, string) {
	return func(t *testing.T, path string) {
		t.Helper()
		if err := os.Remove(filepath.Join(path, name)); err != nil {
			t.Fatal(err)
		}
	}
}

// A closed directory can be opened at once, whatever programs are being started meanwhile.
func TestOpenAgain(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	over := make(chan struct{})
	var starters sync.WaitGroup
	for range 4 {
		starters.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
					_ = exec.Command("/bin/true").Run()
				}
			}
		})
	}
	for range 300 {
		d, err := datadir.Open(dir, datadir.Config{MinFree: 1})
		if err == nil {
			err = d.Close()
		}
		if err != nil {
			t.Error(err)
			break
		}
	}
	close(over)
	starters.Wait()
}
