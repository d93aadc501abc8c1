package jetstream_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"kiln/internal/state"
	"kiln/internal/state/jetstream"
)

// takeWorker takes events and holds them for ever when this binary runs as the victim
// of TestKilledHandlers.
func takeWorker() bool {
	dir := os.Getenv("KILN_TEST_TAKE")
	if dir == "" {
		return false
	}
	ctx := context.Background()
	e := jetstream.New(jetstream.Config{Dir: dir, Node: "n1"})
	err := e.Open(ctx)
	if err == nil {
		err = handle(ctx, e.Queue(), subject, 8, func(context.Context, state.Delivery) {
			fmt.Println("taken")
			select {}
		})
	}
	fmt.Println(err)
	return true
}

// What a process was handling that was killed is handed out at once to the next one,
// which knows that it was handed out before.
func TestKilledHandlers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e := jetstream.New(jetstream.Config{Dir: dir, Node: "n1", Log: testLog(t)})
	if err := e.Open(context.Background()); err != nil {
		t.Fatal(err)
	}
	const events = 8
	for i := range events {
		publish(t, e.Queue(), subject, fmt.Sprint(i))
	}
	closeEngine(t, e)
	const kills = 3
	for range kills {
		takeAndDie(t, dir, events)
	}
	q := open(t, dir).Queue()
	began := time.Now()
	attempts := make(chan int, events)
	stop := consume(t, q, subject, events, func(ctx context.Context, d state.Delivery) {
		if err := d.Ack(ctx); err != nil {
			t.Error(err)
		}
		attempts <- d.Attempt()
	})
	for range events {
		// The engine writes its account behind the deliveries: not each has reached the disk.
		if n := <-attempts; n < 2 || n > kills+1 {
			t.Errorf("attempt %d after %d processes died", n, kills)
		}
	}
	stop()
	if took := time.Since(began); took > ackWait-5*time.Second {
		t.Errorf("the events came after %v", took)
	}
	if n := waiting(t, q, subject); n != 0 {
		t.Errorf("%d events wait", n)
	}
}

// ackWait is the engine's, which nobody may have to wait for here.
const ackWait = 30 * time.Second

func takeAndDie(t *testing.T, dir string, events int) {
	t.Helper()
	began := time.Now()
	cmd, lines := again(t, "KILN_TEST_TAKE="+dir)
	defer cmd.Wait()
	defer cmd.Process.Kill()
	for range events {
		if !lines.Scan() || lines.Text() != "taken" {
			t.Fatalf("the process says %q", lines.Text())
		}
	}
	// What it was given is known to the next engine once this one has written it, which it
	// does a moment later.
	const moment = time.Second
	for {
		files, err := filepath.Glob(filepath.Join(dir, "jetstream", "$G", "streams", "QUEUE", "obs", "*", "o.dat"))
		if err != nil {
			t.Fatal(err)
		}
		if len(files) == 1 {
			if info, err := os.Stat(files[0]); err == nil && info.ModTime().After(began) && time.Since(info.ModTime()) > moment && info.Size() > 30 {
				return
			}
		}
		if time.Since(began) > ackWait-5*time.Second {
			t.Fatalf("the engine keeps no account of deliveries in %v", files)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
