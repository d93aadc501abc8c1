package notification

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"time"

	"kiln/internal/lambda"
)

// posted is an event for a queue or topic, as it waits.
type posted struct {
	To   lambda.Destination
	Text string
}

// post puts an event for a queue or topic where it waits to be sent.
func (s *Service) post(ctx context.Context, scope lambda.Scope, t Target, text []byte) error {
	lane := lanePrefix + strings.Join([]string{string(scope.Account), string(scope.Region)}, ".")
	if err := s.queue.Publish(ctx, lane, encode(posted{lambda.Destination(t.ARN), string(text)})); err != nil {
		return err
	}
	s.mu.Lock()
	s.lanes[lane] = true
	s.mu.Unlock()
	s.wakeUp()
	return nil
}

// send sends what is due, until there is nothing more.
func (s *Service) send(ctx context.Context) {
	s.mu.Lock()
	var lanes []string
	for lane := range s.lanes {
		lanes = append(lanes, lane)
	}
	s.mu.Unlock()
	for _, lane := range lanes {
		for ctx.Err() == nil {
			due, err := s.queue.Take(ctx, lane, maxSends)
			if err != nil && ctx.Err() == nil {
				s.log.Warn("the events for queues and topics cannot be taken", "error", err)
			}
			if len(due) == 0 {
				break
			}
			var work sync.WaitGroup
			for _, d := range due {
				work.Go(func() {
					var p posted
					err := json.Unmarshal(d.Event(), &p)
					if err == nil {
						err = s.sender.Notify(ctx, p.To, p.Text)
					}
					settled := context.WithoutCancel(ctx)
					switch {
					case err == nil:
						err = d.Ack(settled)
					case time.Since(d.Accepted()) > maxAge:
						s.log.Error("an event of a bucket was dropped after a day", "target", p.To, "error", err)
						err = d.Ack(settled)
					default:
						s.log.Warn("an event of a bucket could not be sent, and is tried again", "target", p.To, "error", err)
						err = d.Retry(settled, min(again<<min(d.Attempt(), 10), maxAgain), nil)
					}
					if err != nil {
						s.log.Warn("an event of a bucket may be sent again", "target", p.To, "error", err)
					}
				})
			}
			work.Wait()
		}
	}
}
