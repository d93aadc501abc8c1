package jetstream

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// The engine repairs damaged files by cutting them off at the first damaged
// record, which loses every good record behind it, silently, and forgets the
// highest sequence. So the files are examined before it sees them, and what it has
// loaded is compared with a witness: a small file that says how far each stream
// had come, and after an orderly stop also how large each of its files was. Of a
// damaged file of records or events the intact ones are kept (salvage.go); where
// more is wrong than that, nothing is changed, and the start refused.
//
// What this cannot see: after a crash, damage to the very last record of a stream
// looks like a write that the crash cut short, and messages stored since the
// start can be missing as a whole file.

// witness is what was true of the streams when it was written.
type witness struct {
	// Clean: nothing was written after it.
	Clean   bool               `json:"clean"`
	Streams map[string]account `json:"streams"`
}

type account struct {
	Last   uint64           `json:"last"`            // highest sequence
	Blocks map[string]int64 `json:"files,omitempty"` // size of each block file in bytes; Clean only
}

func (e *Engine) witnessFile() string { return filepath.Join(e.cfg.Dir, "jetstream.witness.json") }

// streamDir is where the server keeps a stream of its one account.
func (e *Engine) streamDir(name string) string {
	return filepath.Join(e.dir(), "$G", "streams", name)
}

// damage is an error that names the stream and what to do.
func (e *Engine) damage(stream, format string, args ...any) error {
	return fmt.Errorf("the stream %s in %s is damaged: %s. Nothing was changed: restore the data directory from a backup, or use another --data",
		stream, e.dir(), fmt.Sprintf(format, args...))
}

