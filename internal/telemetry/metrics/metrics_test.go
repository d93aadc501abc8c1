package metrics_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"kiln/internal/lambda"
	"kiln/internal/telemetry/metrics"
)

func function(name string) lambda.FunctionARN {
	return lambda.FunctionARN{Scope: lambda.Scope{Account: lambda.DefaultAccount, Region: lambda.DefaultRegion}, Name: lambda.FunctionName(name)}
}

func scrape(t testing.TB, r *metrics.Recorder) map[string]*dto.MetricFamily {
	t.Helper()
	server := httptest.NewServer(r.Handler())
	defer server.Close()
	resp, err := http.Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// series returns Kiln's own series as name{labels without account and region} value.
func series(t testing.TB, r *metrics.Recorder) (list []string) {
	t.Helper()
	for name, family := range scrape(t, r) {
		if !strings.HasPrefix(name, "kiln_") || name == "kiln_build_info" {
			continue
		}
		for _, m := range family.Metric {
			var labels []string
			for _, l := range m.Label {
				switch l.GetName() {
				case "account", "region":
					if l.GetValue() != "000000000000" && l.GetValue() != "us-east-1" {
						t.Errorf("%s of %s", name, l.GetValue())
					}
				default:
					labels = append(labels, l.GetValue())
				}
			}
			value := fmt.Sprint(m.GetCounter().GetValue() + m.GetGauge().GetValue())
			if h := m.GetHistogram(); h != nil {
				value = fmt.Sprint(h.GetSampleCount(), " in ", h.GetSampleSum())
			}
			list = append(list, name+"{"+strings.Join(labels, " ")+"} "+value)
		}
	}
	sort.Strings(list)
	return list
}

func TestScrape(t *testing.T) {
	t.Parallel()
	r := metrics.New(metrics.Config{Version: "1.2.3", Revision: "abc"})
	r.Counter("kiln_log_events_dropped_total", "Dropped.", func() float64 { return 7 })
	f := r.Function(function("f"))
	f.Environment(metrics.Absent, metrics.Initializing)
	f.Initialized(250 * time.Millisecond)
	f.Environment(metrics.Initializing, metrics.Busy)
	f.Invocation(metrics.Outcome{Version: lambda.Latest, Duration: 500 * time.Millisecond, MaxMemory: 2000})
	f.Invocation(metrics.Outcome{Version: lambda.Latest, Duration: time.Second, MaxMemory: 1000, Error: metrics.Timeout})
	f.Invocation(metrics.Outcome{Version: "1", Error: metrics.Init})
	f.Environment(metrics.Busy, metrics.Idle)
	f.Throttled("ConcurrentInvocationLimitExceeded")
	f.Throttled("ConcurrentInvocationLimitExceeded")

	want := []string{
		"kiln_environments{f busy} 0",
		"kiln_environments{f idle} 1",
		"kiln_environments{f init} 0",
		"kiln_init_duration_seconds{f} 1 in 0.25",
		"kiln_invocation_duration_seconds{f} 3 in 1.5",
		"kiln_invocation_errors_total{f init 1} 1",
		"kiln_invocation_errors_total{f timeout $LATEST} 1",
		"kiln_invocations_total{f $LATEST} 2",
		"kiln_invocations_total{f 1} 1",
		"kiln_log_events_dropped_total{} 7",
		"kiln_max_memory_used_bytes{f} 2000",
		"kiln_throttles_total{f ConcurrentInvocationLimitExceeded} 2",
	}
	if diff := cmp.Diff(want, series(t, r)); diff != "" {
		t.Error(diff)
	}
	for _, name := range []string{"kiln_build_info", "go_goroutines", "process_start_time_seconds"} {
		if scrape(t, r)[name] == nil {
			t.Errorf("no %s", name)
		}
	}

	qualified := function("f")
	qualified.Qualifier = "live"
	totals := r.Function(qualified).Totals()
	if time.Since(totals.Last) > time.Minute || totals.Last.IsZero() {
		t.Errorf("last was %s", totals.Last)
	}
	totals.Last = time.Time{}
	wantTotals := metrics.Totals{Invocations: 3, Errors: 2, Throttles: 2, Duration: 1500 * time.Millisecond, Inits: 1, MaxMemory: 2000,
		Environments: map[metrics.EnvironmentState]int64{metrics.Idle: 1}}
	totals.Durations = nil // see TestDurations
	if diff := cmp.Diff(wantTotals, totals); diff != "" {
		t.Error(diff)
	}
}

func TestForget(t *testing.T) {
	t.Parallel()
	r := metrics.New(metrics.Config{})
	f, g := r.Function(function("f")), r.Function(function("g"))
	for _, h := range []*metrics.Function{f, g} {
		h.Environment(metrics.Absent, metrics.Busy)
		h.Invocation(metrics.Outcome{Version: lambda.Latest, Error: metrics.Handler, MaxMemory: 1})
		h.Initialized(time.Second)
		h.Throttled("x")
	}
	r.Forget(function("f"))
	r.Forget(function("f"))
	// What was under way ends after the function is gone.
	f.Environment(metrics.Busy, metrics.Absent)
	f.Invocation(metrics.Outcome{Version: "2", Error: metrics.Exit, MaxMemory: 2})
	f.Initialized(time.Second)
	f.Throttled("y")
	for _, s := range series(t, r) {
		if strings.Contains(s, "{f") {
			t.Error(s)
		}
	}
	if n := len(r.Totals()); n != 1 {
		t.Errorf("%d functions have totals", n)
	}
	// A new function of the name begins at nothing.
	r.Function(function("f")).Throttled("z")
	if got := r.Totals()[function("f")]; got.Throttles != 1 || got.Invocations != 0 {
		t.Errorf("%+v", got)
	}
}

func TestCardinalityIsBounded(t *testing.T) {
	t.Parallel()
	r := metrics.New(metrics.Config{})
	f := r.Function(function("f"))
	for i := range 3 * metrics.MaxVersions {
		f.Invocation(metrics.Outcome{Version: lambda.Qualifier(fmt.Sprint(i)), Error: metrics.Handler})
		f.Throttled(fmt.Sprint("reason", i))
	}
	for name, family := range scrape(t, r) {
		if n := len(family.Metric); strings.HasPrefix(name, "kiln_") && n > metrics.MaxVersions+1 {
			t.Errorf("%d series of %s", n, name)
		}
	}
	for i := range metrics.MaxFunctions + 100 {
		r.Function(function(fmt.Sprint("function", i))).Throttled("x")
	}
	if n := len(scrape(t, r)["kiln_throttles_total"].Metric); n != metrics.MaxFunctions+metrics.MaxVersions+1 {
		t.Errorf("%d series", n)
	}
	if got := r.Totals()[lambda.FunctionARN{Name: metrics.Others}].Throttles; got != 101 {
		t.Errorf("%d throttles of the others", got)
	}
}

func TestCountsAreExact(t *testing.T) {
	t.Parallel()
	r := metrics.New(metrics.Config{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 1000 {
				f := r.Function(function(fmt.Sprint("f", i%3)))
				f.Environment(metrics.Absent, metrics.Busy)
				f.Invocation(metrics.Outcome{Version: lambda.Latest, Duration: time.Millisecond})
				f.Environment(metrics.Busy, metrics.Absent)
			}
		})
	}
	wg.Wait()
	var total float64
	for _, m := range scrape(t, r)["kiln_invocations_total"].Metric {
		total += m.GetCounter().GetValue()
	}
	for _, m := range scrape(t, r)["kiln_environments"].Metric {
		if m.GetGauge().GetValue() != 0 {
			t.Error(m)
		}
	}
	if total != 8000 {
		t.Errorf("%v invocations", total)
	}
}

