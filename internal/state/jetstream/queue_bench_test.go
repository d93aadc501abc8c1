package jetstream_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"kiln/internal/state/jetstream"
)

// BenchmarkQueue prints what SPECIFICATION.md promises of the queue as a table of
// ratios, everything in turn on one device. make bench runs it.
func BenchmarkQueue(b *testing.B) {
	const (
		rounds     = 5
		single     = 300 // operations of one publisher in a round
		publishers = 64
		each       = 40 // operations of each of them in a round
	)
	dir := b.TempDir()
	q := open(b, dir).Queue()
	file, err := os.OpenFile(filepath.Join(dir, "beside"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	event := bytes.Repeat([]byte("e"), 1024)
	record := make([]byte, len(event)+100) // what the engine adds
	do := map[string]func() error{
		"sync": func() error {
			if _, err := file.Write(record); err != nil {
				return err
			}
			return syncData(file)
		},
		"publish": func() error { return q.Publish(context.Background(), subject, event) },
		"single": func() error {
			return q.Restore(context.Background(), jetstream.Event{Subject: subject, Event: event})
		},
	}
	times := map[string][]time.Duration{} // of one operation; of many publishers a round's, by their number
	for range rounds {
		for _, what := range []string{"sync", "publish"} {
			for range single {
				begin := time.Now()
				if err := do[what](); err != nil {
					b.Fatal(err)
				}
				times[what] = append(times[what], time.Since(begin))
			}
		}
		for _, what := range []string{"single", "publish"} {
			begin := time.Now()
			var all sync.WaitGroup
			for range publishers {
				all.Go(func() {
					for range each {
						if err := do[what](); err != nil {
							b.Error(err)
						}
					}
				})
			}
			all.Wait()
			times[what+"s"] = append(times[what+"s"], time.Since(begin)/(publishers*each))
		}
		if _, err := q.Purge(context.Background(), subject); err != nil {
			b.Fatal(err)
		}
	}
	us := func(what string) float64 {
		slices.Sort(times[what])
		return float64(times[what][len(times[what])/2]) / float64(time.Microsecond)
	}
	fmt.Printf("\n### Publishing events of 1 KB\n\n| | µs an event | ratio |\n|---|---|---|\n")
	fmt.Printf("| one write and sync | %.0f | 1 |\n", us("sync"))
	fmt.Printf("| one publisher | %.0f | %.2f of one sync |\n", us("publish"), us("publish")/us("sync"))
	fmt.Printf("| %d publishers, written one by one | %.1f | 1 |\n", publishers, us("singles"))
	fmt.Printf("| %d publishers | %.1f | %.1f × as many a second |\n", publishers, us("publishs"), us("singles")/us("publishs"))
}

// BenchmarkBatch prints from how many events on a batch is worth it.
func BenchmarkBatch(b *testing.B) {
	const rounds = 30
	q := open(b, b.TempDir()).Queue()
	ctx := context.Background()
	event := bytes.Repeat([]byte("e"), 1024)
	fmt.Printf("\n### Events written at once\n\n| events | one by one µs | as a batch µs | ratio |\n|---|---|---|---|\n")
	for _, n := range []int{4, 8, 12, 16, 24, 32, 64, 256} {
		events := slices.Repeat([]jetstream.Event{{Subject: subject, Event: event}}, n)
		var singles, batches []time.Duration
		for range rounds {
			begin := time.Now()
			var all sync.WaitGroup
			for range n {
				all.Go(func() {
					if err := q.Restore(ctx, jetstream.Event{Subject: subject, Event: event}); err != nil {
						b.Error(err)
					}
				})
			}
			all.Wait()
			singles = append(singles, time.Since(begin))
			begin = time.Now()
			if err := q.StoreBatch(ctx, events...); err != nil {
				b.Fatal(err)
			}
			batches = append(batches, time.Since(begin))
		}
		slices.Sort(singles)
		slices.Sort(batches)
		s, t := singles[rounds/2].Microseconds(), batches[rounds/2].Microseconds()
		fmt.Printf("| %d | %d | %d | %.2f |\n", n, s, t, float64(s)/float64(t))
		if _, err := q.Purge(ctx, subject); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRestart prints how long opening takes while events wait, and asking for
// what waits after it.
func BenchmarkRestart(b *testing.B) {
	const events, rounds = 100_000, 5
	ctx := context.Background()
	fmt.Printf("\n### Restart with events that wait\n\n| events | lanes | open ms | what waits ms |\n|---|---|---|---|\n")
	for _, lanes := range []int{1, 10_000} {
		dir := b.TempDir()
		cfg := jetstream.Config{Dir: dir, Node: "n1"}
		e := jetstream.New(cfg)
		if err := e.Open(ctx); err != nil {
			b.Fatal(err)
		}
		fill(b, e.Queue(), events, func(i int) string { return fmt.Sprint("async.1.eu.f", i%lanes) })
		closeEngine(b, e)
		var opens, tells []time.Duration
		for range rounds {
			begin := time.Now()
			e := jetstream.New(cfg)
			if err := e.Open(ctx); err != nil {
				b.Fatal(err)
			}
			opens = append(opens, time.Since(begin))
			begin = time.Now()
			if told, err := e.Queue().Lanes(ctx, ""); err != nil || len(told) != lanes {
				b.Fatal(len(told), err)
			}
			tells = append(tells, time.Since(begin))
			closeEngine(b, e)
		}
		slices.Sort(opens)
		slices.Sort(tells)
		fmt.Printf("| %d | %d | %d | %d |\n", events, lanes, opens[rounds/2].Milliseconds(), tells[rounds/2].Milliseconds())
	}
}
