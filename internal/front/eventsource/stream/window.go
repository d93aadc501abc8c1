package stream

import (
	"encoding/json"
	"time"
)

const (
	// maxState is what a window's state may come to before the window ends early, in bytes.
	maxState = 1 << 20
	// windowGrace is how long after its end a window waits for records that arrived in
	// it: they are stamped before they can be read.
	windowGrace = time.Second
)

// window is a tumbling window that is open, as it is kept in a position.
type window struct {
	Start time.Time       `json:"start"`
	End   time.Time       `json:"end"`
	State json.RawMessage `json:"state"`
}

// closed reports whether all of the window has come, if all has until then.
func (w *window) closed(until time.Time) bool { return !until.Before(w.End.Add(windowGrace)) }

// full reports whether the state is too large to go on with.
func (w *window) full() bool { return len(w.State) > maxState }

// open has a window begin with the record, unless one is open.
func (l *lane) open(r *record) {
	if l.settings.window > 0 && l.window == nil {
		length := int64(l.settings.window / time.Second)
		start := time.Unix(r.arrived.Unix()/length*length, 0).UTC()
		l.mu.Lock()
		l.window = &window{Start: start, End: start.Add(l.settings.window), State: json.RawMessage("{}")}
		l.mu.Unlock()
	}
}

// over reports whether the window must end before the record: it is of a later one, or
// the state, which has grown, leaves no room for it.
func (l *lane) over(r *record, room int) bool {
	w := l.window
	switch {
	case w == nil:
		return false
	case len(w.State) > len("{}") && len(r.event) > room:
		l.early = true
	}
	return l.early || w.full() || !r.arrived.Before(w.End)
}

// tooLate reports whether the last invocation of a window is given up.
func (l *lane) tooLate() bool {
	return l.settings.age > 0 && time.Since(l.window.End) >= l.settings.age
}

// next is the window after an answer of the function; it is nil after the last one.
func (w *window) next(state json.RawMessage, final bool) *window {
	if final {
		return nil
	}
	if len(state) == 0 || string(state) == "null" {
		state = json.RawMessage("{}")
	}
	return &window{Start: w.Start, End: w.End, State: state}
}
