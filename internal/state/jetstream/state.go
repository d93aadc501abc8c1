package jetstream

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"kiln/internal/state"
)

const (
	// statePrefix begins the subject of each record; its key follows.
	statePrefix = "state."
	// deletedHeader marks a message that says: the record is gone.
	deletedHeader = "Kiln-Deleted"
	// formatHeader says how a message is made up. Every message has one, if only
	// because the server's checksum does not cover where the subject of a message
	// without headers ends.
	formatHeader = "Kiln-Format"
	// batchHeader and the two below it make messages one atomic batch.
	// https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-50.md
	batchHeader         = "Nats-Batch-Id"
	batchSequenceHeader = "Nats-Batch-Sequence"
	batchCommitHeader   = "Nats-Batch-Commit"
	// MaxChanges bounds one commit; it is the engine's limit of an atomic batch.
	MaxChanges = 1000
	// MaxKey bounds a key, in bytes; the engine's limit of a protocol line is 4,096.
	MaxKey = 1024
	// maxOpenBatches bounds the batches under way; the engine rejects the 51st.
	maxOpenBatches = 16
	// sweepInterval is after how many deletions the markers are swept, and maxSwept
	// how many are then, at most: about 0.3 ms each, and more than come in.
	sweepInterval = 256
	maxSwept      = 2 * sweepInterval
	// maxAttempts bounds how often a commit is tried again because a removed
	// record's message was in its way.
	maxAttempts = 8
)

// State keeps each record as the one message of its subject. The message's
// sequence in the stream is the record's revision.
//
// A record is deleted by a message that marks it so: like this a deletion can be
// part of a batch and expect a revision. A commit that expects no record expects
// the marker, where there is one. The marker must outlive its predecessors in the
// files: the server removes what a newer message replaces in memory only, and
// when the marker goes first, a crash brings the record back. So markers are swept
// once no file holds an older message of their subject, which is when the server
// has compacted them.
type State struct {
	engine  *Engine
	batches chan struct{} // holds a token for each batch under way
	markers atomic.Int64  // made since the last sweep

	mu     sync.Mutex
	doubts []*doubt // guarded by mu; commits of which it is not known whether they were made

	// sweeping is held against All: a reader of several pages that saw a record
	// must not miss that it was deleted meanwhile.
	sweeping sync.RWMutex
}

// doubt is a commit that the disk failed in.
type doubt struct {
	state.Doubt
	changes []state.Change
	expect  []uint64
}

