package logs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"kiln/internal/aws/filterpattern"
	"kiln/internal/aws/logsapi"
	"kiln/internal/aws/wire"
	"kiln/internal/telemetry/logs"
)

// What PutLogEvents takes.
const (
	maxBatch  = 1 << 20 // bytes of a request's events
	overhead  = 26      // bytes that each event counts for besides its message
	maxSpan   = 24 * time.Hour
	maxAge    = 14 * 24 * time.Hour
	maxFuture = 2 * time.Hour
)

func (c *call) PutLogEvents(ctx context.Context, in *logsapi.PutLogEventsInput) (*logsapi.PutLogEventsOutput, error) {
	arn, err := c.group(in.LogGroupName, nil)
	if err != nil {
		return nil, err
	}
	if err := check(in.LogEvents); err != nil {
		return nil, err
	}
	now := time.Now()
	events, rejected, err := c.timely(ctx, arn, in.LogEvents, now)
	if err == nil && len(events) > 0 {
		err = c.door.Store.Put(ctx, arn.Scope, arn.name, *in.LogStreamName, events)
	} else if err == nil {
		err = c.door.Store.HasStream(ctx, arn.Scope, arn.name, *in.LogStreamName)
	}
	if err != nil {
		return nil, err
	}
	return &logsapi.PutLogEventsOutput{NextSequenceToken: new(sequenceToken(now)), RejectedLogEventsInfo: rejected}, nil
}

// check refuses what is refused whole.
func check(list []logsapi.InputLogEvent) error {
	size := 0
	for i, e := range list {
		size += len(*e.Message) + overhead
		if i > 0 && *e.Timestamp < *list[i-1].Timestamp {
			return invalid("Log events in a single PutLogEvents request must be in chronological order.")
		}
	}
	if size > maxBatch {
		return invalid(fmt.Sprintf("Upload too large: %d bytes exceeds limit of %d", size, maxBatch))
	}
	if *list[len(list)-1].Timestamp-*list[0].Timestamp > maxSpan.Milliseconds() {
		return invalid("The batch of log events in a single PutLogEvents request cannot span more than 24 hours.")
	}
	return nil
}

// timely returns the events that are neither too old nor too new, and which are.
func (c *call) timely(ctx context.Context, arn groupARN, list []logsapi.InputLogEvent, now time.Time) ([]logs.Entry, *logsapi.RejectedLogEventsInfo, error) {
	expired := time.Time{}
	if day := now.AddDate(0, 0, -1); *list[0].Timestamp < day.UnixMilli() { // no retention is shorter
		g, err := c.door.Store.Group(ctx, arn.Scope, arn.name)
		if err != nil {
			return nil, nil, err
		}
		if g.RetentionDays > 0 {
			expired = now.AddDate(0, 0, -g.RetentionDays)
		}
	}
	var info logsapi.RejectedLogEventsInfo
	var kept []logs.Entry
	for i, e := range list {
		switch at := time.UnixMilli(*e.Timestamp); {
		case at.Before(now.Add(-maxAge)):
			info.TooOldLogEventEndIndex = new(i + 1)
		case at.Before(expired):
			info.ExpiredLogEventEndIndex = new(i + 1)
		case at.After(now.Add(maxFuture)):
			if info.TooNewLogEventStartIndex == nil {
				info.TooNewLogEventStartIndex = &i
			}
		default:
			kept = append(kept, logs.Entry{Time: at, Message: *e.Message})
		}
	}
	if len(kept) == len(list) {
		return kept, nil, nil
	}
	return kept, &info, nil
}

func (c *call) GetLogEvents(ctx context.Context, in *logsapi.GetLogEventsInput) (*logsapi.GetLogEventsOutput, error) {
	arn, err := c.group(in.LogGroupName, in.LogGroupIdentifier)
	if err != nil {
		return nil, err
	}
	if err := c.door.Store.HasStream(ctx, arn.Scope, arn.name, *in.LogStreamName); err != nil {
		return nil, err
	}
	q := logs.Query{Scope: arn.Scope, Group: arn.name, Streams: []string{*in.LogStreamName}, NewestFirst: !wire.Value(in.StartFromHead), Limit: eventsLimit(in.Limit)}
	q.Start, q.End = between(in.StartTime, in.EndTime)
	if in.NextToken != nil {
		if q.NewestFirst, q.Beyond, err = parsePageToken(*in.NextToken); err != nil {
			return nil, err
		}
	}
	page, err := c.door.Store.Query(ctx, q)
	if err != nil {
		return nil, err
	}
	if q.NewestFirst {
		slices.Reverse(page.Events)
	}
	out := &logsapi.GetLogEventsOutput{Events: []logsapi.OutputLogEvent{}}
	for _, e := range page.Events {
		out.Events = append(out.Events, logsapi.OutputLogEvent{Timestamp: millis(e.Time), Message: new(text(e.Message)), IngestionTime: millis(e.Arrived())})
	}
	// The same token again says that this is the end. It stays good for what is
	// still to come.
	before, after := q.Beyond, q.Beyond
	switch n := len(page.Events); {
	case n > 0:
		before, after = page.Events[0].Place(), page.Events[n-1].Place()
	case q.Beyond == logs.Place{}:
	case q.NewestFirst:
		after.Sequence-- // what lies at the place itself is on the other side
	default:
		before.Sequence++
	}
	out.NextForwardToken, out.NextBackwardToken = new(pageToken(false, after)), new(pageToken(true, before))
	return out, nil
}

