// Command bench measures Kiln beside what it is compared with, in the same run and
// in turn: a bare HTTP server of the same language, and that server behind a bare
// Go reverse proxy. Java is among the languages where there is a JDK, and Maven. It
// prints Markdown tables of times and ratios; times vary from machine to machine,
// ratios less. A daemon with many functions is compared with one that has few, and a quiet
// function beside hostile ones with itself alone. It
// talks to loopback addresses only.
package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
)

var (
	requests = flag.Int("requests", 2000, "warm requests of one round and client count")
	rounds   = flag.Int("rounds", 3, "rounds; the figures are of all together")
	colds    = flag.Int("colds", 30, "cold starts of each language")
	program  = flag.String("kiln", "bin/kiln", "the program to measure")
	driver   = flag.String("driver", "auto", "its driver")
	runsc    = flag.String("runsc", "", "gVisor's program, to compare the gvisor driver with linux; none for no comparison")
	servers  = flag.Bool("servers", true, "compare invocations with bare servers")
	hostile  = flag.Bool("hostile", true, "compare a quiet function alone and beside hostile ones")
	spares   = flag.Bool("spares", true, "compare cold starts with and without runtimes held ready, and measure environments")
	scaled   = flag.Int("environments", 1000, "environments of one function at once; 0 for none")
	events   = flag.Int("events", 100000, "asynchronous events that wait while others are delivered; 0 for no such measurements")
	many     = flag.Int("functions", 10000, "functions of a daemon that is compared with a small one; 0 for no comparison")
)

// warmup is how many requests each server answers before any is timed.
const warmup = 200

// settle is the pause between two cold starts, for the work that a deployment and
// a closed environment leave behind.
const settle = 200 * time.Millisecond

// event is about 1 KB of JSON.
var event = eventOf(1011)

// eventOf is JSON of so many bytes.
func eventOf(bytes int) []byte {
	const around = len(`{"name":""}`)
	return []byte(`{"name":"` + strings.Repeat("k", bytes-around) + `"}`)
}

// language is what is compared: the function, the bare server, and the bare start.
type language struct {
	name, runtime, handler string
	files                  map[string]string // of the package; a path for what is built
	server                 []string
	start                  []string // a command that only starts the interpreter

	bare, proxied, kiln string // URLs
}

func main() {
	log.SetFlags(0)
	flag.Parse()
	if err := run(); err != nil {
		log.Fatal("bench: ", err)
	}
}

