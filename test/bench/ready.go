package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"golang.org/x/sync/errgroup"
)

// crowd is how many functions are invoked for the first time at once.
const crowd = 50

// patience bounds the wait for runtimes that are to wait, and for environments to begin.
const patience = 2 * time.Minute

// look is between two looks at the metrics, which take some of the processor.
const look = 10 * time.Millisecond

// holder is a daemon with its cold starts.
type holder struct {
	*bench
	ready    bool
	endpoint string
	pid      int
}

// ready compares cold starts of a daemon that holds runtimes ready with those of one
// that holds none, and measures what an environment of the latter takes.
func (b *bench) ready(languages []*language) error {
	none, err := b.holder("none", "0")
	if err != nil {
		return err
	}
	fmt.Printf("\n## Cold start with spares, 1 client, %d starts, and %d functions at once\n\n", *colds, crowd)
	fmt.Println("| language | spares | p50 ms | p99 ms | bare start p50 ms | p50 ms of 50 at once | p99 ms of 50 at once |")
	fmt.Println("|---|---|---|---|---|---|---|")
	for _, l := range languages {
		if err := none.row(l); err != nil {
			return fmt.Errorf("%s, no spares: %w", l.name, err)
		}
		if !l.waits() {
			continue
		}
		h, err := b.holder(l.name, "4GiB") // one of its own: its spares are all of this language
		if err != nil {
			return err
		}
		if err := h.row(l); err != nil {
			return fmt.Errorf("%s, with spares: %w", l.name, err)
		}
	}
	fmt.Printf("\n## Warm environments, %d of each\n\n", crowd)
	fmt.Println("| language | private MiB | proportional MiB | daemon's CPU ms of 1000 invokes | function's CPU ms of 1000 invokes |")
	fmt.Println("|---|---|---|---|---|")
	for _, l := range languages {
		if err := none.environments(l); err != nil {
			return fmt.Errorf("environments of %s: %w", l.name, err)
		}
	}
	return nil
}

// holder starts a daemon whose spares may take so much.
func (b *bench) holder(name, size string) (*holder, error) {
	endpoint, pid, err := b.serve(*program, "up", "--listen", "127.0.0.1:0", "--data", filepath.Join(b.work, "spares-"+name), "--any-runtime",
		"--driver", *driver, "--log-level", "error", "--spare-bytes", size)
	return &holder{bench: b, ready: size != "0", endpoint: endpoint, pid: pid}, err
}

// row prints the cold starts of a language.
func (h *holder) row(l *language) error {
	var single, bare []time.Duration
	for i := range *colds + 1 {
		name := fmt.Sprintf("%s-one-%d", functionName(l), i)
		if err := h.deploy(h.endpoint, name, l); err != nil {
			return err
		}
		start := exec.Command(l.start[0], l.start[1:]...)
		start.Env = []string{}
		began := time.Now()
		_ = start.Run() // the Go one ends with an error: it has no Runtime API
		bare = append(bare, time.Since(began))
		if h.ready && i > 0 {
			if err := h.await(look, "kiln_spares ", 1); err != nil {
				return err
			}
		}
		time.Sleep(settle)
		d, err := request(http.DefaultClient, invocations(h.endpoint, name), event, len(event))
		if err != nil {
			return err
		}
		if i > 0 { // the first finds cold files
			single = append(single, d)
		}
		if err := h.remove(name); err != nil {
			return err
		}
	}
	// The first crowd asks for the spares that the second finds.
	var many []time.Duration
	for i := range 2 {
		var err error
		if many, err = h.burst(l, fmt.Sprintf("%s-many-%d", functionName(l), i)); err != nil {
			return err
		}
	}
	fmt.Printf("| %s | %s | %.1f | %.1f | %.1f | %.0f | %.0f |\n", l.name, map[bool]string{true: "runtimes", false: "none"}[h.ready], milliseconds(percentile(single, 50)), milliseconds(percentile(single, 99)),
		milliseconds(percentile(bare, 50)), milliseconds(percentile(many, 50)), milliseconds(percentile(many, 99)))
	return nil
}

