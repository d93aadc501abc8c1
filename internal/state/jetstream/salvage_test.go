package jetstream_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/minio/highwayhash"

	"kiln/internal/state"
	"kiln/internal/state/jetstream"
)

// stock is what an engine holds, each under a name that no other has.
type stock map[string]string

// stockOf reads everything that a data directory was filled with.
func stockOf(t testing.TB, e *jetstream.Engine) stock {
	t.Helper()
	held := stock{}
	records, err := e.State().All(context.Background(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		held["STATE "+r.Key] = fmt.Sprint(r.Revision, " ", string(r.Value))
	}
	lanes, err := e.Queue().Lanes(context.Background(), "")
	if err != nil {
		t.Fatal(err)
	}
	for lane := range lanes {
		list, err := e.Queue().Peek(context.Background(), lane, 1000)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range list {
			name := fmt.Sprint("QUEUE ", lane, " ", string(w.Event[:min(10, len(w.Event))]))
			if held[name] != "" {
				t.Errorf("%s is there twice", name)
			}
			held[name] = fmt.Sprintf("%x %v %d %v", w.Event, w.Accepted.UnixNano(), w.Attempt, w.NotYet.UnixMilli())
		}
	}
	return held
}

// holding makes a data directory with records and events of all kinds, and returns
// what it holds. Without clean it looks as after a crash.
func holding(t testing.TB, clean bool, number, size int) (dir string, held stock) {
	t.Helper()
	dir = t.TempDir()
	ctx := context.Background()
	e := jetstream.New(jetstream.Config{Dir: dir, Node: "n1"})
	if err := e.Open(ctx); err != nil {
		t.Fatal(err)
	}
	for i := range number {
		commit(t, e.State(), state.Change{Key: fmt.Sprintf("r.1.eu.%d", i), Value: []byte(strings.Repeat("v", rand.N(size)))})
		event := jetstream.Event{Subject: fmt.Sprintf("async.1.eu.f%d", i%5), Event: fmt.Appendf(nil, "%-10d%s", i, noise(uint64(i), rand.N(size)))}
		if i%3 == 0 {
			event.Attempts, event.Accepted = 1+i%2, time.Now().Add(-time.Minute)
		}
		if i%7 == 0 {
			event.Due = time.Now().Add(time.Hour)
		}
		if err := e.Queue().Restore(ctx, event); err != nil {
			t.Fatal(err)
		}
	}
	// Some have gone again.
	stop := consume(t, e.Queue(), "async.1.eu.f4", 1, func(ctx context.Context, d state.Delivery) {
		if err := d.Ack(ctx); err != nil {
			t.Error(err)
		}
	})
	for {
		lanes, err := e.Queue().Lanes(ctx, "async.1.eu.f4")
		if err != nil {
			t.Fatal(err)
		}
		if lanes["async.1.eu.f4"].Due == 0 {
			break
		}
	}
	stop()
	held = stockOf(t, e)
	if clean {
		closeEngine(t, e)
		return dir, held
	}
	// The witness counts what an opening found.
	closeEngine(t, e)
	e = jetstream.New(jetstream.Config{Dir: dir, Node: "n1"})
	if err := e.Open(ctx); err != nil {
		t.Fatal(err)
	}
	crashed := t.TempDir()
	if err := os.CopyFS(crashed, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	closeEngine(t, e)
	return crashed, held
}

// recorder keeps what is logged.
type recorder struct {
	mu  sync.Mutex
	log bytes.Buffer // guarded by mu
}

func (r *recorder) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.Write(b)
}

// logTo writes warnings and errors.
func logTo(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

func (r *recorder) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.String()
}

// fileRecord is a record of a block file, found by lengths alone.
type fileRecord struct {
	from, to int
	name     string // as in stock, "" where it is of no message
}

func recordsOf(t testing.TB, file, stream string) (list []fileRecord) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; at < len(b); {
		size := int(binary.LittleEndian.Uint32(b[at:]) &^ (1 << 31))
		r := fileRecord{from: at, to: at + size}
		if binary.LittleEndian.Uint64(b[at+4:])>>62 == 0 {
			end := at + 22 + int(binary.LittleEndian.Uint16(b[at+20:]))
			kind, rest, _ := strings.Cut(string(b[at+22:end]), ".")
			if kind == "later" {
				rest = rest[:strings.LastIndexByte(rest, '.')]
			}
			r.name = stream + " " + rest
			if stream == "QUEUE" {
				body := end + 4 + int(binary.LittleEndian.Uint32(b[end:]))
				r.name += " " + string(b[body:min(body+10, r.to-8)])
			}
		}
		list = append(list, r)
		at += size
	}
	return list
}

// spoil damages a file and says where.
type spoil struct {
	name string
	do   func(b []byte) (spoiled []byte, from, to int)
}

