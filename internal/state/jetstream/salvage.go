package jetstream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Of a damaged file of records or events, the intact ones are kept where they are: the
// file is set aside and another one written in its place that holds them alone. So
// each keeps its number, which is a record's revision, its time and its headers, and
// what replaced or removed others still does. The server finds gaps in the numbers, as
// it does where messages were removed.
//
// What a damaged file has lost may be a message that says that another is gone, or
// newer than another: an event may be delivered twice, a record be as it was before.

const (
	// damagedDir is where damaged files are set aside, in the data directory. They stay
	// until somebody removes them.
	damagedDir = "damaged"
	// maxNamed bounds the log lines of unreadable records, of one file.
	maxNamed = 1000
)

// indexes are files that the server makes from the others, and believes before them.
var indexes = []string{"index.db", "sched.db", "thw.db"}

// wreck is a stream of which something is damaged.
type wreck struct {
	stream  string
	account account // what the witness says of it
	clean   bool    // and whether nothing was written since
	blocks  []block
	damaged map[int]int64 // where damage begins, by the number of the block
}

// span is a part of a file that holds intact records.
type span struct {
	from, to    int
	first, last uint64 // sequences of its messages; 0 when it has none
	high        uint64 // the highest of those that are or were in it
	buried      uint64 // the highest of those that are said to be gone, from whatever file
	records     int
}

