package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/term"

	"kiln/internal/front/operator"
	"kiln/internal/lambda"
)

const topPath = "/_kiln/top"

type top struct {
	remote
	Once     bool          `help:"Print one table and end, as it does when its output is no terminal."`
	Interval time.Duration `default:"2s" placeholder:"TIME" help:"Time between looks, over which invocations per second are counted; default 2s."`
	Account  string        `placeholder:"ID" help:"Account to show; default your own, or all to whoever runs Kiln."`
}

// leastInterval keeps top from being what the machine is busy with.
const leastInterval = 100 * time.Millisecond

func (t top) Run(ctx context.Context, s *streams) error {
	if t.Interval < leastInterval {
		return fmt.Errorf("--interval %v is too short; use at least %v", t.Interval, leastInterval)
	}
	c, err := t.connect(ctx, s.getenv)
	if err != nil {
		return err
	}
	first, err := t.look(ctx, c)
	if err != nil {
		return c.explain(err)
	}
	if !t.Once && !t.JSON && terminal(s.out) && terminal(s.in) {
		return t.live(ctx, s, c, first)
	}
	select {
	case <-time.After(t.Interval):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	now, err := t.look(ctx, c)
	if err != nil {
		return c.explain(err)
	}
	view := compare(operator.Top{}, first, now)
	if t.JSON {
		return writeJSON(s.out, view)
	}
	return view.print(s.out, func(text string) string { return text })
}

// terminal tells whether a stream is one that a person sits at.
func terminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func (t top) look(ctx context.Context, c *client) (now operator.Top, err error) {
	query := map[string][]string{}
	if t.Account != "" {
		query["account"] = []string{t.Account}
	}
	err = c.get(ctx, topPath, query, &now)
	return now, err
}

// topView is what is shown at one moment.
type topView struct {
	Environments int64             `json:"environments"`
	Memory       int64             `json:"memory_bytes"`
	PerSecond    float64           `json:"invocations_per_second"`
	Machine      *operator.Machine `json:"machine,omitempty"`
	Functions    []topLine         `json:"functions"`
}

// topLine is one function.
type topLine struct {
	Account     lambda.AccountID    `json:"account"`
	Region      lambda.Region       `json:"region"`
	Name        lambda.FunctionName `json:"name"`
	Busy        int64               `json:"busy"`
	Idle        int64               `json:"idle"`
	Starting    int64               `json:"starting"`
	Stopping    int64               `json:"stopping"`
	Provisioned int                 `json:"provisioned"`
	Memory      int64               `json:"memory_bytes"`
	PerSecond   float64             `json:"invocations_per_second"`
	Invocations int64               `json:"invocations"`
	Errors      int64               `json:"errors"`
	Throttles   int64               `json:"throttles"`
	Colds       int64               `json:"cold_starts"`
	P50         float64             `json:"p50_ms"` // 0: no invocation
	P99         float64             `json:"p99_ms"`
}

// name is how functions are told apart.
func name(f operator.TopFunction) lambda.FunctionARN {
	return lambda.FunctionARN{Scope: lambda.Scope{Account: f.Account, Region: f.Region}, Name: f.Name}
}

// compare makes a view of now. Rates are since before; other counts since from, of which
// the zero Top is the start of Kiln.
func compare(from, before, now operator.Top) topView {
	v := topView{Machine: now.Machine, Functions: []topLine{}}
	index := func(t operator.Top) map[lambda.FunctionARN]operator.TopFunction {
		m := map[lambda.FunctionARN]operator.TopFunction{}
		for _, f := range t.Functions {
			m[name(f)] = f
		}
		return m
	}
	olds, lasts := index(from), index(before)
	seconds := now.At.Sub(before.At).Seconds()
	for _, f := range now.Functions {
		old, last := olds[name(f)], lasts[name(f)]
		if f.Invocations < old.Invocations { // Kiln or the function began anew
			old = operator.TopFunction{}
		}
		if f.Invocations < last.Invocations {
			last = operator.TopFunction{}
		}
		line := topLine{
			Account: f.Account, Region: f.Region, Name: f.Name,
			Busy: f.Environments["busy"], Idle: f.Environments["idle"] + f.Environments["frozen"], Starting: f.Environments["init"], Stopping: f.Environments["stopping"],
			Provisioned: f.Provisioned, Memory: f.Memory,
			Invocations: f.Invocations - old.Invocations, Errors: f.Errors - old.Errors, Throttles: f.Throttles - old.Throttles, Colds: f.Colds - old.Colds,
			P50: quantile(old.Durations, f.Durations, 0.5), P99: quantile(old.Durations, f.Durations, 0.99),
		}
		if seconds > 0 {
			line.PerSecond = float64(f.Invocations-last.Invocations) / seconds
		}
		v.PerSecond += line.PerSecond
		v.Memory += line.Memory
		v.Environments += line.Busy + line.Idle + line.Starting + line.Stopping
		v.Functions = append(v.Functions, line)
	}
	v.order(byRate)
	return v
}

// quantile is what that share of the invocations between two looks took at most, in
// milliseconds; 0 of none.
func quantile(old, now []operator.TopDuration, q float64) float64 {
	was := map[float64]int64{}
	for _, d := range old {
		was[d.UpTo] = d.Count
	}
	var all, seen int64
	for _, d := range now {
		all += d.Count - was[d.UpTo]
	}
	for _, d := range now {
		if seen += d.Count - was[d.UpTo]; all > 0 && float64(seen) >= q*float64(all) {
			return d.UpTo
		}
	}
	return 0
}

// topOrder is what lines are ordered by, the most first; then by name.
type topOrder string

const (
	byRate   topOrder = "i"
	byMemory topOrder = "m"
	byErrors topOrder = "e"
	byName   topOrder = "n"
)

func (v *topView) order(by topOrder) {
	slices.SortFunc(v.Functions, func(a, b topLine) int {
		most := 0
		switch by {
		case byRate:
			most = cmp.Or(cmp.Compare(b.PerSecond, a.PerSecond), cmp.Compare(b.Busy, a.Busy))
		case byMemory:
			most = cmp.Compare(b.Memory, a.Memory)
		case byErrors:
			most = cmp.Compare(b.Errors+b.Throttles, a.Errors+a.Throttles)
		}
		return cmp.Or(most, cmp.Compare(a.Name, b.Name), cmp.Compare(a.Account, b.Account), cmp.Compare(a.Region, b.Region))
	})
}

// print writes the view as a table, with what stands out made so by strong.
func (v topView) print(out io.Writer, strong func(string) string) error {
	fmt.Fprintf(out, "%d environments hold %s; %s invocations/s.", v.Environments, bytesOf(v.Memory), rateOf(v.PerSecond))
	if m := v.Machine; m != nil {
		fmt.Fprintf(out, " They may hold %s; %s are free. %d spares hold %s.", bytesOf(m.MemoryBudget), bytesOf(m.Available), m.Spares, bytesOf(m.SpareBytes))
	}
	fmt.Fprint(out, "\n\n")
	several := slices.ContainsFunc(v.Functions, func(l topLine) bool { return l.Account != v.Functions[0].Account || l.Region != v.Functions[0].Region })
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "FUNCTION\tBUSY\tIDLE\tSTARTING\tPROVISIONED\tMEMORY\tINV/S\tINVOCATIONS\tERRORS\tTHROTTLES\tCOLD\tP50\tP99")
	for _, l := range v.Functions {
		shown := string(l.Name)
		if several {
			shown = fmt.Sprintf("%s/%s/%s", l.Account, l.Region, l.Name)
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%s\t%s\t%d\t%d\t%d\t%s\t%s\t%s\n", shown, l.Busy, l.Idle, l.Starting, l.Provisioned, bytesOf(l.Memory),
			rateOf(l.PerSecond), l.Invocations, l.Errors, l.Throttles, shareOf(l.Colds, l.Invocations), timeOf(l.P50), timeOf(l.P99))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if len(v.Functions) == 0 {
		_, err := fmt.Fprintln(out, "No function has run yet.")
		return err
	}
	head, rest, _ := strings.Cut(table.String(), "\n")
	_, err := fmt.Fprintf(out, "%s\n%s", strong(head), rest)
	return err
}

func rateOf(perSecond float64) string { return fmt.Sprintf("%.1f", perSecond) }

func shareOf(part, all int64) string {
	if all == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f%%", 100*float64(part)/float64(all))
}

func timeOf(ms float64) string {
	switch {
	case ms == 0:
		return "-"
	case ms < 10:
		return fmt.Sprintf("%.1f ms", ms)
	case ms < 10_000:
		return fmt.Sprintf("%.0f ms", ms)
	default:
		return fmt.Sprintf("%.0f s", ms/1000)
	}
}

func bytesOf(n int64) string {
	if n >= 10<<30 {
		return fmt.Sprintf("%d GB", n>>30)
	}
	return fmt.Sprintf("%.1f MB", float64(n)/(1<<20))
}
