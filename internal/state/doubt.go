package state

import (
	"context"
	"errors"
	"sync"
)

// Doubt is an error of a commit of which it is not known whether it was made: the disk
// failed meanwhile. Once the disk works again that is known.
type Doubt struct {
	Cause error

	mu        sync.Mutex
	made      func([]Revision) // guarded by mu
	revisions []Revision       // guarded by mu; once it is known that it was made
}

func (d *Doubt) Error() string { return d.Cause.Error() }
func (d *Doubt) Unwrap() error { return d.Cause }

// Made is called by the store once it is known that the commit was made.
func (d *Doubt) Made(revisions []Revision) {
	d.mu.Lock()
	made := d.made
	d.revisions = revisions
	d.mu.Unlock()
	if made != nil {
		made(revisions)
	}
}

// then has a function called as soon as that is known.
func (d *Doubt) then(made func([]Revision)) {
	d.mu.Lock()
	revisions := d.revisions
	d.made = made
	d.mu.Unlock()
	if revisions != nil {
		made(revisions)
	}
}

// Commit has a store make changes, and calls made with their revisions when they are: a
// read model shows them then. That may be after an error, from another goroutine and with
// none of the caller's locks, when the disk failed meanwhile. No other change of the same
// records is made in between: they are not at the revision that it would expect.
func Commit(ctx context.Context, s State, made func([]Revision), changes ...Change) error {
	revisions, err := s.Commit(ctx, changes...)
	if err == nil {
		made(revisions)
		return nil
	}
	var doubt *Doubt
	if errors.As(err, &doubt) {
		doubt.then(made)
	}
	return err
}