var spoils = []spoil{
	{"flip", func(b []byte) ([]byte, int, int) {
		at := rand.N(len(b))
		b[at] ^= 1 << rand.N(8)
		return b, at, at + 1
	}},
	{"flip in the first length", func(b []byte) ([]byte, int, int) { b[1] ^= 4; return b, 1, 2 }},
	{"flip in the length of a subject", func(b []byte) ([]byte, int, int) { b[20] ^= 1; return b, 20, 21 }},
	{"flip at the end", func(b []byte) ([]byte, int, int) { b[len(b)-1] ^= 1; return b, len(b) - 1, len(b) }},
	{"zeros", func(b []byte) ([]byte, int, int) {
		from := rand.N(len(b) - 4096)
		clear(b[from : from+4096])
		return b, from, from + 4096
	}},
	{"zeros at the beginning", func(b []byte) ([]byte, int, int) { clear(b[:4096]); return b, 0, 4096 }},
	{"zeros at the end", func(b []byte) ([]byte, int, int) { clear(b[len(b)-4096:]); return b, len(b) - 4096, len(b) }},
	{"noise", func(b []byte) ([]byte, int, int) {
		from := rand.N(len(b) - 512)
		copy(b[from:], noise(rand.Uint64(), 512))
		return b, from, from + 512
	}},
	{"cut", func(b []byte) ([]byte, int, int) { n := rand.N(len(b) / 2); return b[:len(b)-n], len(b) - n, len(b) }},
	{"emptied", func(b []byte) ([]byte, int, int) { return nil, 0, len(b) }},
}

// TestSalvage damages files in many ways: what is not hit is there afterwards, as it
// was, and what is hit is named.
func TestSalvage(t *testing.T) {
	t.Parallel()
	for _, clean := range []bool{true, false} {
		dir, held := holding(t, clean, 60, 1500)
		for _, stream := range []string{"STATE", "QUEUE"} {
			for _, s := range spoils {
				for _, twice := range []bool{false, true} {
					t.Run(fmt.Sprintf("%s/%s/clean=%v/twice=%v", stream, s.name, clean, twice), func(t *testing.T) {
						t.Parallel()
						salvage(t, dir, held, stream, s, twice)
					})
				}
			}
		}
	}
}

