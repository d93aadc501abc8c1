// Package metrics counts what functions do, for Prometheus and for Kiln's own
// lists. What counts as an invocation, an error or a throttle is as CloudWatch
// defines it for AWS/Lambda
// (https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html).
// It is not a store: it forgets with the process. The invoke, scheduler and
// environment packages record; the gateway serves Handler. It is the only
// importer of Prometheus.
package metrics

import (
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"kiln/internal/lambda"
)

const (
	// MaxFunctions have series of their own; what further ones do is counted
	// under the function Others of no account. Each costs about 60 series, with extensions 80.
	MaxFunctions = 5000
	// MaxVersions of one function have series of their own, and so have as many
	// throttle reasons; the rest share Others.
	MaxVersions = 20
	// Others is the label of what is above these bounds.
	Others = "(others)"
	// maxScrapes run at once.
	maxScrapes = 4
)

// ErrorKind says why an invocation ended in a function error.
type ErrorKind string

// The kinds of function errors.
const (
	NoError          ErrorKind = ""
	Handler          ErrorKind = "handler"            // the handler reported it
	Timeout          ErrorKind = "timeout"            // the function's timeout passed
	Exit             ErrorKind = "exit"               // the runtime exited
	OutOfMemory      ErrorKind = "out_of_memory"      // the memory limit killed it
	Init             ErrorKind = "init"               // it could not be initialised
	Extension        ErrorKind = "extension"          // an extension exited, or reported an error
	ResponseTooLarge ErrorKind = "response_too_large" // the answer is above its limit
	Platform         ErrorKind = "platform"           // Kiln failed after the code had begun
)

// EnvironmentState is a state of execution environments as they are counted.
type EnvironmentState string

// The states; Absent is before the first and after the last.
const (
	Absent       EnvironmentState = ""
	Initializing EnvironmentState = "init"
	Idle         EnvironmentState = "idle"
	Busy         EnvironmentState = "busy"
	Frozen       EnvironmentState = "frozen"
	Stopping     EnvironmentState = "stopping"
)

// Outcome is one run of a function's code.
type Outcome struct {
	Version   lambda.Qualifier // that ran; $LATEST or a number
	Error     ErrorKind
	Duration  time.Duration // of the code on the event, without init
	MaxMemory int64         // bytes; 0: not known
	// Extensions is the part of Duration in which extensions ran after the code was
	// done: PostRuntimeExtensionsDuration.
	Extensions time.Duration
}

// Config of a Recorder.
type Config struct {
	Version  string // of Kiln, for kiln_build_info
	Revision string
}

// Recorder counts. Methods are safe for concurrent use.
type Recorder struct {
	registry *prometheus.Registry
	handler  http.Handler
	start    time.Time

	invocations  *prometheus.CounterVec
	errors       *prometheus.CounterVec
	throttles    *prometheus.CounterVec
	durations    *prometheus.HistogramVec
	inits        *prometheus.HistogramVec
	provisioned  *prometheus.CounterVec
	spillovers   *prometheus.CounterVec
	events       eventVecs
	sources      *sourceVecs
	urls         urlVecs
	extensions   *prometheus.HistogramVec
	memory       *prometheus.GaugeVec
	environments *prometheus.GaugeVec

	functions sync.Map // lambda.FunctionARN → *Function

	mu     sync.Mutex
	count  int       // guarded by mu: of functions
	others *Function // guarded by mu
}

// durationBuckets reach from a warm invocation to the longest timeout, in seconds.
var durationBuckets = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 900}