// examine checks the files of all streams, salvages what is damaged if nothing else is
// wrong, and returns the witness, which says from then on that the streams may have changed.
func (e *Engine) examine() (*witness, error) {
	w, err := e.readWitness()
	if err != nil {
		return nil, err
	}
	dirs, err := os.ReadDir(e.streamDir(""))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("examine the engine's files: %w", err)
	}
	if w == nil {
		return nil, e.examineFresh(dirs)
	}
	found := map[string]bool{}
	var wrecks []*wreck
	for _, d := range dirs {
		found[d.Name()] = true
		wreck, err := e.examineStream(d.Name(), w)
		if err != nil {
			return nil, err
		}
		if wreck != nil {
			wrecks = append(wrecks, wreck)
		}
	}
	for name := range w.Streams {
		if !found[name] {
			return nil, e.damage(name, "it is missing")
		}
	}
	for _, wreck := range wrecks {
		if err := e.salvage(wreck); err != nil {
			return nil, fmt.Errorf("salvage the stream %s: %w", wreck.stream, err)
		}
	}
	if w.Clean {
		// Before the server touches a file: an opening that is cut short must not
		// look like damage.
		if err := e.writeWitness(witness{Streams: w.Streams}); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// examineFresh handles the lack of a witness. It is written before the first
// message is, so there must be none; what a first start has left that was cut
// short is taken away.
func (e *Engine) examineFresh(dirs []os.DirEntry) error {
	for _, d := range dirs {
		blocks, err := e.blocks(d.Name())
		if err != nil {
			return fmt.Errorf("examine the engine's files: %w", err)
		}
		for _, b := range blocks {
			if b.size > 0 {
				return e.damage(d.Name(), "%s is missing, which says how much the stream should hold", e.witnessFile())
			}
		}
	}
	if err := os.RemoveAll(e.dir()); err != nil {
		return fmt.Errorf("begin anew after an unfinished start: %w", err)
	}
	return nil
}

// examineStream returns what is to be salvaged of a stream, nil when nothing is.
func (e *Engine) examineStream(name string, w *witness) (*wreck, error) {
	if err := e.examineMeta(name); err != nil {
		return nil, err
	}
	blocks, err := e.blocks(name)
	if err != nil {
		return nil, fmt.Errorf("examine the engine's files: %w", err)
	}
	was := w.Streams[name]
	found := &wreck{stream: name, account: was, clean: w.Clean, blocks: blocks, damaged: map[int]int64{}}
	if w.Clean {
		if err := e.compareBlocks(found); err != nil {
			return nil, err
		}
		if name == blobStream {
			// Reading all packages at every start would take seconds. Get verifies each
			// blob's digest, so that it is enough to know where each record ends.
			return nil, e.examineFrames(name, blocks)
		}
	}
	var last uint64
	for i, b := range blocks {
		high, at, err := e.examineBlock(name, b, !w.Clean && i == len(blocks)-1)
		if err != nil {
			return nil, err
		}
		if at < b.size {
			found.damaged[b.index] = at
		}
		last = max(last, high)
	}
	switch {
	case len(found.damaged) == 0 && last >= was.Last:
		return nil, nil
	case len(blocks) == 0:
		return nil, e.damage(name, "its last message has the number %d and was %d", last, was.Last)
	case name != stateStream && name != queueStream:
		for _, b := range blocks {
			if at, ok := found.damaged[b.index]; ok {
				return nil, e.damage(name, "the file %s has a damaged record at byte %d", filepath.Base(b.path), at)
			}
		}
		return nil, e.damage(name, "its last message has the number %d and was %d", last, was.Last)
	}
	return found, nil
}

// examineMeta checks the stream's description against its checksum: the server
// passes over a stream whose description is damaged.
func (e *Engine) examineMeta(name string) error {
	dir := e.streamDir(name)
	content, err := os.ReadFile(filepath.Join(dir, "meta.inf"))
	if errors.Is(err, fs.ErrNotExist) {
		return e.damage(name, "meta.inf is missing")
	}
	if err != nil {
		return fmt.Errorf("examine the engine's files: %w", err)
	}
	sum, err := os.ReadFile(filepath.Join(dir, "meta.sum"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("examine the engine's files: %w", err)
	}
	h := recordHash(name)
	h.Write(content)
	if string(sum) != fmt.Sprintf("%x", h.Sum(nil)) {
		return e.damage(name, "meta.inf does not match its checksum")
	}
	return nil
}

type block struct {
	path  string
	index int
	size  int64
}

// blocks lists a stream's message files in order.
func (e *Engine) blocks(name string) (list []block, err error) {
	dir := filepath.Join(e.streamDir(name), "msgs")
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		number, ok := strings.CutSuffix(entry.Name(), ".blk")
		if !ok {
			continue
		}
		index, err := strconv.Atoi(number)
		if err != nil {
			continue
		}
		info, err := entry.Info()
		if err != nil {
			return nil, err
		}
		list = append(list, block{filepath.Join(dir, entry.Name()), index, info.Size()})
	}
	slices.SortFunc(list, func(a, b block) int { return a.index - b.index })
	return list, nil
}

// compareBlocks compares files with those of the last stop. What can be salvaged may have
// lost some of its bytes.
func (e *Engine) compareBlocks(found *wreck) error {
	blocks := map[string]block{}
	for _, b := range found.blocks {
		blocks[filepath.Base(b.path)] = b
	}
	for file, size := range found.account.Blocks {
		switch b, ok := blocks[file]; {
		case !ok:
			return e.damage(found.stream, "the file %s is missing", file)
		case b.size == size:
		case found.stream == blobStream:
			return e.damage(found.stream, "the file %s has %d bytes and had %d at the last stop", file, b.size, size)
		default:
			found.damaged[b.index] = b.size
		}
	}
	return nil
}

// examineBlock verifies every record of a file, up to the first damaged one, and returns the
// highest sequence and how far it came. With torn allowed, damage that no good record follows
// is what a crash in the middle of a write leaves, and the server rightly cuts it off.
func (e *Engine) examineBlock(stream string, b block, torn bool) (last uint64, end int64, err error) {
	content, err := os.ReadFile(b.path)
	if err != nil {
		return 0, 0, fmt.Errorf("examine the engine's files: %w", err)
	}
	h := recordHash(stream + "-" + strconv.Itoa(b.index))
	for at := 0; at < len(content); {
		r, size := readRecord(content[at:], h)
		if size == 0 {
			if torn && nextRecord(content[at+1:], last+maxAhead, h) < 0 {
				return last, b.size, nil
			}
			return last, int64(at), nil
		}
		last = max(last, r.sequence)
		at += size
	}
	return last, b.size, nil
}

// examineFrames follows the lengths of the records without reading their content.
func (e *Engine) examineFrames(stream string, blocks []block) error {
	for _, b := range blocks {
		if err := e.examineFramesOf(stream, b); err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) examineFramesOf(stream string, b block) error {
	f, err := os.Open(b.path)
	if err != nil {
		return fmt.Errorf("examine the engine's files: %w", err)
	}
	defer f.Close()
	head := make([]byte, recordHead)
	for at := int64(0); at < b.size; {
		if _, err := f.ReadAt(head, at); err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("examine the engine's files: %w", err)
		}
		size := int64(binary.LittleEndian.Uint32(head) &^ headerBit)
		subject := int64(binary.LittleEndian.Uint16(head[20:]))
		if size > maxRecord || at+size > b.size || recordHead+subject+recordSum > size {
			return e.damage(stream, "the file %s has a damaged record at byte %d", filepath.Base(b.path), at)
		}
		at += size
	}
	return nil
}

// loneMarkers lists the deletion markers of a stream, by subject, whose subjects
// have no other message in its files, neither one that is there nor one that is
// removed in memory only.
func (e *Engine) loneMarkers(stream string) (map[string]uint64, error) {
	blocks, err := e.blocks(stream)
	if err != nil {
		return nil, err
	}
	// Subjects are counted by their hashes: two that collide keep their markers.
	seed, count, markers := maphash.MakeSeed(), map[uint64]int{}, map[string]uint64{}
	for i, b := range blocks {
		content, err := os.ReadFile(b.path)
		if err != nil {
			return nil, err // a file that the server has just removed: another time
		}
		h := recordHash(stream + "-" + strconv.Itoa(b.index))
		for at := 0; at < len(content); {
			r, size := readRecord(content[at:], h)
			if size == 0 && i < len(blocks)-1 {
				return nil, fmt.Errorf("the file %s has a damaged record at byte %d", b.path, at)
			}
			if size == 0 {
				break // it is being written
			}
			at += size
			if len(r.subject) == 0 {
				continue
			}
			count[maphash.Bytes(seed, r.subject)]++
			if bytes.Contains(r.header, []byte("\r\n"+deletedHeader+":")) {
				markers[string(r.subject)] = r.sequence
			}
		}
	}
	maps.DeleteFunc(markers, func(subject string, _ uint64) bool { return count[maphash.String(seed, subject)] > 1 })
	return markers, nil
}

// checkLoaded compares what the server has loaded with what is on disk.
func (e *Engine) checkLoaded(ctx context.Context, w *witness) error {
	dirs, err := os.ReadDir(e.streamDir(""))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("examine the engine's files: %w", err)
	}
	for _, d := range dirs {
		info, err := e.streamState(ctx, d.Name())
		if err != nil {
			return e.damage(d.Name(), "the engine does not load it (%v)", err)
		}
		if w != nil && info.Last < w.Streams[d.Name()].Last {
			return e.damage(d.Name(), "its last message has the number %d and was %d", info.Last, w.Streams[d.Name()].Last)
		}
		if info.Lost != nil {
			return e.damage(d.Name(), "the engine reports messages that it cannot read: %s", info.Lost)
		}
	}
	return nil
}