// waits tells whether there are spares of a language.
func (l *language) waits() bool { return l.name == "Node.js" || l.name == "Python" }

// burst invokes functions for the first time, all at once.
func (h *holder) burst(l *language, prefix string) ([]time.Duration, error) {
	if err := h.each(prefix, func(name string) error { return h.deploy(h.endpoint, name, l) }); err != nil {
		return nil, err
	}
	if h.ready && strings.HasSuffix(prefix, "-1") {
		if err := h.await(look, "kiln_spares ", crowd); err != nil {
			return nil, err
		}
	}
	time.Sleep(settle)
	times := make([]time.Duration, crowd)
	var work errgroup.Group
	for i := range crowd {
		work.Go(func() (err error) {
			times[i], err = request(&http.Client{Transport: &http.Transport{}}, invocations(h.endpoint, prefix+strconv.Itoa(i)), event, len(event))
			return err
		})
	}
	if err := work.Wait(); err != nil {
		return nil, err
	}
	return times, h.each(prefix, h.remove)
}

// each does something for every function of a crowd.
func (h *holder) each(prefix string, do func(name string) error) error {
	var work errgroup.Group
	work.SetLimit(8)
	for i := range crowd {
		work.Go(func() error { return do(prefix + strconv.Itoa(i)) })
	}
	return work.Wait()
}

func (h *holder) remove(name string) error {
	_, err := client(h.endpoint).DeleteFunction(context.Background(), &lambda.DeleteFunctionInput{FunctionName: &name})
	return err
}

// await waits until a metric, of those with the labels, has reached a value.
func (h *holder) await(every time.Duration, metric string, least float64, labels ...string) error {
	for deadline := time.Now().Add(patience); ; time.Sleep(every) {
		got, err := h.metric(metric, labels...)
		if err != nil || got >= least {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s is %v after %s, want %v", metric, got, patience, least)
		}
	}
}

// metric sums the daemon's metrics that begin so and have the labels.
func (h *holder) metric(name string, labels ...string) (sum float64, err error) {
	answer, err := http.Get(h.endpoint + "/metrics")
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	for line := range strings.Lines(string(text)) {
		without := func(label string) bool { return !strings.Contains(line, label) }
		if fields := strings.Fields(line); strings.HasPrefix(line, name) && !slices.ContainsFunc(labels, without) {
			value, _ := strconv.ParseFloat(fields[len(fields)-1], 64)
			sum += value
		}
	}
	return sum, err
}

// environments prints what the environments of a language take that are warm.
func (h *holder) environments(l *language) error {
	name := functionName(l) + "-warm"
	if err := h.each(name, func(name string) error {
		err := h.deploy(h.endpoint, name, l)
		if err == nil {
			_, err = request(http.DefaultClient, invocations(h.endpoint, name), event, len(event))
		}
		return err
	}); err != nil {
		return err
	}
	var private, proportional int64
	pids := processes(name)
	for _, pid := range pids {
		for field, size := range rollup(pid) {
			switch field {
			case "Private_Clean", "Private_Dirty":
				private += size
			case "Pss":
				proportional += size
			}
		}
	}
	mine := processes(name + "0")
	daemon, function := cpu(h.pid), cpu(mine...)
	const invokes = 3000
	if _, _, err := load(invocations(h.endpoint, name+"0"), 1, invokes, event); err != nil {
		return err
	}
	per := func(d time.Duration) float64 { return milliseconds(d) * 1000 / invokes }
	fmt.Printf("| %s | %.1f | %.1f | %.0f | %.0f |\n", l.name, float64(private)/crowd/(1<<20), float64(proportional)/crowd/(1<<20),
		per(cpu(h.pid)-daemon), per(cpu(mine...)-function))
	return h.each(name, h.remove)
}

