package metrics

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"kiln/internal/lambda"
)

// maxMappings have series of their own; further ones share Others. Each costs about 25.
const maxMappings = 5000

// The names of what is counted of a mapping's events, as the label "kind".
const (
	polled      = "polled"
	filteredOut = "filtered_out"
	invoked     = "invoked"
	failed      = "failed"
	deleted     = "deleted"
	dropped     = "dropped"
	delivered   = "delivered"
)

// sourceVecs are the series of event source mappings.
type sourceVecs struct {
	events    *prometheus.CounterVec
	iterators *prometheus.HistogramVec

	mu       sync.Mutex
	mappings map[lambda.MappingARN]*Source // guarded by mu
}

func newSourceVecs() *sourceVecs {
	labels := []string{"account", "region", "mapping", "function"}
	return &sourceVecs{
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kiln_event_source_events_total", Help: "Events of event source mappings by what became of them: polled, filtered_out, invoked, failed, deleted, dropped, delivered (PolledEventCount and so on; delivered to the on-failure destination)."}, append(labels, "kind")),
		iterators: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "kiln_iterator_age_seconds", Help: "Age of the last record of each batch that was read from a stream (IteratorAge).", Buckets: ageBuckets}, labels),
		mappings: map[lambda.MappingARN]*Source{},
	}
}

// Source counts the events of one mapping.
type Source struct {
	counters  map[string]prometheus.Counter
	iterators prometheus.Observer
	function  func() *Function
}

// Source returns the counter of a mapping.
func (r *Recorder) Source(arn lambda.MappingARN, function lambda.FunctionARN) *Source {
	v := r.sources
	v.mu.Lock()
	defer v.mu.Unlock()
	if s := v.mappings[arn]; s != nil {
		return s
	}
	labels := []string{string(arn.Account), string(arn.Region), arn.ID, string(function.Name)}
	if len(v.mappings) >= maxMappings {
		labels = []string{"", "", Others, Others}
	}
	s := &Source{counters: map[string]prometheus.Counter{}, iterators: v.iterators.WithLabelValues(labels...), function: func() *Function { return r.Function(function.Unqualified()) }}
	for _, kind := range []string{polled, filteredOut, invoked, failed, deleted, dropped, delivered} {
		s.counters[kind] = v.events.WithLabelValues(append(labels, kind)...)
	}
	v.mappings[arn] = s
	return s
}

// ForgetSource drops the series of a mapping that is gone.
func (r *Recorder) ForgetSource(arn lambda.MappingARN) {
	v := r.sources
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.mappings, arn)
	labels := prometheus.Labels{"account": string(arn.Account), "region": string(arn.Region), "mapping": arn.ID}
	v.events.DeletePartialMatch(labels)
	v.iterators.DeletePartialMatch(labels)
}

// Polled counts events that were read: PolledEventCount.
func (s *Source) Polled(n int) { s.counters[polled].Add(float64(n)) }

// FilteredOut counts events that the function does not want: FilteredOutEventCount.
func (s *Source) FilteredOut(n int) { s.counters[filteredOut].Add(float64(n)) }

// Invoked counts events that the function got, each time: InvokedEventCount.
func (s *Source) Invoked(n int) { s.counters[invoked].Add(float64(n)) }

// Failed counts events that an invocation failed with: FailedInvokeEventCount.
func (s *Source) Failed(n int) { s.counters[failed].Add(float64(n)) }

// Deleted counts messages that were deleted from their queue: DeletedEventCount.
func (s *Source) Deleted(n int) { s.counters[deleted].Add(float64(n)) }

// Dropped counts events that were given up, and that no destination got: DroppedEventCount.
func (s *Source) Dropped(n int) { s.counters[dropped].Add(float64(n)) }

// Delivered counts events that were given up, and that the destination was told of:
// OnFailureDestinationDeliveredEventCount.
func (s *Source) Delivered(n int) { s.counters[delivered].Add(float64(n)) }

// IteratorAge counts a batch that was read from a stream, whose last record has that age.
func (s *Source) IteratorAge(age time.Duration) { s.iterators.Observe(age.Seconds()) }

// DestinationFailed counts a record that could not be sent to its destination.
func (s *Source) DestinationFailed() { s.function().DestinationFailed() }