func run() error {
	work, err := os.MkdirTemp("", "kiln-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	b := &bench{work: work}
	defer b.stop()

	goServer, err := b.build("./test/bench/server", "server")
	if err != nil {
		return err
	}
	goFunction, err := b.build("./test/bench/function", "bootstrap")
	if err != nil {
		return err
	}
	// The function runs on the very interpreter that the bare server runs on. The
	// names on PATH may be scripts of a version manager, which cost time of their own.
	node, nodeVersion, err := interpreter("node", "-p", "process.execPath + ' ' + process.versions.node.split('.')[0]")
	if err != nil {
		return err
	}
	python, pythonVersion, err := interpreter("python3", "-c", "import sys; print(sys.executable, '%d.%d' % sys.version_info[:2])")
	if err != nil {
		return err
	}
	if err := os.Setenv("KILN_RUNTIME_PATHS", node+","+python); err != nil { // or another of the same version
		return err
	}
	languages := []*language{
		{name: "Node.js", runtime: "nodejs" + nodeVersion + ".x", handler: "index.handler",
			files:  map[string]string{"index.js": "exports.handler = async (event) => event;\n"},
			server: []string{node, "test/bench/server/server.mjs"}, start: []string{node, "-e", "0"}},
		{name: "Python", runtime: "python" + pythonVersion, handler: "app.handler",
			files:  map[string]string{"app.py": "def handler(event, context):\n    return event\n"},
			server: []string{python, "test/bench/server/server.py"}, start: []string{python, "-c", "pass"}},
		{name: "Go", runtime: "provided.al2023", handler: "bootstrap",
			files:  map[string]string{"bootstrap": goFunction},
			server: []string{goServer}, start: []string{goFunction}},
	}
	fmt.Printf("# Benchmark\n\n%s\n", time.Now().UTC().Format("2006-01-02"))
	if *servers {
		if err := b.compare(languages, goServer); err != nil {
			return err
		}
	}
	if *hostile {
		if err := b.neighbours(languages[1]); err != nil {
			return err
		}
	}
	if *events > 0 {
		if err := b.asynchronous(languages[1]); err != nil {
			return err
		}
	}
	if *runsc != "" {
		if err := b.gvisor(languages); err != nil {
			return err
		}
	}
	if *spares {
		if err := b.ready(languages); err != nil {
			return err
		}
	}
	if *scaled > 0 {
		if err := b.scale(languages[1], *scaled); err != nil {
			return err
		}
	}
	if *many > 0 {
		return b.functions(*many, languages[0])
	}
	return nil
}

// compare compares invocations with what bare servers answer.
func (b *bench) compare(languages []*language, goServer string) error {
	began := time.Now()
	endpoint, pid, err := b.serve(*program, "up", "--listen", "127.0.0.1:0", "--data", filepath.Join(b.work, "data"), "--any-runtime", "--driver", *driver, "--log-level", "error", "--spare-bytes", "0")
	if err != nil {
		return err
	}
	started := time.Since(began)
	time.Sleep(time.Second) // the discovery of interpreters is over
	idle := rss(pid)
	if java, err := b.java(endpoint); err != nil {
		return err
	} else if java != nil {
		languages = append(languages, java)
	}
	for _, l := range languages {
		if l.bare, _, err = b.serve(l.server[0], l.server[1:]...); err != nil {
			return err
		}
		if l.proxied, _, err = b.serve(goServer, l.bare); err != nil {
			return err
		}
		if err := b.deploy(endpoint, functionName(l), l); err != nil {
			return err
		}
		l.kiln = invocations(endpoint, functionName(l))
	}

	fmt.Printf("\n%d requests a round, %d rounds, events of %d bytes. Start to ready %d ms, idle %.1f MiB resident.\n",
		*requests, *rounds, len(event), started.Milliseconds(), float64(idle)/(1<<20))
	for _, clients := range []int{1, 8} {
		if err := warm(languages, clients); err != nil {
			return err
		}
	}
	for _, size := range []struct{ bytes, fewer int }{{1 << 20, 20}, {6 << 20, 100}} { // fewer: they take longer
		if err := large(languages, size.bytes, max(1, *requests/size.fewer)); err != nil {
			return err
		}
	}
	if err := b.streamed(endpoint, languages[0], max(1, *requests/200)); err != nil {
		return err
	}
	return b.cold(endpoint, languages)
}

// interpreter asks a program for its own path and its version.
func interpreter(name string, args ...string) (path, version string, err error) {
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		return "", "", fmt.Errorf("ask %s for its version: %w", name, err)
	}
	path, version, _ = strings.Cut(strings.TrimSpace(string(out)), " ")
	return path, version, nil
}

func invocations(endpoint, name string) string {
	return endpoint + "/2015-03-31/functions/" + name + "/invocations"
}

func functionName(l *language) string {
	return "bench-" + strings.ToLower(strings.ReplaceAll(l.name, ".", ""))
}

// warm compares servers that are running. Their rounds take turns.
func warm(languages []*language, clients int) error {
	fmt.Printf("\n## Warm, %d client(s)\n\n", clients)
	fmt.Println("| language | server | p50 ms | p99 ms | requests/s | p50 ÷ bare | p50 ÷ proxied | requests/s ÷ proxied |")
	fmt.Println("|---|---|---|---|---|---|---|---|")
	for _, l := range languages {
		targets := []struct{ name, url string }{{"bare", l.bare}, {"proxied", l.proxied}, {"kiln", l.kiln}}
		times := make([][]time.Duration, len(targets))
		spent := make([]time.Duration, len(targets))
		for round := range *rounds {
			for i, t := range targets {
				if round == 0 {
					if _, _, err := load(t.url, clients, warmup, event); err != nil {
						return fmt.Errorf("%s, %s: %w", l.name, t.name, err)
					}
				}
				d, took, err := load(t.url, clients, *requests, event)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", l.name, t.name, err)
				}
				times[i] = append(times[i], d...)
				spent[i] += took
			}
		}
		p50 := func(i int) float64 { return milliseconds(percentile(times[i], 50)) }
		rate := func(i int) float64 { return float64(len(times[i])) / spent[i].Seconds() }
		for i, t := range targets {
			fmt.Printf("| %s | %s | %.3f | %.3f | %.0f | %.2f | %.2f | %.2f |\n", l.name, t.name,
				p50(i), milliseconds(percentile(times[i], 99)), rate(i), p50(i)/p50(0), p50(i)/p50(1), rate(i)/rate(1))
		}
	}
	return nil
}