func BenchmarkInvocation(b *testing.B) {
	r := metrics.New(metrics.Config{})
	arn := function("f")
	b.ReportAllocs()
	for b.Loop() {
		r.Function(arn).Invocation(metrics.Outcome{Version: lambda.Latest, Duration: time.Millisecond, MaxMemory: 1})
	}
}

// What is counted says how long any share of the invocations took, a fifth too much at most.
func TestDurations(t *testing.T) {
	t.Parallel()
	f := metrics.New(metrics.Config{}).Function(function("spread"))
	took := []time.Duration{0, 90 * time.Microsecond, 3 * time.Millisecond, 3 * time.Millisecond, 1234 * time.Millisecond, 900 * time.Second, 100 * time.Hour}
	for _, d := range took {
		f.Invocation(metrics.Outcome{Version: "1", Duration: d})
	}
	i := 0
	for _, c := range f.Totals().Durations {
		for range c.Count {
			if d := took[i]; d > time.Hour {
				if c.UpTo < 900*time.Second {
					t.Errorf("%v is counted up to %v", d, c.UpTo)
				}
			} else if c.UpTo < d || d > time.Millisecond && float64(c.UpTo) > 1.2*float64(d) {
				t.Errorf("%v is counted up to %v", d, c.UpTo)
			}
			i++
		}
	}
	if i != len(took) {
		t.Errorf("%d of %d are counted", i, len(took))
	}
}
