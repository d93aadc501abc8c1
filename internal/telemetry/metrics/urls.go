package metrics

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// urlVecs are the series of function URLs: of UrlRequestCount, Url4xxCount, Url5xxCount
// and UrlRequestLatency.
type urlVecs struct {
	requests  *prometheus.CounterVec
	latencies *prometheus.HistogramVec
}

func newURLVecs(function, withClass []string) urlVecs {
	return urlVecs{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kiln_url_requests_total", Help: "Requests to the function's URLs, by the class of their status: all are UrlRequestCount, 4xx Url4xxCount, 5xx Url5xxCount."}, withClass),
		latencies: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "kiln_url_request_duration_seconds", Help: "Time from a request to the function's URLs to the end of its answer (UrlRequestLatency).", Buckets: durationBuckets}, function),
	}
}

func (v urlVecs) forget(labels prometheus.Labels) {
	v.requests.DeletePartialMatch(labels)
	v.latencies.DeletePartialMatch(labels)
}

// URLRequest counts a request to one of the function's URLs at its end, with the status
// that it was answered with.
func (f *Function) URLRequest(status int, took time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.forgotten {
		return
	}
	f.recorder.urls.requests.WithLabelValues(f.labels(strconv.Itoa(status/100) + "xx")...).Inc()
	f.recorder.urls.latencies.WithLabelValues(f.labels()...).Observe(took.Seconds())
}
