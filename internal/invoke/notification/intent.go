package notification

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	"kiln/internal/lambda"
	"kiln/internal/state"
)

// Intent is a change of objects that is about to be made. Exactly one of Done, Undone
// and Unknown is called.
//
//	Begin ──▶ open ──Done──▶ told ──▶ gone
//	            │ └──Undone──────────▶ gone
//	            └─Unknown, or a crash─▶ settled by a look ──▶ told or gone
type Intent struct {
	service *Service
	saved   saved
	key     string // of the record
	at      state.Revision
}

// saved is an intent as it is kept.
type saved struct {
	Scope   lambda.Scope
	Bucket  string
	Request Request
	Objects []Object // as they are wanted to become
	Known   bool     // that they have
}

// ErrBusy says that too many changes are under way or have yet to be told of.
var ErrBusy = errors.New("too many changes of objects have yet to be told of")

// Begin says that objects are about to be changed; of each, the key, the version if one
// is named, and the event are known. It returns once that is on the disk. The intent is
// nil where nobody is to be told.
func (s *Service) Begin(ctx context.Context, scope lambda.Scope, bucket string, r Request, objects []Object) (*Intent, error) {
	targets := s.Targets(scope, bucket)
	objects = slices.DeleteFunc(slices.Clone(objects), func(o Object) bool {
		return !slices.ContainsFunc(targets, func(t Target) bool {
			return t.wants(o.Event, o.Key) || o.Event == removed && t.wants(Marked, o.Key)
		})
	})
	if len(objects) == 0 {
		return nil, nil
	}
	s.mu.Lock()
	if s.open >= maxOpen {
		s.mu.Unlock()
		return nil, ErrBusy
	}
	s.open++
	s.mu.Unlock()
	i := &Intent{
		service: s, saved: saved{scope, bucket, r, objects, false},
		key: strings.Join([]string{intents, string(scope.Account), string(scope.Region), s.sequencer()}, "."),
	}
	if err := i.save(ctx); err != nil {
		i.closed()
		return nil, err
	}
	return i, nil
}

// The events of what was removed.
const (
	removed = "ObjectRemoved:Delete"
	// Marked is what an object is whose newest version says that there is none.
	Marked = "ObjectRemoved:DeleteMarkerCreated"
)

func (i *Intent) save(ctx context.Context) error {
	b, err := json.Marshal(i.saved)
	if err != nil {
		return err
	}
	revisions, err := i.service.state.Commit(ctx, state.Change{Key: i.key, Value: b, Expect: i.at})
	if err != nil {
		return fmt.Errorf("keep what is about to change: %w", err)
	}
	i.at = revisions[0]
	return nil
}

func (i *Intent) closed() {
	i.service.mu.Lock()
	defer i.service.mu.Unlock()
	i.service.open--
	delete(i.service.late, i.key)
}

// forget ends the intent. One that cannot be forgotten is settled at the next start.
func (i *Intent) forget(ctx context.Context) {
	if _, err := i.service.state.Commit(ctx, state.Change{Key: i.key, Expect: i.at}); err != nil {
		i.service.log.Warn("a change that was told of is not forgotten, and may be told of again", "bucket", i.saved.Bucket, "error", err)
	}
	i.closed()
}

// Undone says that nothing was changed.
func (i *Intent) Undone(ctx context.Context) { i.forget(context.WithoutCancel(ctx)) }

// Done says what has become of the objects. It returns once their events are on the
// disk, or it is there that they have yet to be told.
func (i *Intent) Done(ctx context.Context, r Request, objects []Object) {
	ctx = context.WithoutCancel(ctx)
	i.saved.Request, i.saved.Objects, i.saved.Known = r, objects, true
	if err := i.tell(ctx); err == nil {
		i.forget(ctx)
		return
	} else {
		i.service.log.Warn("events of a bucket have to wait", "bucket", i.saved.Bucket, "error", err)
	}
	if err := i.save(ctx); err != nil {
		i.service.log.Error("what has become of objects cannot be kept", "bucket", i.saved.Bucket, "error", err)
	}
	i.later()
}

// Unknown says that it is not known what has become of the objects: they are looked at.
func (i *Intent) Unknown() { i.later() }