type streamState struct {
	Last uint64          `json:"last_seq"`
	Lost json.RawMessage `json:"lost"`
}

func (e *Engine) streamState(ctx context.Context, name string) (streamState, error) {
	var info struct {
		State streamState `json:"state"`
	}
	err := e.api(ctx, "STREAM.INFO."+name, struct{}{}, &info)
	return info.State, err
}

// lastSequences says how far each stream is.
func (e *Engine) lastSequences(ctx context.Context) (map[string]account, error) {
	all := map[string]account{}
	for _, name := range []string{stateStream, queueStream, blobStream} {
		info, err := e.streamState(ctx, name)
		if err != nil {
			return nil, err
		}
		all[name] = account{Last: info.Last}
	}
	return all, nil
}

// renewWitness writes how far the streams of the running server are.
func (e *Engine) renewWitness(ctx context.Context, before *witness) error {
	last, err := e.lastSequences(ctx)
	if err != nil {
		return fmt.Errorf("write the engine's witness: %w", err)
	}
	if before != nil && maps.EqualFunc(before.Streams, last, func(a, b account) bool { return a.Last == b.Last }) {
		return nil
	}
	return e.writeWitness(witness{Streams: last})
}

func (e *Engine) readWitness() (*witness, error) {
	b, err := os.ReadFile(e.witnessFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the engine's witness: %w", err)
	}
	var w witness
	if err := json.Unmarshal(b, &w); err != nil {
		return nil, fmt.Errorf("%s is damaged: restore the data directory from a backup, or use another --data", e.witnessFile())
	}
	return &w, nil
}

// writeWitness replaces the file: whole or not at all.
func (e *Engine) writeWitness(w witness) error {
	streams := map[string]account{}
	for name, a := range w.Streams {
		a.Blocks = nil
		if w.Clean {
			blocks, err := e.blocks(name)
			if err != nil {
				return fmt.Errorf("write the engine's witness: %w", err)
			}
			a.Blocks = map[string]int64{}
			for _, b := range blocks {
				a.Blocks[filepath.Base(b.path)] = b.size
			}
		}
		streams[name] = a
	}
	w.Streams = streams
	b, err := json.Marshal(w)
	if err != nil {
		return err
	}
	if err := replaceFile(e.witnessFile(), b); err != nil {
		return fmt.Errorf("write the engine's witness: %w", err)
	}
	return nil
}

func replaceFile(name string, content []byte) error {
	part := name + ".tmp"
	f, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(part, name); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(name))
}

func syncFolder(name string) error {
	dir, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