// processes are those in the cgroups of functions whose names begin so, and the first
// processes of their sandboxes; none without cgroups.
func processes(name string) (pids []int) {
	seen := map[int]bool{}
	for _, root := range []string{"/sys/fs/cgroup/memory", "/sys/fs/cgroup"} {
		lists, _ := filepath.Glob(root + "/kiln/*/*/" + name + "*/*/cgroup.procs") // the pattern is well formed
		for _, list := range lists {
			text, _ := os.ReadFile(list)
			for f := range strings.FieldsSeq(string(text)) {
				pid, _ := strconv.Atoi(f)
				seen[pid] = true
				stat, _ := os.ReadFile("/proc/" + f + "/stat")
				_, rest, _ := strings.Cut(string(stat), ") ")
				if fields := strings.Fields(rest); len(fields) > 1 {
					parent, _ := strconv.Atoi(fields[1])
					if command, _ := os.ReadFile("/proc/" + fields[1] + "/cmdline"); bytes.Contains(command, []byte("sandbox-init")) {
						seen[parent] = true
					}
				}
			}
		}
	}
	for pid := range seen {
		pids = append(pids, pid)
	}
	return pids
}

// rollup is a process's memory by kind, in bytes.
func rollup(pid int) map[string]int64 {
	sizes := map[string]int64{}
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	for line := range strings.Lines(string(text)) {
		if name, rest, ok := strings.Cut(line, ":"); ok {
			var kb int64
			if _, err := fmt.Sscan(rest, &kb); err == nil {
				sizes[name] = kb << 10
			}
		}
	}
	return sizes
}

// cpu is the processor time that the threads of processes have used: the figures of processes
// are in ticks of 10 ms, which is what many take.
func cpu(pids ...int) (sum time.Duration) {
	for _, pid := range pids {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid)) // the pattern is well formed
		for _, thread := range threads {
			text, _ := os.ReadFile(thread)
			first, _, _ := strings.Cut(string(text), " ")
			ns, _ := strconv.ParseInt(first, 10, 64)
			sum += time.Duration(ns)
		}
	}
	return sum
}

// scale has one function run in so many environments at once, and compares the time, and the
// processors' time, that takes with as many bare starts of its interpreter, one on each processor at a time.
func (b *bench) scale(python *language, n int) error {
	h, err := b.holder("scale", "0")
	if err != nil {
		return err
	}
	began := time.Now()
	var bare errgroup.Group
	var bareCPU atomic.Int64
	bare.SetLimit(runtime.NumCPU())
	for range n {
		bare.Go(func() error {
			c := exec.Command(python.start[0], python.start[1:]...)
			err := c.Run()
			bareCPU.Add(int64(c.ProcessState.UserTime() + c.ProcessState.SystemTime()))
			return err
		})
	}
	if err := bare.Wait(); err != nil {
		return err
	}
	starts := time.Since(began)

	l := *python
	l.files = map[string]string{"app.py": "import time\ndef handler(event, context):\n    time.sleep(event['seconds'])\n"}
	if err := h.deploy(h.endpoint, "bench-scale", &l); err != nil {
		return err
	}
	daemon := cpu(h.pid)
	began = time.Now()
	for range n {
		go func() { // ends with the daemon, at the latest
			_, _ = request(&http.Client{Transport: &http.Transport{}}, invocations(h.endpoint, "bench-scale"), []byte(`{"seconds":600}`), 1)
		}()
	}
	if err := h.await(time.Second/4, "kiln_environments{", float64(n), `state="busy"`); err != nil {
		return err
	}
	took := time.Since(began)
	used := cpu(append(processes("bench-scale"), h.pid)...) - daemon
	fmt.Printf("\n## %d environments of one function\n\n%d of Python, from none: %.1f s, %.2f × as many bare starts of the interpreter; %.1f ms of a processor each, %.2f × a bare start.\n",
		n, n, took.Seconds(), took.Seconds()/starts.Seconds(), milliseconds(used)/float64(n), float64(used)/float64(bareCPU.Load()))
	return nil
}