func (i *Intent) later() {
	i.service.mu.Lock()
	i.service.late[i.key] = i
	i.service.mu.Unlock()
	i.service.wakeUp()
}

func (i *Intent) tell(ctx context.Context) error {
	for _, o := range i.saved.Objects {
		if err := i.service.tell(ctx, i.saved.Scope, i.saved.Bucket, i.saved.Request, o); err != nil {
			return err
		}
	}
	return nil
}

// settle looks at the objects, unless it is known what has become of them, and tells of them.
func (i *Intent) settle(ctx context.Context) error {
	if !i.saved.Known {
		var found []Object
		for _, o := range i.saved.Objects {
			o, changed, err := i.service.look(ctx, i.saved.Scope, i.saved.Bucket, o)
			if err != nil {
				return err
			}
			if changed {
				found = append(found, o)
			}
		}
		i.saved.Objects, i.saved.Known = found, true
	}
	if err := i.tell(ctx); err != nil {
		return err
	}
	i.forget(ctx)
	return nil
}

// look finds out whether an object is now as it was wanted to become. It is not
// compared with what it was before: then an event could be missed.
func (s *Service) look(ctx context.Context, scope lambda.Scope, bucket string, o Object) (_ Object, is bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	u := &url.URL{Path: "/" + bucket + "/" + o.Key, RawPath: "/" + bucket + "/" + (&url.URL{Path: o.Key}).EscapedPath()}
	if o.Version != "" {
		u.RawQuery = url.Values{"versionId": {o.Version}}.Encode()
	}
	answer, err := s.objects.Do(scope, (&http.Request{Method: http.MethodHead, URL: u, Header: http.Header{}}).WithContext(ctx))
	if err != nil {
		return o, false, err
	}
	answer.Body.Close()
	gone := answer.StatusCode == http.StatusNotFound || answer.StatusCode == http.StatusMethodNotAllowed // of a version that says that it is gone
	switch {
	case !gone && answer.StatusCode != http.StatusOK:
		return o, false, fmt.Errorf("look at an object: status %d", answer.StatusCode)
	case o.Event == removed && o.Version == "" && answer.Header.Get("X-Amz-Delete-Marker") == "true":
		o.Event, o.Version = Marked, answer.Header.Get("X-Amz-Version-Id")
		return o, true, nil
	case strings.HasPrefix(o.Event, "ObjectRemoved:"), o.Event == "ObjectTagging:Delete" && gone:
		return o, gone, nil
	}
	o.ETag, o.Version = strings.Trim(answer.Header.Get("Etag"), `"`), answer.Header.Get("X-Amz-Version-Id")
	o.Size, _ = strconv.ParseInt(answer.Header.Get("Content-Length"), 10, 64) // of a HEAD it is there
	return o, !gone, nil
}

// Look completes what is known of an object that was made.
func (s *Service) Look(ctx context.Context, scope lambda.Scope, bucket string, o Object) Object {
	if found, is, err := s.look(ctx, scope, bucket, o); err == nil && is {
		return found
	}
	return o
}

// reopen loads the intents that a crash has left, and settles them.
func (s *Service) reopen(ctx context.Context) error {
	records, err := s.state.All(ctx, intents+".")
	if err != nil {
		return fmt.Errorf("load what was about to change: %w", err)
	}
	for _, r := range records {
		i := &Intent{service: s, key: r.Key, at: r.Revision}
		if err := json.Unmarshal(r.Value, &i.saved); err != nil {
			return fmt.Errorf("the record %s is damaged: %w", r.Key, err)
		}
		s.open++
		s.late[i.key] = i
	}
	if len(records) > 0 {
		s.log.Info("changes of objects that were cut off are looked at", "changes", len(records))
		s.settleLate(ctx)
	}
	return nil
}

// settleLate settles what waits for it; what fails waits on.
func (s *Service) settleLate(ctx context.Context) {
	s.mu.Lock()
	waiting := maps.Clone(s.late)
	s.mu.Unlock()
	var once sync.Once
	for _, key := range slices.Sorted(maps.Keys(waiting)) {
		if ctx.Err() != nil {
			return
		}
		if err := waiting[key].settle(ctx); err != nil && ctx.Err() == nil {
			once.Do(func() { s.log.Warn("events of a bucket still wait", "bucket", waiting[key].saved.Bucket, "error", err) })
		}
	}
}