// New returns a Recorder with a registry of its own.
func New(cfg Config) *Recorder {
	function := []string{"account", "region", "function"}
	with := func(labels ...string) []string { return append(function[:3:3], labels...) }
	r := &Recorder{
		registry: prometheus.NewRegistry(),
		start:    time.Now(),
		invocations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kiln_invocations_total", Help: "Times the function's code ran, function errors and retries included, throttled requests not."}, with("version")),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kiln_invocation_errors_total", Help: "Invocations that ended in a function error, by kind."}, with("version", "kind")),
		throttles: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kiln_throttles_total", Help: "Requests turned away for lack of concurrency or for their rate; not invocations."}, with("reason")),
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "kiln_invocation_duration_seconds", Help: "Time the code spent on an event, init excluded.", Buckets: durationBuckets}, function),
		extensions: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "kiln_post_runtime_extensions_duration_seconds", Help: "Time that extensions ran after the code was done, of invocations with such.", Buckets: durationBuckets}, function),
		inits: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "kiln_init_duration_seconds", Help: "Time an environment took to initialise the function.", Buckets: durationBuckets[:len(durationBuckets)-2]}, function),
		provisioned: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kiln_provisioned_concurrency_invocations_total", Help: "Invocations that began in environments of provisioned concurrency."}, function),
		spillovers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kiln_provisioned_concurrency_spillover_invocations_total", Help: "Invocations that began in other environments, because all of their provisioned concurrency was in use."}, function),
		memory: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "kiln_max_memory_used_bytes", Help: "Highest Max Memory Used that an invocation reported since Kiln started."}, function),
		environments: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "kiln_environments", Help: "Execution environments by state; busy ones are the function's concurrent executions."}, with("state")),
	}
	r.events = newEventVecs(function)
	r.sources = newSourceVecs()
	r.urls = newURLVecs(function, with("class"))
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "kiln_build_info", Help: "1; the labels describe the program.",
		ConstLabels: prometheus.Labels{"version": cfg.Version, "revision": cfg.Revision, "goversion": runtime.Version()}})
	build.Set(1)
	r.registry.MustRegister(r.invocations, r.errors, r.throttles, r.durations, r.inits, r.extensions, r.provisioned, r.spillovers, r.memory, r.environments, build,
		r.events.received, r.events.ages, r.events.dropped, r.events.letters, r.events.destinations, r.events.recursions,
		r.sources.events, r.sources.iterators,
		r.urls.requests, r.urls.latencies,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	r.handler = promhttp.HandlerFor(r.registry, promhttp.HandlerOpts{MaxRequestsInFlight: maxScrapes})
	return r
}

// Handler serves the metrics in Prometheus' formats.
func (r *Recorder) Handler() http.Handler { return r.handler }

// Counter exports a count that another package keeps, under a name such as
// kiln_log_events_dropped_total. A name twice is a bug and panics.
func (r *Recorder) Counter(name, help string, read func() float64) {
	r.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, read))
}

// Gauge exports a value that another package keeps. A name twice is a bug and panics.
func (r *Recorder) Gauge(name, help string, read func() float64) {
	r.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, read))
}