func salvage(t *testing.T, dir string, held stock, stream string, s spoil, twice bool) {
	spoiled := t.TempDir()
	if err := os.CopyFS(spoiled, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	file := block(spoiled, stream)
	records := recordsOf(t, file, stream)
	hit := map[string]bool{}
	damage := func(s spoil) {
		err := change(file, func(b []byte) []byte {
			b, from, to := s.do(b)
			for _, r := range records {
				if r.name != "" && r.from < to && from < r.to {
					hit[r.name] = true
				}
			}
			return b
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if twice && s.name != "emptied" {
		damage(spoils[0])
	}
	damage(s)
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var log recorder
	cfg := jetstream.Config{Dir: spoiled, Node: "n1", Log: logTo(io.MultiWriter(&log, t.Output()))}
	e := jetstream.New(cfg)
	if err := e.Open(context.Background()); err != nil {
		t.Fatal(err)
	}
	got := stockOf(t, e)
	for name, was := range held {
		switch is, there := got[name]; {
		case hit[name] && there && is != was:
			t.Errorf("%s came back changed", name)
		case !hit[name] && !there:
			t.Errorf("%s is intact and gone", name)
		case !hit[name] && is != was:
			t.Errorf("%s was\n%.100s, and is\n%.100s", name, was, is)
		}
	}
	aside, err := filepath.Glob(filepath.Join(spoiled, "damaged", stream+"-*"))
	if err != nil {
		t.Fatal(err)
	}
	if lost := len(held) - len(got); len(aside) == 1 {
		if b, err := os.ReadFile(aside[0]); err != nil || !bytes.Equal(b, before) {
			t.Errorf("what was set aside is not what was damaged: %v", err)
		}
		if !strings.Contains(log.String(), aside[0]) {
			t.Error("nobody is told where the damaged file is")
		}
		if said := log.String(); !strings.Contains(said, `unreadable" stream=`+stream) && !strings.Contains(said, "are missing at the end") {
			t.Errorf("nobody is told what is lost:\n%s", said)
		}
	} else if len(aside) > 1 || lost > len(hit) {
		t.Errorf("%d files set aside, %d lost", len(aside), lost)
	}
	// It goes on: numbers begin where they were, and a second start finds nothing.
	revisions := commit(t, e.State(), state.Change{Key: "new.1.eu.r", Value: []byte("x")})
	for name, r := range held {
		var was state.Revision
		if _, err := fmt.Sscan(r, &was); strings.HasPrefix(name, "STATE") && (err != nil || was >= revisions[0]) {
			t.Errorf("revision %d was given before %d: %v", was, revisions[0], err)
		}
	}
	publish(t, e.Queue(), "async.1.eu.new", "x         ")
	got = stockOf(t, e)
	closeEngine(t, e)
	e = jetstream.New(cfg)
	if err := e.Open(context.Background()); err != nil {
		t.Fatal(err)
	}
	if again := stockOf(t, e); !maps.Equal(again, got) {
		t.Errorf("%d of %d are there after another start", len(again), len(got))
	}
	closeEngine(t, e)
	if again, err := filepath.Glob(filepath.Join(spoiled, "damaged", "*")); err != nil || !slices.Equal(again, aside) {
		t.Errorf("set aside again: %v, %v", again, err)
	}
}

// Damage in one of several files leaves the others as they are, and a record is as it
// was changed last where that is intact.
func TestSalvageOneFileOfMany(t *testing.T) {
	t.Parallel()
	dir, held := holding(t, true, 60, 700<<10)
	var log recorder
	cfg := jetstream.Config{Dir: dir, Node: "n1", Log: logTo(&log)}
	e := jetstream.New(cfg)
	if err := e.Open(context.Background()); err != nil {
		t.Fatal(err)
	}
	// The first record's first version stays in its file.
	var was state.Revision
	if _, err := fmt.Sscan(held["STATE r.1.eu.0"], &was); err != nil {
		t.Fatal(err)
	}
	now := commit(t, e.State(), state.Change{Key: "r.1.eu.0", Value: []byte("newer"), Expect: was})
	held["STATE r.1.eu.0"] = fmt.Sprint(now[0], " newer")
	closeEngine(t, e)
	for _, stream := range []string{"STATE", "QUEUE"} {
		files, err := filepath.Glob(filepath.Join(filepath.Dir(block(dir, stream)), "*.blk"))
		if err != nil || len(files) < 2 {
			t.Fatalf("%s has the files %v: %v", stream, files, err)
		}
		records := recordsOf(t, block(dir, stream), stream)
		for i, r := range records {
			if i != 0 && i != len(records)/2 {
				continue
			}
			err := change(block(dir, stream), func(b []byte) []byte {
				clear(b[r.from+100 : r.from+110])
				return b
			})
			if err != nil {
				t.Fatal(err)
			}
			if r.name != "STATE r.1.eu.0" {
				delete(held, r.name)
			}
		}
	}
	e = openWith(t, cfg)
	got := stockOf(t, e)
	for name := range held {
		if got[name] != held[name] {
			t.Errorf("%s was\n%.100s, and is\n%.100s", name, held[name], got[name])
		}
	}
	if len(got) != len(held) {
		t.Errorf("%d are there, %d are intact", len(got), len(held))
	}
	if said := log.String(); !strings.Contains(said, "of=r.1.eu.0 ") || strings.Contains(said, "lost=[r.1.eu.0") || !strings.Contains(said, "lost=[r.1.eu.") {
		t.Errorf("the log says\n%s", said)
	}
}

// Bytes within an event that look like a record are none, even where the record that
// they are in is unreadable.
func TestSalvageIsNotFooled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cfg := jetstream.Config{Dir: dir, Node: "n1", Log: testLog(t)}
	e := jetstream.New(cfg)
	if err := e.Open(context.Background()); err != nil {
		t.Fatal(err)
	}
	publish(t, e.Queue(), subject, "1", "2", "3")
	publish(t, e.Queue(), subject, string(forged("queue.async.2.eu.other", 2))+string(forged("queue.async.2.eu.other", 1000)))
	publish(t, e.Queue(), subject, "5", "6")
	closeEngine(t, e)
	records := recordsOf(t, block(dir, "QUEUE"), "QUEUE")
	err := change(block(dir, "QUEUE"), func(b []byte) []byte {
		clear(b[records[3].from : records[3].from+30])
		return b
	})
	if err != nil {
		t.Fatal(err)
	}
	q := openWith(t, cfg).Queue()
	lanes, err := q.Lanes(context.Background(), "")
	if err != nil || len(lanes) != 1 || lanes[subject].Due != 5 {
		t.Errorf("%v, %v", lanes, err)
	}
}

// forged is a record with the right checksum.
func forged(subject string, sequence uint64) []byte {
	const header = "NATS/1.0\r\n\r\n"
	b := binary.LittleEndian.AppendUint32(nil, uint32(22+len(subject)+4+len(header)+1+8)|1<<31)
	b = binary.LittleEndian.AppendUint64(b, sequence)
	b = binary.LittleEndian.AppendUint64(b, uint64(time.Now().UnixNano()))
	b = binary.LittleEndian.AppendUint16(b, uint16(len(subject)))
	b = append(b, subject...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(header)))
	b = append(b, header+"x"...)
	key := sha256.Sum256([]byte("QUEUE-1"))
	h, err := highwayhash.New64(key[:])
	if err != nil {
		panic(err)
	}
	h.Write(b[4:20])
	h.Write([]byte(subject + header + "x"))
	return h.Sum(b)
}
