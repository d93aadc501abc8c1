package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
)

// toldPython says that it was called, to whoever listens, and then does what the event says.
const toldPython = `
import socket, time
def handler(event, context):
    if event["to"]:
        host, port = event["to"].split(":")
        with socket.create_connection((host, int(port))) as s:
            s.sendall(event["id"].encode())
    if event["do"] == "fail":
        raise ValueError("no")
    time.sleep(event["do"])
`

// asynchronous measures what accepting and delivering events takes, and what a quiet
// function's events take beside a function with a mountain of them.
func (b *bench) asynchronous(python *language) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer listener.Close()
	arrived := make(chan string, 1)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			id, _ := io.ReadAll(conn) // "" is nobody's
			conn.Close()
			arrived <- string(id)
		}
	}()
	d := &daemon{bench: b, data: filepath.Join(b.work, "async"), flags: []string{"--network", "host", "--async-retry-delay", "2s"}}
	if _, err := d.start(); err != nil {
		return err
	}
	told := *python
	told.handler, told.files = "app.handler", map[string]string{"app.py": toldPython}
	for _, name := range []string{"quiet", "slow", "failing"} {
		if err := b.deploy(d.endpoint, name, &told); err != nil {
			return err
		}
		if _, err := d.api.PutFunctionConcurrency(context.Background(), &lambda.PutFunctionConcurrencyInput{FunctionName: &name, ReservedConcurrentExecutions: aws.Int32(4)}); err != nil {
			return err
		}
	}
	n, mountain := max(1, *requests/4), *events
	padding := strings.Repeat("k", 900)
	eventOf := func(id, to, do string) []byte {
		return fmt.Appendf(nil, `{"id":%q,"to":%q,"do":%s,"padding":%q}`, id, to, do, padding)
	}
	nothing := func(int) []byte { return eventOf("", "", "0") }
	// delays are what n events take, one after the other, from their request to the handler.
	delays := func() (list []time.Duration, err error) {
		for i := range n {
			id := fmt.Sprint("quiet-", i)
			began := time.Now()
			if _, _, err := d.send("quiet", 1, 1, func(int) []byte { return eventOf(id, listener.Addr().String(), "0") }); err != nil {
				return nil, err
			}
			select {
			case got := <-arrived:
				if got != id {
					return nil, fmt.Errorf("event %q came in place of %q", got, id)
				}
			case <-time.After(time.Minute):
				return nil, fmt.Errorf("event %s did not come", id)
			}
			list = append(list, time.Since(began))
		}
		return list, nil
	}

	if _, err := delays(); err != nil { // warm
		return err
	}
	alone, err := delays()
	if err != nil {
		return err
	}
	baseline, err := syncs(filepath.Join(b.work, "sync"), n, len(nothing(0)))
	if err != nil {
		return err
	}
	accepted, _, err := d.send("quiet", 1, n, nothing)
	if err != nil {
		return err
	}
	if _, _, err := d.send("failing", 64, mountain/10, func(int) []byte { return eventOf("", "", `"fail"`) }); err != nil {
		return err
	}
	failing, err := delays()
	if err != nil {
		return err
	}
	_, took, err := d.send("slow", 64, mountain, func(int) []byte { return eventOf("", "", "0.05") })
	if err != nil {
		return err
	}
	if err := d.stop(); err != nil {
		return err
	}
	ready, err := d.start()
	if err != nil {
		return err
	}
	if _, err := delays(); err != nil { // warm
		return err
	}
	beside, err := delays()
	if err != nil {
		return err
	}

	one, rate := percentile(baseline, 50), float64(mountain)/took.Seconds()
	fmt.Printf("\n## Asynchronous events of 1 KB\n\n")
	fmt.Println("| accepted over HTTP | figure | beside one write and sync of as many bytes |")
	fmt.Println("|---|---|---|")
	fmt.Printf("| by 1 client, p50 | %.3f ms | %.2f × the time |\n", milliseconds(percentile(accepted, 50)), float64(percentile(accepted, 50))/float64(one))
	fmt.Printf("| by 64 clients, while some are delivered | %.0f a second | %.2f × as many |\n", rate, rate*one.Seconds())
	fmt.Printf("| a restart with about %d that wait serves after | %.0f ms | |\n", mountain, milliseconds(ready))
	fmt.Printf("\n## A quiet function's event, from the request to the handler, %d of them\n\n", n)
	fmt.Println("| the others | p50 ms | p99 ms | p50 ÷ alone | p99 ÷ alone |")
	fmt.Println("|---|---|---|---|---|")
	row := func(name string, times []time.Duration) {
		p := func(d []time.Duration, n int) float64 { return milliseconds(percentile(d, n)) }
		fmt.Printf("| %s | %.2f | %.2f | %.2f | %.2f |\n", name, p(times, 50), p(times, 99), p(times, 50)/p(alone, 50), p(times, 99)/p(alone, 99))
	}
	row("none", alone)
	row(fmt.Sprintf("one with %d events always fails", mountain/10), failing)
	row(fmt.Sprintf("about %d events wait for one of 50 ms, four at once", mountain), beside)
	return d.stop()
}

// syncs is what writing and syncing so many bytes takes.
func syncs(path string, n, bytes int) (times []time.Duration, err error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content := make([]byte, bytes)
	for range n {
		began := time.Now()
		if _, err = f.Write(content); err == nil {
			err = f.Sync()
		}
		if err != nil {
			return nil, err
		}
		times = append(times, time.Since(began))
	}
	return times, nil
}

// send has n events of a function accepted.
func (d *daemon) send(function string, clients, n int, event func(i int) []byte) (times []time.Duration, took time.Duration, err error) {
	var mu sync.Mutex
	var all sync.WaitGroup
	var next atomic.Int64
	url := invocations(d.endpoint, function)
	began := time.Now()
	for range clients {
		all.Go(func() {
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for i := int(next.Add(1)); i <= n; i = int(next.Add(1)) {
				took, perr := post(client, url, event(i))
				mu.Lock()
				times = append(times, took)
				if perr != nil && err == nil {
					err = perr
				}
				mu.Unlock()
				if perr != nil {
					return
				}
			}
		})
	}
	all.Wait()
	return times, time.Since(began), err
}

// post is the time until one event is accepted.
func post(client *http.Client, url string, event []byte) (time.Duration, error) {
	r, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(event))
	if err != nil {
		return 0, err
	}
	sign(r)
	r.Header.Set("X-Amz-Invocation-Type", "Event")
	began := time.Now()
	answer, err := client.Do(r)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusAccepted {
		err = fmt.Errorf("%s answered %s: %s", url, answer.Status, text)
	}
	return time.Since(began), err
}
