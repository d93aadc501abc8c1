package artifact_test

import (
	"archive/zip"
	"bufio"
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kiln/internal/state/artifact"
	"kiln/internal/state/jetstream"
)

// addForever adds packages, and merges each with the one before, until it is
// killed, and says each one that is stored.
func addForever(dir string) {
	ctx := context.Background()
	e := jetstream.New(jetstream.Config{Dir: dir, Node: "n1"})
	s := artifact.New(e.Blob(), filepath.Join(dir, "code"), artifact.Config{MaxCache: 10 << 20})
	err := e.Open(ctx)
	if err == nil {
		err = s.Open(ctx)
	}
	fmt.Println("open")
	last := ""
	for i := 0; err == nil; i++ {
		var b bytes.Buffer
		w := zip.NewWriter(&b)
		seed := rand.Uint64()
		for j := range 20 {
			f, _ := w.Create(fmt.Sprintf("d/f%d", j))
			fmt.Fprint(f, strings.Repeat(fmt.Sprint(seed, j), 1000))
		}
		w.Close()
		var p artifact.Package
		if p, err = s.Add(ctx, section(b.Bytes())); err == nil {
			fmt.Println("added", p.Digest, seed)
			if last != "" {
				var release func()
				if _, release, err = s.Merged(ctx, []string{last, p.Digest}); err == nil {
					release()
				}
			}
			last = p.Digest
		}
	}
	fmt.Println("error", err)
	os.Exit(1)
}

// TestKill kills a process that adds packages: each one that was acknowledged is
// whole afterwards, and no half tree is taken for a whole one.
func TestKill(t *testing.T) {
	t.Parallel()
	ctx, dir := context.Background(), t.TempDir()
	added, order, merges := map[string]uint64{}, []string(nil), 0
	rounds := 15
	if testing.Short() {
		rounds = 3
	}
	for range rounds {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "KILN_TEST_ADD="+dir)
		cmd.Stderr = t.Output()
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		started, written, enough := false, 0, 1+rand.N(6)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if written++; written == enough {
				// Somewhere within what follows, however fast this machine is.
				timer := time.AfterFunc(rand.N(10*time.Millisecond), func() { cmd.Process.Kill() })
				defer timer.Stop()
			}
			var what, digest string
			var seed uint64
			fmt.Sscan(lines.Text(), &what, &digest, &seed)
			switch what {
			case "open":
				started = true
			case "added":
				added[digest], order = seed, append(order, digest)
			default:
				t.Errorf("the other process says %s", lines.Text())
			}
		}
		cmd.Wait()
		if !started {
			t.Fatal("the other process did not start")
		}
		e := jetstream.New(jetstream.Config{Dir: dir, Node: "n1"})
		if err := e.Open(ctx); err != nil {
			t.Fatal(err)
		}
		s := openStore(t, e.Blob(), filepath.Join(dir, "code"), artifact.Config{})
		nothingLeft(t, filepath.Join(dir, "code"))
		entries, err := os.ReadDir(filepath.Join(dir, "code"))
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range entries {
			if strings.HasPrefix(entry.Name(), "merged-") {
				merges++
				continue
			}
			if err := s.Check(ctx, entry.Name()); err != nil {
				t.Errorf("a tree without its package: %v", err)
			}
		}
		for i, digest := range order {
			for _, parts := range [][]string{{digest}, {order[max(0, i-1)], digest}} {
				path, release, err := s.Merged(ctx, parts)
				if err != nil {
					t.Fatal(err)
				}
				got := tree(t, path)
				release()
				if len(got) != 21 || got["d/f7"] != "-rw-r--r-- "+strings.Repeat(fmt.Sprint(added[digest], 7), 1000) {
					t.Errorf("%v has %d entries", parts, len(got))
				}
			}
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}
	if len(added) < rounds {
		t.Errorf("only %d packages were added", len(added))
	}
	t.Logf("%d kills, %d packages, %d times a merged tree", rounds, len(added), merges)
}
