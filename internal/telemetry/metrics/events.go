package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// eventVecs are the series of asynchronous invocations.
type eventVecs struct {
	received, dropped, letters, destinations, recursions *prometheus.CounterVec
	ages                                                 *prometheus.HistogramVec
}

// events are those of one function; each is nil until there is something to count.
type events struct {
	received, dropped, letters, destinations, recursions prometheus.Counter
	ages                                                 prometheus.Observer
}

// ageBuckets reach from an event that is delivered at once to the oldest, in seconds.
var ageBuckets = []float64{.001, .005, .01, .05, .1, .5, 1, 5, 15, 60, 180, 600, 1800, 3600, 3 * 3600, 6 * 3600}

func newEventVecs(function []string) eventVecs {
	counter := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, function)
	}
	return eventVecs{
		received:     counter("kiln_async_events_received_total", "Asynchronous events that were accepted (AsyncEventsReceived)."),
		dropped:      counter("kiln_async_events_dropped_total", "Asynchronous events given up without success, sent to a failure destination or dead-letter queue or not (AsyncEventsDropped)."),
		letters:      counter("kiln_dead_letter_errors_total", "Times that an event could not be sent to its dead-letter queue (DeadLetterErrors)."),
		destinations: counter("kiln_destination_delivery_failures_total", "Times that a record could not be sent to its destination (DestinationDeliveryFailures)."),
		recursions:   counter("kiln_recursive_invocations_dropped_total", "Invocations stopped because the function ran in a loop (RecursiveInvocationsDropped)."),
		ages: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "kiln_async_event_age_seconds", Help: "Time from acceptance of an asynchronous event to each of its invocations (AsyncEventAge).", Buckets: ageBuckets}, function),
	}
}

func (v eventVecs) forget(labels prometheus.Labels) {
	for _, c := range []*prometheus.CounterVec{v.received, v.dropped, v.letters, v.destinations, v.recursions} {
		c.DeletePartialMatch(labels)
	}
	v.ages.DeletePartialMatch(labels)
}

// EventReceived counts an asynchronous event that was accepted.
func (f *Function) EventReceived() { f.count(&f.events.received, f.recorder.events.received) }

// EventDropped counts an asynchronous event that is given up without success.
func (f *Function) EventDropped() { f.count(&f.events.dropped, f.recorder.events.dropped) }

// DeadLetterFailed counts an event that could not be sent to its dead-letter queue.
func (f *Function) DeadLetterFailed() { f.count(&f.events.letters, f.recorder.events.letters) }

// DestinationFailed counts a record that could not be sent to its destination.
func (f *Function) DestinationFailed() {
	f.count(&f.events.destinations, f.recorder.events.destinations)
}

// RecursionDropped counts an invocation that was stopped because it is one of a loop.
func (f *Function) RecursionDropped() { f.count(&f.events.recursions, f.recorder.events.recursions) }

// EventAge counts an invocation with an asynchronous event of that age.
func (f *Function) EventAge(age time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.forgotten {
		return
	}
	if f.events.ages == nil {
		f.events.ages = f.recorder.events.ages.WithLabelValues(f.labels()...)
	}
	f.events.ages.Observe(age.Seconds())
}