// Function returns the function's handle, whatever the ARN's qualifier. It
// allocates the first time only. After Forget a handle counts on, unseen.
func (r *Recorder) Function(arn lambda.FunctionARN) *Function {
	arn = arn.Unqualified()
	if f, ok := r.functions.Load(arn); ok {
		return f.(*Function)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if f, ok := r.functions.Load(arn); ok {
		return f.(*Function)
	}
	if r.count >= MaxFunctions {
		if r.others == nil {
			r.others = r.newFunction(lambda.FunctionARN{Name: Others})
		}
		return r.others
	}
	// The ARN's strings may be parts of a request.
	f := r.newFunction(lambda.FunctionARN{
		Scope: lambda.Scope{Account: lambda.AccountID(strings.Clone(string(arn.Account))), Region: lambda.Region(strings.Clone(string(arn.Region)))},
		Name:  lambda.FunctionName(strings.Clone(string(arn.Name))),
	})
	r.functions.Store(f.arn, f)
	r.count++
	return f
}

// Forget removes a deleted function's series and totals. An environment that
// lives on counts on its old handle, which nothing shows.
func (r *Recorder) Forget(arn lambda.FunctionARN) {
	r.mu.Lock()
	defer r.mu.Unlock()
	v, ok := r.functions.LoadAndDelete(arn.Unqualified())
	if !ok {
		return
	}
	r.count--
	f := v.(*Function)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.forgotten = true // or a late series would come back and stay
	labels := prometheus.Labels{"account": string(f.arn.Account), "region": string(f.arn.Region), "function": string(f.arn.Name)}
	r.invocations.DeletePartialMatch(labels)
	r.errors.DeletePartialMatch(labels)
	r.throttles.DeletePartialMatch(labels)
	r.durations.DeletePartialMatch(labels)
	r.inits.DeletePartialMatch(labels)
	r.extensions.DeletePartialMatch(labels)
	r.provisioned.DeletePartialMatch(labels)
	r.spillovers.DeletePartialMatch(labels)
	r.memory.DeletePartialMatch(labels)
	r.events.forget(labels)
	r.urls.forget(labels)
	r.environments.DeletePartialMatch(labels)
}

// Totals are a function's counts since Kiln started or the function was made.
type Totals struct {
	Invocations  int64
	Errors       int64
	Throttles    int64
	Duration     time.Duration // sum over Invocations
	Inits        int64
	Colds        int64                      // invocations that waited for an init
	Provisioned  int64                      // invocations on provisioned concurrency
	SpilledOver  int64                      // invocations for which provisioned concurrency had nothing left
	MaxMemory    int64                      // bytes; 0: not known
	Last         time.Time                  // when an invocation last ended; zero: none
	Environments map[EnvironmentState]int64 // by state, without zeros
	Durations    []DurationCount            // how many invocations took how long
}

// Totals returns the counts of every function, Others included.
func (r *Recorder) Totals() map[lambda.FunctionARN]Totals {
	all := map[lambda.FunctionARN]Totals{}
	r.functions.Range(func(arn, f any) bool {
		all[arn.(lambda.FunctionARN)] = f.(*Function).Totals()
		return true
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.others != nil {
		all[r.others.arn] = r.others.Totals()
	}
	return all
}

// Function counts for one function. Methods are safe for concurrent use.
type Function struct {
	recorder *Recorder
	arn      lambda.FunctionARN
	start    time.Time

	invocations, errors, throttles, inits, colds, onProvisioned, spilledOver atomic.Int64
	nanoseconds                                                              atomic.Int64 // sum of durations
	maxMemory                                                                atomic.Int64 // bytes
	last                                                                     atomic.Int64 // nanoseconds since start, monotonic; 0: none

	mu         sync.Mutex
	forgotten  bool                                  // guarded by mu: series are made no more
	versions   map[lambda.Qualifier]*versionSeries   // guarded by mu
	throttled  map[string]prometheus.Counter         // guarded by mu, by reason
	states     map[EnvironmentState]prometheus.Gauge // guarded by mu
	population map[EnvironmentState]int64            // guarded by mu
	spread     *spread                               // guarded by mu, likewise
	durations  prometheus.Observer                   // guarded by mu; nil: no invocation yet
	initTimes  prometheus.Observer                   // guarded by mu; nil: no init yet
	provided   prometheus.Counter                    // guarded by mu; nil: no invocation on provisioned concurrency yet
	spilled    prometheus.Counter                    // guarded by mu; nil: no spill-over yet
	extensions prometheus.Observer                   // guarded by mu; nil: none yet
	memory     prometheus.Gauge                      // guarded by mu; nil: not known
	events     events                                // guarded by mu
}

type versionSeries struct {
	label       string
	invocations prometheus.Counter
	errors      map[ErrorKind]prometheus.Counter
}

func (r *Recorder) newFunction(arn lambda.FunctionARN) *Function {
	return &Function{
		recorder:   r,
		arn:        arn,
		start:      r.start,
		versions:   map[lambda.Qualifier]*versionSeries{},
		throttled:  map[string]prometheus.Counter{},
		states:     map[EnvironmentState]prometheus.Gauge{},
		population: map[EnvironmentState]int64{},
	}
}

func (f *Function) labels(more ...string) []string {
	return append([]string{string(f.arn.Account), string(f.arn.Region), string(f.arn.Name)}, more...)
}

// Invocation counts a run of the function's code, at its end: a success or a
// function error, an asynchronous retry too. A request that was throttled,
// denied or malformed is none.
func (f *Function) Invocation(o Outcome) {
	f.invocations.Add(1)
	f.nanoseconds.Add(int64(o.Duration))
	f.last.Store(max(1, int64(time.Since(f.start))))
	if o.Error != NoError {
		f.errors.Add(1)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.spread == nil {
		f.spread = new(spread)
	}
	f.spread.add(o.Duration)
	if f.forgotten {
		return
	}
	v := f.versionLocked(o.Version)
	v.invocations.Inc()
	if o.Error != NoError {
		kind := v.errors[o.Error]
		if kind == nil {
			kind = f.recorder.errors.WithLabelValues(f.labels(v.label, string(o.Error))...)
			v.errors[o.Error] = kind
		}
		kind.Inc()
	}
	if f.durations == nil {
		f.durations = f.recorder.durations.WithLabelValues(f.labels()...)
	}
	f.durations.Observe(o.Duration.Seconds())
	if o.Extensions > 0 {
		if f.extensions == nil {
			f.extensions = f.recorder.extensions.WithLabelValues(f.labels()...)
		}
		f.extensions.Observe(o.Extensions.Seconds())
	}
	if o.MaxMemory > f.maxMemory.Load() {
		if f.memory == nil {
			f.memory = f.recorder.memory.WithLabelValues(f.labels()...)
		}
		f.maxMemory.Store(o.MaxMemory)
		f.memory.Set(float64(o.MaxMemory))
	}
}

func (f *Function) versionLocked(version lambda.Qualifier) *versionSeries {
	if v := f.versions[version]; v != nil {
		return v
	}
	if len(f.versions) >= MaxVersions || f.arn.Name == Others {
		version = Others
		if v := f.versions[version]; v != nil {
			return v
		}
	}
	label := strings.Clone(string(version))
	v := &versionSeries{label: label, invocations: f.recorder.invocations.WithLabelValues(f.labels(label)...), errors: map[ErrorKind]prometheus.Counter{}}
	f.versions[lambda.Qualifier(label)] = v
	return v
}

// Initialized counts an environment's init phase, successful or not.
func (f *Function) Initialized(took time.Duration) {
	f.inits.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.forgotten {
		return
	}
	if f.initTimes == nil {
		f.initTimes = f.recorder.inits.WithLabelValues(f.labels()...)
	}
	f.initTimes.Observe(took.Seconds())
}

// ColdStart counts an invocation that waited for an environment's init.
func (f *Function) ColdStart() { f.colds.Add(1) }

// OnProvisioned counts an invocation in an environment of provisioned concurrency.
func (f *Function) OnProvisioned() {
	f.onProvisioned.Add(1)
	f.count(&f.provided, f.recorder.provisioned)
}

// SpilledOver counts an invocation for which provisioned concurrency had no environment left.
func (f *Function) SpilledOver() {
	f.spilledOver.Add(1)
	f.count(&f.spilled, f.recorder.spillovers)
}

// count adds one to a counter without further labels, which is made with its first.
func (f *Function) count(c *prometheus.Counter, of *prometheus.CounterVec) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.forgotten {
		return
	}
	if *c == nil {
		*c = of.WithLabelValues(f.labels()...)
	}
	(*c).Inc()
}

// Throttled counts a request, or an internal attempt of an asynchronous event,
// that was turned away for AWS's reason.
func (f *Function) Throttled(reason string) {
	f.throttles.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.forgotten {
		return
	}
	c := f.throttled[reason]
	if c == nil && len(f.throttled) >= MaxVersions {
		reason = Others
		c = f.throttled[reason]
	}
	if c == nil {
		reason = strings.Clone(reason)
		c = f.recorder.throttles.WithLabelValues(f.labels(reason)...)
		f.throttled[reason] = c
	}
	c.Inc()
}

// Environment moves one environment of the function from one state to another.
// An environment uses the same handle all its life: Absent → … → Absent.
func (f *Function) Environment(from, to EnvironmentState) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.populateLocked(from, -1)
	f.populateLocked(to, 1)
}

func (f *Function) populateLocked(state EnvironmentState, n int64) {
	if state == Absent {
		return
	}
	f.population[state] += n
	if f.forgotten {
		return
	}
	g := f.states[state]
	if g == nil {
		g = f.recorder.environments.WithLabelValues(f.labels(string(state))...)
		f.states[state] = g
	}
	g.Set(float64(f.population[state]))
}

// Totals returns the function's counts.
func (f *Function) Totals() Totals {
	t := Totals{
		Invocations:  f.invocations.Load(),
		Errors:       f.errors.Load(),
		Throttles:    f.throttles.Load(),
		Duration:     time.Duration(f.nanoseconds.Load()),
		Inits:        f.inits.Load(),
		Colds:        f.colds.Load(),
		Provisioned:  f.onProvisioned.Load(),
		SpilledOver:  f.spilledOver.Load(),
		MaxMemory:    f.maxMemory.Load(),
		Environments: map[EnvironmentState]int64{},
	}
	if last := f.last.Load(); last > 0 {
		t.Last = f.start.Add(time.Duration(last))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for state, n := range f.population {
		if n != 0 {
			t.Environments[state] = n
		}
	}
	if f.spread != nil {
		t.Durations = f.spread.counts()
	}
	return t
}