// All returns every record whose key begins with prefix, in the order of their
// last changes. A commit made meanwhile may be in it or not, whole.
func (s *State) All(ctx context.Context, prefix string) ([]state.Record, error) {
	if err := checkPrefix(prefix); err != nil {
		return nil, err
	}
	// Subjects are matched by whole tokens; the rest of the prefix is compared here.
	filter := statePrefix + prefix[:strings.LastIndexByte(prefix, '.')+1] + ">"
	s.sweeping.RLock()
	defer s.sweeping.RUnlock()
	latest := map[string]int{} // key to its place in records
	var records []state.Record
	err := s.engine.read(ctx, stateStream, filter, func(m message) error {
		key := strings.TrimPrefix(m.subject, statePrefix)
		if !strings.HasPrefix(key, prefix) {
			return nil
		}
		// A key comes twice when it was changed between two pages.
		if i, ok := latest[key]; ok {
			records[i].Key = ""
			delete(latest, key)
		}
		if m.header.Get(deletedHeader) != "" {
			return nil
		}
		latest[key] = len(records)
		records = append(records, state.Record{Key: key, Value: m.data, Revision: state.Revision(m.sequence)})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the records of %q: %w", prefix, err)
	}
	kept := records[:0]
	for _, r := range records {
		if r.Key != "" {
			kept = append(kept, r)
		}
	}
	return kept, nil
}

// Commit makes all changes or none. A deleted record's new revision is 0. What is being
// written is not cut short by the end of ctx. Where the disk fails meanwhile, the error is
// a state.Doubt.
func (s *State) Commit(ctx context.Context, changes ...state.Change) ([]state.Revision, error) {
	if err := checkChanges(changes); err != nil {
		return nil, err
	}
	if len(changes) == 0 {
		return nil, nil
	}
	// Deleting is how space is made, so that it needs none.
	if slices.ContainsFunc(changes, func(c state.Change) bool { return c.Value != nil }) {
		if err := s.engine.cfg.Free(); err != nil {
			return nil, fmt.Errorf("commit %s: %w", subjectsOf(changes), err)
		}
	}
	expect := make([]uint64, len(changes))
	for i, c := range changes {
		expect[i] = uint64(c.Expect)
	}
	for attempt := 1; ; attempt++ {
		first, err := s.publish(ctx, changes, expect)
		if err == nil {
			return s.revisions(ctx, changes, first), nil
		}
		if errors.Is(err, state.ErrConflict) && attempt < maxAttempts {
			again, lerr := s.expectMarkers(ctx, changes, expect)
			if lerr != nil {
				err = lerr
			} else if again {
				continue
			}
		}
		if errors.Is(err, state.ErrUnknown) {
			d := &doubt{state.Doubt{Cause: err}, changes, expect}
			s.mu.Lock()
			s.doubts = append(s.doubts, d)
			s.mu.Unlock()
			err = &d.Doubt
		}
		return nil, fmt.Errorf("commit %s: %w", subjectsOf(changes), err)
	}
}

// clear finds out what became of the commits in doubt, on a server that has the files now.
func (s *State) clear(ctx context.Context) error {
	for {
		s.mu.Lock()
		if len(s.doubts) == 0 {
			s.mu.Unlock()
			return nil
		}
		d := s.doubts[0]
		s.mu.Unlock()
		revisions, err := s.made(ctx, d)
		if err != nil {
			return fmt.Errorf("look whether the commit of %s was made: %w", subjectsOf(d.changes), err)
		}
		if revisions != nil {
			d.Made(revisions)
		}
		s.mu.Lock()
		s.doubts = s.doubts[1:]
		s.mu.Unlock()
	}
}

// made returns the revisions of a commit, nil if it was not made.
func (s *State) made(ctx context.Context, d *doubt) ([]state.Revision, error) {
	revisions := make([]state.Revision, len(d.changes))
	for i, c := range d.changes {
		m, err := s.engine.last(ctx, stateStream, statePrefix+c.Key)
		if errors.Is(err, state.ErrNotFound) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		// Nobody else has changed the record since: nothing was written.
		if m.sequence <= d.expect[i] || (c.Value == nil) != (m.header.Get(deletedHeader) != "") || !bytes.Equal(m.data, c.Value) {
			return nil, nil
		}
		if c.Value != nil {
			revisions[i] = state.Revision(m.sequence)
		}
	}
	return revisions, nil
}

// revisions lists what a commit made.
func (s *State) revisions(ctx context.Context, changes []state.Change, first uint64) []state.Revision {
	list := make([]state.Revision, len(changes))
	for i, c := range changes {
		if c.Value != nil {
			list[i] = state.Revision(first + uint64(i))
		} else {
			s.marked(ctx)
		}
	}
	return list
}

// marked counts a marker that was made, and sweeps from time to time.
func (s *State) marked(ctx context.Context) {
	if s.markers.Add(1)%sweepInterval > 0 {
		return
	}
	// What was committed is committed, whether ctx ends or the sweep fails.
	if err := s.sweep(context.WithoutCancel(ctx)); err != nil {
		s.engine.cfg.Log.Warn("the markers of deleted records stay", "error", err)
	}
}

// publish sends the changes and returns the first one's sequence; the others follow it.
func (s *State) publish(ctx context.Context, changes []state.Change, expect []uint64) (uint64, error) {
	if len(changes) > 1 {
		select {
		case s.batches <- struct{}{}:
			defer func() { <-s.batches }()
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
	messages := make([]*nats.Msg, len(changes))
	for i, c := range changes {
		m := nats.NewMsg(statePrefix + c.Key)
		m.Data = c.Value
		m.Header.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(expect[i], 10))
		if c.Value == nil {
			m.Header.Set(deletedHeader, "1")
		}
		messages[i] = m
	}
	s.engine.writing.RLock()
	defer s.engine.writing.RUnlock()
	sequence, err := s.engine.storeBatch(context.WithoutCancel(ctx), messages)
	if err != nil {
		return 0, err
	}
	return sequence - uint64(len(changes)-1), nil
}

// expectMarkers looks at the records that are expected not to exist and expects
// the markers that it finds in their place. It reports whether anything changed.
func (s *State) expectMarkers(ctx context.Context, changes []state.Change, expect []uint64) (changed bool, err error) {
	for i, c := range changes {
		if c.Expect != 0 {
			continue
		}
		m, err := s.engine.last(ctx, stateStream, statePrefix+c.Key)
		sequence := uint64(0)
		switch {
		case errors.Is(err, state.ErrNotFound):
		case err != nil:
			return false, err
		case m.header.Get(deletedHeader) == "":
			return false, nil // it exists: a conflict indeed
		default:
			sequence = m.sequence
		}
		if expect[i] != sequence {
			expect[i], changed = sequence, true
		}
	}
	return changed, nil
}

// sweep removes markers that have outlived what they mark, some at a time.
func (s *State) sweep(ctx context.Context) error {
	alone, err := s.engine.loneMarkers(stateStream)
	if err != nil {
		return fmt.Errorf("sweep the deleted records: %w", err)
	}
	s.sweeping.Lock()
	defer s.sweeping.Unlock()
	swept := 0
	for subject, sequence := range alone {
		if swept++; swept > maxSwept {
			break
		}
		// Up to its sequence: the record may have been made again.
		if _, err := s.engine.purge(ctx, stateStream, subject, sequence); err != nil {
			return fmt.Errorf("sweep the deleted records: %w", err)
		}
	}
	return nil
}

// acknowledgement is the server's answer to a message or to the last of a batch.
type acknowledgement struct {
	Sequence uint64              `json:"seq"`
	Error    *jetstream.APIError `json:"error"`
}

// store sends a message and returns its sequence once it is on disk.
func (e *Engine) store(ctx context.Context, m *nats.Msg) (uint64, error) {
	return e.storeBatch(ctx, []*nats.Msg{m})
}

func (r *run) store(ctx context.Context, m *nats.Msg) (uint64, error) {
	if m.Header == nil {
		m.Header = nats.Header{}
	}
	m.Header.Set(formatHeader, "1")
	ctx, cancel := r.bound(ctx, r.broken)
	defer cancel()
	answer, err := r.conn.RequestMsgWithContext(ctx, m)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return 0, explain(err)
	}
	var ack acknowledgement
	if err := json.Unmarshal(answer.Data, &ack); err != nil {
		return 0, fmt.Errorf("read the engine's answer: %w", err)
	}
	switch {
	case ack.Error == nil && ack.Sequence > 0:
		return ack.Sequence, nil
	case ack.Error == nil:
		return 0, errors.New("the engine's answer has no sequence")
	case ack.Error.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence, ack.Error.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant:
		return 0, fmt.Errorf("%w: %w", state.ErrConflict, ack.Error)
	}
	return 0, explain(ack.Error)
}

// storeBatch stores all messages or none, and returns the sequence of the last.
func (e *Engine) storeBatch(ctx context.Context, messages []*nats.Msg) (uint64, error) {
	r, err := e.current()
	if err != nil {
		return 0, err
	}
	if r.broken.Err() != nil {
		return 0, context.Cause(r.broken)
	}
	sequence, err := r.storeBatch(ctx, messages)
	if errors.Is(err, errNoAnswer) {
		r.cripple(fmt.Errorf("%w: %w", state.ErrBroken, errNoAnswer))
	}
	if err != nil && r.broken.Err() != nil && !errors.Is(err, state.ErrConflict) {
		err = fmt.Errorf("%w: %w", state.ErrUnknown, context.Cause(r.broken))
	}
	return sequence, err
}

func (r *run) storeBatch(ctx context.Context, messages []*nats.Msg) (uint64, error) {
	last := len(messages) - 1
	if last == 0 {
		return r.store(ctx, messages[0])
	}
	batch := uuid.NewString()
	for i, m := range messages {
		m.Header.Set(formatHeader, "1")
		m.Header.Set(batchHeader, batch)
		m.Header.Set(batchSequenceHeader, strconv.Itoa(i+1))
		if i == last {
			m.Header.Set(batchCommitHeader, "1")
			break
		}
		if err := r.conn.PublishMsg(m); err != nil {
			return 0, explain(err)
		}
	}
	return r.store(ctx, messages[last])
}

// unbatch makes of a message of a batch one of its own.
func unbatch(m *nats.Msg) {
	for _, h := range []string{batchHeader, batchSequenceHeader, batchCommitHeader} {
		m.Header.Del(h)
	}
}

var errNoAnswer = fmt.Errorf("the engine did not answer within %v", requestTimeout)

func checkChanges(changes []state.Change) error {
	if len(changes) > MaxChanges {
		return fmt.Errorf("commit %d changes: at most %d can be made at once", len(changes), MaxChanges)
	}
	seen := make(map[string]bool, len(changes))
	for _, c := range changes {
		if err := checkKey(c.Key); err != nil {
			return err
		}
		if seen[c.Key] {
			return fmt.Errorf("commit %s: the key appears twice", c.Key)
		}
		seen[c.Key] = true
	}
	return nil
}

func checkKey(key string) error {
	if len(key) > MaxKey {
		return fmt.Errorf("the key %.40q… has %d bytes: at most %d are allowed", key, len(key), MaxKey)
	}
	for token := range strings.SplitSeq(key, ".") {
		if !isToken(token) {
			return fmt.Errorf("the key %q is not made of tokens of [a-zA-Z0-9_$-] with dots between", key)
		}
	}
	return nil
}

// checkPrefix accepts what a key can begin with, the empty string included.
func checkPrefix(prefix string) error {
	rest := strings.TrimSuffix(prefix, ".")
	if rest == "" && prefix == "" {
		return nil
	}
	return checkKey(rest)
}

func isToken(s string) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' && c != '$' && c != '-' {
			return false
		}
	}
	return s != ""
}

// subjectsOf names the changes in an error.
func subjectsOf(changes []state.Change) string {
	if len(changes) == 1 {
		return changes[0].Key
	}
	return fmt.Sprintf("%s and %d more", changes[0].Key, len(changes)-1)
}
