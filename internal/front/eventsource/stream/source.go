package stream

import (
	"context"
	"errors"
	"time"

	"github.com/aws/smithy-go"
)

// source is a stream of shards.
type source interface {
	// shards lists those that the stream has now.
	shards(ctx context.Context) ([]shard, error)
	// iterator begins to read a shard.
	iterator(ctx context.Context, shard string, at place) (string, error)
	// read returns what comes next, as much as the stream gives at once.
	read(ctx context.Context, shard, iterator string) (page, error)
	// interval is how long to wait for more where there was none.
	interval() time.Duration
	// batch is what a batch is called in records of failures, and timestamp the form
	// of times there.
	batch() (name, timestamp string)
}

// shard is a part of a stream, whose records are in order.
type shard struct {
	id      string
	parents []string // it was split from one, or merged from two
	closed  bool     // nothing is written to it any more
}

// place is where to read from: the oldest record that is kept, or what is set.
type place struct {
	after  string    // a sequence number
	since  time.Time // of arrival
	latest bool      // what comes from now on
}

// page is what was read at once.
type page struct {
	records []record
	next    string // iterator; "" at the end of a shard
	behind  bool   // there is more to read already
}

// What sources answer that is no failure of theirs.
var (
	errTrimmed = errors.New("what comes next is not kept any more")
	errExpired = errors.New("the iterator is too old")
	errSlower  = errors.New("it is read too often at the moment")
)

// classify finds one of the errors above in what a source answered.
func classify(err error) error {
	var answer smithy.APIError
	if !errors.As(err, &answer) {
		return err
	}
	switch answer.ErrorCode() {
	case "TrimmedDataAccessException":
		return errTrimmed
	case "ExpiredIteratorException":
		return errExpired
	case "ProvisionedThroughputExceededException", "LimitExceededException", "ThrottlingException", "KMSThrottlingException":
		return errSlower
	}
	return err
}