// load sends n requests from several clients, each with one connection.
func load(url string, clients, n int, event []byte) ([]time.Duration, time.Duration, error) {
	var (
		mu    sync.Mutex
		times []time.Duration
		first error
		wg    sync.WaitGroup
	)
	began := time.Now()
	for range clients {
		wg.Go(func() {
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			mine := make([]time.Duration, 0, n/clients)
			var err error
			for range n / clients {
				var d time.Duration
				if d, err = request(client, url, event, len(event)); err != nil {
					break
				}
				mine = append(mine, d)
			}
			mu.Lock()
			defer mu.Unlock()
			times = append(times, mine...)
			if first == nil {
				first = err
			}
		})
	}
	wg.Wait()
	return times, time.Since(began), first
}

// request is the time of one request, which is answered with at least so many bytes.
func request(client *http.Client, url string, event []byte, answered int) (time.Duration, error) {
	r, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(event))
	if err != nil {
		return 0, err
	}
	sign(r)
	began := time.Now()
	answer, err := client.Do(r)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	var beginning bytes.Buffer
	size, err := io.CopyN(&beginning, answer.Body, 200)
	if err == nil {
		var rest int64
		rest, err = io.Copy(io.Discard, answer.Body)
		size += rest
	}
	took := time.Since(began)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	if answer.StatusCode != http.StatusOK || answer.Header.Get("X-Amz-Function-Error") != "" || size < int64(answered) {
		return 0, fmt.Errorf("%s answered %s, %d bytes: %s", url, answer.Status, size, &beginning)
	}
	return took, nil
}

// sign makes a request one that a Kiln without keys takes.
func sign(r *http.Request) {
	now := time.Now().UTC()
	r.Header.Set("X-Amz-Date", now.Format("20060102T150405Z"))
	r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=bench/"+now.Format("20060102")+"/us-east-1/lambda/aws4_request, SignedHeaders=host;x-amz-date, Signature=0")
}

// large compares echoes of events of that size.
func large(languages []*language, size, n int) error {
	fmt.Printf("\n## Events of %d MB, 1 client, %d requests a round\n\n", size>>20, n)
	fmt.Println("| language | bare p50 ms | kiln p50 ms | kiln ÷ bare |")
	fmt.Println("|---|---|---|---|")
	event := eventOf(size)
	for _, l := range languages {
		if err := beside(l.name, []string{l.bare, l.kiln}, event, size, n); err != nil {
			return err
		}
	}
	return nil
}

// beside prints the row of a bare server and Kiln, whose rounds take turns.
func beside(name string, urls []string, event []byte, answered, n int) error {
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	times := make([][]time.Duration, len(urls))
	for round := range *rounds + 1 {
		for i, url := range urls {
			for range n {
				d, err := request(client, url, event, answered)
				if err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				if round > 0 { // the first only warms up
					times[i] = append(times[i], d)
				}
			}
		}
	}
	bare, kiln := milliseconds(percentile(times[0], 50)), milliseconds(percentile(times[1], 50))
	fmt.Printf("| %s | %.1f | %.1f | %.2f |\n", name, bare, kiln, kiln/bare)
	return nil
}

// streamed compares an answer of 50 MB that is written in pieces of 1 MB.
func (b *bench) streamed(endpoint string, l *language, n int) error {
	const megabytes = 50
	streaming := *l
	streaming.files = map[string]string{"index.js": fmt.Sprintf(`const { once } = require("node:events");
const piece = Buffer.alloc(1 << 20, "x");
exports.handler = awslambda.streamifyResponse(async (event, stream) => {
  for (let i = 0; i < %d; i++) if (!stream.write(piece)) await once(stream, "drain");
  stream.end();
});
`, megabytes)}
	if err := b.deploy(endpoint, "bench-streamed", &streaming); err != nil {
		return err
	}
	fmt.Printf("\n## Streamed answer of %d MB, 1 client, %d requests a round\n\n", megabytes, n)
	fmt.Println("| language | bare p50 ms | kiln p50 ms | kiln ÷ bare |")
	fmt.Println("|---|---|---|---|")
	return beside(l.name, []string{
		fmt.Sprintf("%s/stream?mb=%d", l.bare, megabytes),
		endpoint + "/2021-11-15/functions/bench-streamed/response-streaming-invocations",
	}, event, megabytes<<20, n)
}