// pageToken is a direction and the place that a page goes on beyond.
func pageToken(backward bool, p logs.Place) string {
	direction := "f"
	if backward {
		direction = "b"
	}
	return direction + "/" + eventID(p) + "/s"
}

func parsePageToken(token string) (backward bool, p logs.Place, err error) {
	var direction byte
	if _, err := fmt.Sscanf(token, "%c/%20d%36d/s", &direction, &p.Time, &p.Sequence); err != nil || token != pageToken(direction == 'b', p) {
		return false, p, logs.ErrCursor
	}
	return direction == 'b', p, nil
}

// eventID is 56 digits, as on AWS, in the order of the events.
func eventID(p logs.Place) string { return fmt.Sprintf("%020d%036d", p.Time, p.Sequence) }

func (c *call) FilterLogEvents(ctx context.Context, in *logsapi.FilterLogEventsInput) (*logsapi.FilterLogEventsOutput, error) {
	arn, err := c.group(in.LogGroupName, in.LogGroupIdentifier)
	if err != nil {
		return nil, err
	}
	if in.LogStreamNames != nil && in.LogStreamNamePrefix != nil {
		return nil, invalid("logStreamNames and logStreamNamePrefix are mutually exclusive parameters.")
	}
	pattern, err := filterpattern.Parse(wire.Value(in.FilterPattern))
	if err != nil {
		return nil, err
	}
	q := logs.Query{
		Scope: arn.Scope, Group: arn.name, Streams: in.LogStreamNames, StreamPrefix: wire.Value(in.LogStreamNamePrefix),
		Cursor: wire.Value(in.NextToken), Limit: eventsLimit(in.Limit),
	}
	if strings.TrimSpace(wire.Value(in.FilterPattern)) != "" {
		q.Match = pattern.Match
	}
	q.Start, q.End = between(in.StartTime, in.EndTime)
	if in.EndTime != nil {
		q.End = q.End.Add(time.Millisecond) // here, the end is included
	}
	page, err := c.door.Store.Query(ctx, q)
	if nothing := err == nil && len(page.Events) == 0 && page.Next == ""; c.wait > 0 && (nothing || errors.Is(err, logs.ErrNoGroup)) {
		q.Cursor = page.Follow
		if err := c.await(ctx, q); err != nil {
			return nil, err
		}
		page, err = c.door.Store.Query(ctx, q)
	}
	if err != nil {
		return nil, err
	}
	out := &logsapi.FilterLogEventsOutput{Events: []logsapi.FilteredLogEvent{}, SearchedLogStreams: []logsapi.SearchedLogStream{}}
	for _, e := range page.Events {
		out.Events = append(out.Events, logsapi.FilteredLogEvent{
			LogStreamName: &e.Stream, Timestamp: millis(e.Time), Message: new(text(e.Message)),
			IngestionTime: millis(e.Arrived()), EventId: new(eventID(e.Place())),
		})
	}
	if page.Next != "" {
		out.NextToken = &page.Next
	}
	c.header.Set(FollowHeader, page.Follow)
	return out, nil
}

// await waits until the group has something that came after the query's cursor.
func (c *call) await(ctx context.Context, q logs.Query) error {
	ctx, cancel := context.WithTimeout(ctx, c.wait)
	defer cancel()
	defer context.AfterFunc(c.door.Stopping, cancel)()
	if err := c.door.Store.Wait(ctx, q.Scope, q.Group, q.Cursor); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

func eventsLimit(limit *int) int {
	if limit == nil {
		return logs.MaxLimit
	}
	return *limit
}

func between(start, end *int64) (from, to time.Time) {
	if start != nil {
		from = time.UnixMilli(*start)
	}
	if end != nil {
		to = time.UnixMilli(*end)
	}
	return from, to
}

// text is a message as JSON can carry it.
func text(message string) string { return strings.ToValidUTF8(message, "\uFFFD") }
