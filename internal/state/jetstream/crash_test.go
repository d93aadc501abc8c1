package jetstream_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"kiln/internal/state"
	"kiln/internal/state/jetstream"
)

// counts is how far a worker is with each kind of write. Single, batch and blob
// hold the number written last; events counts those published; there is 1 while a
// second blob is put and deleted, and else 0.
type counts struct{ single, batch, blob, events, there int }

// crashWorker writes for ever when this binary runs as the victim of TestKill. It
// says what it found at its start, and then each write once it was acknowledged.
func crashWorker() bool {
	dir := os.Getenv("KILN_TEST_WRITE")
	if dir == "" {
		return false
	}
	if err := write(dir); err != nil {
		fmt.Println("error", err)
	}
	return true
}

func write(dir string) error {
	ctx := context.Background()
	e := jetstream.New(jetstream.Config{Dir: dir, Node: "n1"})
	if err := e.Open(ctx); err != nil {
		return err
	}
	records, err := e.State().All(ctx, "n")
	if err != nil {
		return err
	}
	value, at := map[string]int{}, map[string]state.Revision{}
	for _, r := range records {
		n, err := strconv.Atoi(string(r.Value))
		if err != nil {
			return err
		}
		value[r.Key] = n
		at[r.Key] = r.Revision
	}
	// The marked record exists exactly while the batch's number is odd.
	_, marked := at["n.mark"]
	if a := value["n.a"]; a != value["n.b"] || a != value["n.c"] || marked != (a%2 == 1) {
		return fmt.Errorf("half a batch: %v, marked %v", value, marked)
	}
	c := counts{single: value["n.single"], batch: value["n.a"]}
	if r, err := e.Blob().Get(ctx, "blob"); err == nil {
		b, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		c.blob = len(b) - blobBase
		if !bytes.Equal(b, blobOf(c.blob)) {
			return fmt.Errorf("blob %d came back changed", c.blob)
		}
	}
	lanes, err := e.Queue().Lanes(ctx, subject)
	if err != nil {
		return err
	}
	c.events = int(lanes[subject].Due)
	if r, err := e.Blob().Get(ctx, "there"); err == nil {
		c.there = 1
		if _, err := io.Copy(io.Discard, r); err != nil {
			return err
		}
	} else if !errors.Is(err, state.ErrNotFound) {
		return err
	}
	fmt.Println("have", c.single, c.batch, c.blob, c.events, c.there)
	for {
		fmt.Println("there", 1)
		if err := e.Blob().Put(ctx, "there", bytes.NewReader(blobOf(0))); err != nil {
			return err
		}
		if err := e.Blob().Delete(ctx, "there"); err != nil {
			return err
		}
		fmt.Println("there", 0)

		c.single++
		r, err := e.State().Commit(ctx, state.Change{Key: "n.single", Value: fmt.Append(nil, c.single), Expect: at["n.single"]})
		if err != nil {
			return err
		}
		at["n.single"] = r[0]
		fmt.Println("single", c.single)

		c.batch++
		v := fmt.Append(nil, c.batch)
		mark := state.Change{Key: "n.mark", Value: v, Expect: at["n.mark"]}
		if c.batch%2 == 0 {
			mark.Value = nil
		}
		r, err = e.State().Commit(ctx, state.Change{Key: "n.a", Value: v, Expect: at["n.a"]}, mark,
			state.Change{Key: "n.b", Value: v, Expect: at["n.b"]}, state.Change{Key: "n.c", Value: v, Expect: at["n.c"]})
		if err != nil {
			return err
		}
		at["n.a"], at["n.mark"], at["n.b"], at["n.c"] = r[0], r[1], r[2], r[3]
		fmt.Println("batch", c.batch)

		if err := e.Queue().Publish(ctx, subject, v); err != nil {
			return err
		}
		c.events++
		fmt.Println("events", c.events)

		c.blob++
		if err := e.Blob().Put(ctx, "blob", bytes.NewReader(blobOf(c.blob))); err != nil {
			return err
		}
		fmt.Println("blob", c.blob)
	}
}

// blobBase makes blobs of several chunks.
const blobBase = 2<<20 + 10

func blobOf(n int) []byte { return bytes.Repeat([]byte{byte(n)}, blobBase+n) }

// again starts this binary once more, as the victim that a variable makes of it, and reads
// what that says.
func again(t *testing.T, variable string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), variable)
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewScanner(out)
}

// TestKill kills a writer at random moments, over and over: what was acknowledged
// is there afterwards, and each write whole or not at all.
func TestKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var acked counts
	rounds := rounds(t, 10)
	for round := range rounds {
		cmd, lines := again(t, "KILN_TEST_WRITE="+dir)
		started, written, enough := false, 0, 1+rand.N(20)
		for lines.Scan() {
			if written++; written == enough {
				// Somewhere within what follows, however fast this machine is.
				timer := time.AfterFunc(rand.N(10*time.Millisecond), func() { cmd.Process.Kill() })
				defer timer.Stop()
			}
			var what string
			var n int
			fmt.Sscan(lines.Text(), &what, &n)
			switch what {
			case "have":
				var got counts
				fmt.Sscan(lines.Text(), &what, &got.single, &got.batch, &got.blob, &got.events, &got.there)
				// One write of each may have been made without its answer having come.
				if between(acked.single, got.single) && between(acked.batch, got.batch) && between(acked.blob, got.blob) && between(acked.events, got.events) && got.there <= acked.there {
					acked = got
				} else {
					t.Errorf("round %d: acknowledged %+v, found %+v", round, acked, got)
				}
				started = true
			case "single":
				acked.single = n
			case "batch":
				acked.batch = n
			case "blob":
				acked.blob = n
			case "events":
				acked.events = n
			case "there":
				acked.there = n
			default:
				t.Errorf("round %d: the writer says %s", round, lines.Text())
			}
		}
		cmd.Wait()
		if !started || t.Failed() {
			t.Fatal("the writer did not start, or see above")
		}
	}
	if acked.single < rounds/2 || acked.blob == 0 {
		t.Errorf("the writer was killed too early to test anything: %+v", acked)
	}
	t.Logf("%d kills, %+v", rounds, acked)
}

// rounds is how often a test does the same, unless KILN_SOAK says otherwise.
func rounds(t *testing.T, usual int) int {
	soak := os.Getenv("KILN_SOAK")
	if soak == "" {
		return usual
	}
	n, err := strconv.Atoi(soak)
	if err != nil {
		t.Fatalf("KILN_SOAK: %v", err)
	}
	return n
}

func between(acked, found int) bool { return found == acked || found == acked+1 }