// salvage keeps what is intact.
func (e *Engine) salvage(w *wreck) error {
	aside := filepath.Join(e.cfg.Dir, damagedDir)
	if err := os.MkdirAll(aside, 0o700); err != nil {
		return err
	}
	// From the last file to the first: a message's number is below those in the next file.
	below := w.account.Last + maxAhead
	if w.clean {
		below = w.account.Last + 1
	}
	var last, buried uint64
	var gone []lost
	for i, b := range slices.Backward(w.blocks) {
		content, err := os.ReadFile(b.path)
		if err != nil {
			return err
		}
		h := recordHash(w.stream + "-" + strconv.Itoa(b.index))
		spans := intact(content, below, h)
		_, damaged := w.damaged[b.index]
		var kept []byte
		for _, s := range spans {
			kept = append(kept, content[s.from:s.to]...)
			last, buried = max(last, s.high), max(buried, s.buried)
		}
		if i == len(w.blocks)-1 && last == 0 {
			last = buried // what the server takes from a file without messages
		}
		short := i == len(w.blocks)-1 && last < w.account.Last // a crash cut off more than it wrote
		if damaged || short {
			name, err := setAside(b.path, aside, w.stream)
			if err != nil {
				return fmt.Errorf("set %s aside: %w", b.path, err)
			}
			if short {
				// The numbers must not begin again: they are revisions.
				kept = append(kept, erased(w.account.Last, time.Now(), h)...)
			}
			if err := replaceFile(b.path, kept); err != nil {
				return err
			}
			gone = append(gone, e.tell(w.stream, name, content, spans, below, short || b.size < w.account.Blocks[filepath.Base(b.path)])...)
		}
		for _, s := range slices.Backward(spans) {
			if s.first != 0 {
				below = min(below, s.first)
			}
		}
	}
	for _, name := range indexes {
		if err := os.Remove(filepath.Join(e.streamDir(w.stream), "msgs", name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return e.conclude(w, gone)
}

// intact finds the intact records of a file. What follows damage is found by searching,
// which may find bytes within an unreadable record that look like one. So numbers must
// rise from part to part, below those in the next file, and what is nearer to the end
// of the file, where the records follow each other, decides.
func intact(content []byte, below uint64, h hash.Hash64) []span {
	var spans []span
	for at := 0; at < len(content); {
		s := span{from: at, to: at}
		for s.to < len(content) {
			r, size := readRecord(content[s.to:], h)
			if size == 0 {
				break
			}
			if len(r.subject) > 0 {
				if s.first == 0 {
					s.first = r.sequence
				}
				s.last = r.sequence
			}
			if r.buried {
				s.buried = max(s.buried, r.sequence)
			} else {
				s.high = max(s.high, r.sequence)
			}
			s.records++
			s.to += size
		}
		if s.records > 0 {
			spans = append(spans, s)
		}
		at = s.to
		if at >= len(content) {
			break
		}
		// The length is trusted where it leads to another record.
		if size := lengthAt(content[at:]); size > 0 && size < len(content)-at {
			if _, next := readRecord(content[at+size:], h); next > 0 {
				at += size
				continue
			}
		}
		next := nextRecord(content[at+1:], below-1, h)
		if next < 0 {
			break
		}
		at += 1 + next
	}
	var begin uint64
	if len(spans) > 0 && spans[0].from == 0 {
		begin = spans[0].last
	}
	var kept []span
	for _, s := range slices.Backward(spans) {
		if s.from == 0 || s.first == 0 || s.first > begin && s.last < below {
			kept = append(kept, s)
			if s.first != 0 {
				below = s.first
			}
		}
	}
	slices.Reverse(kept)
	return kept
}

// lengthAt is what a record says of its length, 0 when that cannot be.
func lengthAt(b []byte) int {
	if len(b) < recordHead {
		return 0
	}
	size := int(binary.LittleEndian.Uint32(b) &^ headerBit)
	if size < recordHead+int(binary.LittleEndian.Uint16(b[20:]))+recordSum || size > maxRecord {
		return 0
	}
	return size
}

// lost is an unreadable record, or what is unreadable where not even that can be told.
type lost struct {
	at, bytes int
	subject   string // "" when it is not known
	sequence  uint64
	stored    time.Time
}

// tell logs what a file has lost, and whether its end is, and returns those records whose
// subjects are known.
func (e *Engine) tell(stream, aside string, content []byte, spans []span, below uint64, cut bool) (named []lost) {
	log := e.cfg.Log.With("stream", stream, "file", aside)
	at, after, lines, records := 0, uint64(0), 0, 0
	gap := func(to int, before uint64) {
		for _, l := range unreadable(content, at, to, after, before) {
			if lines++; lines <= maxNamed {
				if l.subject == "" {
					log.Error("records are unreadable", "at", l.at, "bytes", l.bytes, "after_number", after, "before_number", before)
				} else {
					log.Error("a record is unreadable", "at", l.at, "bytes", l.bytes, "of", nameOf(l.subject), "number", l.sequence, "stored", l.stored.UTC())
				}
			}
			if l.subject != "" {
				named = append(named, l)
			}
		}
	}
	for i, s := range spans {
		before := below
		for _, later := range spans[i:] {
			if later.first != 0 {
				before = later.first
				break
			}
		}
		gap(s.from, before)
		at, after, records = s.to, max(after, s.last), records+s.records
	}
	gap(len(content), below)
	if cut {
		log.Error("records are missing at the end", "after_number", after, "before_number", below)
	}
	log.Error("a damaged file was set aside, and what is intact was kept", "kept", records, "unreadable", lines, "logged", min(lines, maxNamed))
	return named
}

// unreadable lists what lies between two offsets. What can be told of a record is told as
// long as its head looks right: its number must be between the two.
func unreadable(content []byte, from, to int, after, before uint64) (list []lost) {
	for from < to {
		l := lost{at: from, bytes: to - from}
		b := content[from:to]
		size := lengthAt(b)
		if size > 0 {
			l.sequence = binary.LittleEndian.Uint64(b[4:])
			l.stored = time.Unix(0, int64(binary.LittleEndian.Uint64(b[12:])))
			if end := recordHead + int(binary.LittleEndian.Uint16(b[20:])); end <= len(b) && l.sequence > after && l.sequence < before {
				l.subject = subjectIn(b[recordHead:end])
			}
		}
		if l.subject != "" && size <= len(b) {
			l.bytes, after = size, l.sequence
		}
		list = append(list, l)
		from += l.bytes
	}
	return list
}

// subjectIn returns b if it is a subject of ours, else "".
func subjectIn(b []byte) string {
	for _, prefix := range []string{queuePrefix, laterPrefix, statePrefix, namePrefix} {
		if name, ok := strings.CutPrefix(string(b), prefix); ok && checkKey(name) == nil {
			return string(b)
		}
	}
	return ""
}

// nameOf is the lane of an event's subject, the key of a record's.
func nameOf(subject string) string {
	if key, ok := strings.CutPrefix(subject, statePrefix); ok {
		return key
	}
	if strings.HasPrefix(subject, namePrefix) {
		return subject
	}
	lane, _ := laneOf(subject)
	return lane
}

// conclude says what the loss means.
func (e *Engine) conclude(w *wreck, gone []lost) error {
	if w.stream == queueStream {
		e.cfg.Log.Error("events that were accepted may be lost, or come a second time; unreadable ones are named above, where that can be told")
		return nil
	}
	newest, err := e.newest(w)
	if err != nil {
		return err
	}
	missing := map[string]bool{}
	for _, l := range gone {
		if newest[l.subject] < l.sequence {
			missing[nameOf(l.subject)] = true
		}
	}
	e.cfg.Log.Error("records may be lost, or be as they were before their last change, deleted ones and revoked keys too: look at what is named, or restore a backup; packages that nothing refers to are kept while files of this stream are set aside",
		"lost", slices.Sorted(maps.Keys(missing)))
	return nil
}

// newest is the highest sequence of each subject of a salvaged stream.
func (e *Engine) newest(w *wreck) (map[string]uint64, error) {
	highest := map[string]uint64{}
	for _, b := range w.blocks {
		content, err := os.ReadFile(b.path)
		if err != nil {
			return nil, err
		}
		h := recordHash(w.stream + "-" + strconv.Itoa(b.index))
		for at := 0; at < len(content); {
			r, size := readRecord(content[at:], h)
			if size == 0 {
				break // a write that a crash cut short
			}
			if len(r.subject) > 0 {
				highest[string(r.subject)] = max(highest[string(r.subject)], r.sequence)
			}
			at += size
		}
	}
	return highest, nil
}

// setAside keeps a copy of a file, which costs no room where links are possible.
func setAside(file, dir, stream string) (name string, err error) {
	name = filepath.Join(dir, fmt.Sprintf("%s-%s-%s", stream, time.Now().UTC().Format("20060102T150405.000000"), filepath.Base(file)))
	if err := os.Link(file, name); err != nil {
		content, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		return name, replaceFile(name, content)
	}
	return name, syncFolder(dir)
}

// salvaged says whether files of the records are set aside.
func (e *Engine) salvaged() bool {
	list, err := filepath.Glob(filepath.Join(e.cfg.Dir, damagedDir, stateStream+"-*"))
	return err == nil && len(list) > 0
}