// cold compares the first request of functions, each of which has no environment
// yet, with the bare start of their interpreter.
func (b *bench) cold(endpoint string, languages []*language) error {
	fmt.Printf("\n## Cold start, no runtime held ready, 1 client, %d starts\n\n", *colds)
	fmt.Println("| language | p50 ms | p99 ms | bare start p50 ms | (p50 − 5 ms) ÷ bare start |")
	fmt.Println("|---|---|---|---|---|")
	for _, l := range languages {
		var starts, bare []time.Duration
		for i := range *colds {
			name := fmt.Sprintf("%s-cold-%d", functionName(l), i)
			if err := b.deploy(endpoint, name, l); err != nil {
				return err
			}
			start := exec.Command(l.start[0], l.start[1:]...)
			start.Env = []string{} // as functions start: what is inherited can cost much
			began := time.Now()
			_ = start.Run() // the Go one ends with an error: it has no Runtime API
			bare = append(bare, time.Since(began))

			d, err := request(http.DefaultClient, invocations(endpoint, name), event, len(event))
			if err != nil {
				return err
			}
			starts = append(starts, d)
			if _, err := client(endpoint).DeleteFunction(context.Background(), &lambda.DeleteFunctionInput{FunctionName: &name}); err != nil {
				return err
			}
			time.Sleep(settle)
		}
		p50, base := milliseconds(percentile(starts, 50)), milliseconds(percentile(bare, 50))
		fmt.Printf("| %s | %.1f | %.1f | %.1f | %.2f |\n", l.name, p50, milliseconds(percentile(starts, 99)), base, (p50-5)/base)
	}
	return nil
}

func client(endpoint string) *lambda.Client {
	return lambda.New(lambda.Options{Region: "us-east-1", BaseEndpoint: &endpoint, Credentials: credentials.NewStaticCredentialsProvider("bench", "bench", "")})
}

// bench is what runs, until stop.
type bench struct {
	work     string
	commands []*exec.Cmd
}

func (b *bench) build(pkg, name string) (string, error) {
	path := filepath.Join(b.work, name)
	cmd := exec.Command("go", "build", "-o", path, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return path, nil
}

// serve starts a server and returns the first URL that it prints.
func (b *bench) serve(name string, args ...string) (url string, pid int, err error) {
	cmd := exec.Command(name, args...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", 0, err
	}
	if err := cmd.Start(); err != nil {
		return "", 0, err
	}
	b.commands = append(b.commands, cmd)
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if i := strings.Index(lines.Text(), "http://"); i >= 0 {
			url, _, _ = strings.Cut(lines.Text()[i:], " ")
			go func() { _, _ = io.Copy(io.Discard, out) }() // ends with the program
			return url, cmd.Process.Pid, nil
		}
	}
	return "", 0, fmt.Errorf("%s ended before it served", name)
}

func (b *bench) stop() {
	for _, cmd := range slices.Backward(b.commands) {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait() // killed by us
	}
}

func (b *bench) deploy(endpoint, name string, l *language) error {
	zip, err := pack(l.files)
	if err != nil {
		return err
	}
	api := client(endpoint)
	if _, err := api.CreateFunction(context.Background(), &lambda.CreateFunctionInput{
		FunctionName: &name, Runtime: types.Runtime(l.runtime), Handler: &l.handler, MemorySize: aws.Int32(512), Timeout: aws.Int32(900),
		Role: aws.String("arn:aws:iam::000000000000:role/bench"), Code: &types.FunctionCode{ZipFile: zip},
	}); err != nil {
		return err
	}
	return lambda.NewFunctionActiveV2Waiter(api, func(o *lambda.FunctionActiveV2WaiterOptions) { o.MinDelay = 10 * time.Millisecond }).
		Wait(context.Background(), &lambda.GetFunctionInput{FunctionName: &name}, time.Minute)
}
