package main

import (
	"fmt"
	"net/http"
	"path/filepath"
	"time"
)

// refill is the pause in which a daemon boots the kernels that it holds ready.
const refill = 1500 * time.Millisecond

// gvisor compares the gvisor driver with the linux driver: first requests with a booted
// kernel ready, first requests at once with more of them than are ready, and warm ones.
func (b *bench) gvisor(languages []*language) error {
	fmt.Printf("\n## Driver gvisor beside linux, no runtime held ready, 1 client\n\n")
	fmt.Println("| language | driver | cold p50 ms | 8 cold at once p50 ms | warm p50 ms | cold ÷ linux | at once ÷ linux | warm ÷ linux |")
	fmt.Println("|---|---|---|---|---|---|---|---|")
	endpoints := map[string]string{}
	for _, driver := range []string{"linux", "gvisor"} {
		endpoint, _, err := b.serve(*program, "up", "--listen", "127.0.0.1:0", "--data", filepath.Join(b.work, "data-"+driver), "--any-runtime",
			"--driver", driver, "--runsc", *runsc, "--spare-bytes", "0", "--log-level", "error")
		if err != nil {
			return err
		}
		endpoints[driver] = endpoint
	}
	for _, l := range languages {
		var linux [3]float64
		for _, driver := range []string{"linux", "gvisor"} {
			got, err := b.startsAndCalls(endpoints[driver], l)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", l.name, driver, err)
			}
			if driver == "linux" {
				linux = got
			}
			fmt.Printf("| %s | %s | %.1f | %.1f | %.3f | %.2f | %.2f | %.2f |\n", l.name, driver,
				got[0], got[1], got[2], got[0]/linux[0], got[1]/linux[1], got[2]/linux[2])
		}
	}
	return nil
}

// startsAndCalls are the medians of first requests alone, of first requests at once,
// and of warm requests, in milliseconds.
func (b *bench) startsAndCalls(endpoint string, l *language) (ms [3]float64, err error) {
	var alone, together []time.Duration
	deployed := 0
	deploy := func() (url string, err error) {
		name := fmt.Sprintf("%s-%d", functionName(l), deployed)
		deployed++
		return invocations(endpoint, name), b.deploy(endpoint, name, l)
	}
	var url string
	for range max(1, *colds/3) {
		if url, err = deploy(); err != nil {
			return ms, err
		}
		time.Sleep(refill)
		d, err := request(http.DefaultClient, url, event, len(event))
		if err != nil {
			return ms, err
		}
		alone = append(alone, d)
	}
	for range max(1, *colds/10) {
		type result struct {
			took time.Duration
			err  error
		}
		const clients = 8
		results := make(chan result)
		var urls [clients]string
		for i := range urls {
			if urls[i], err = deploy(); err != nil {
				return ms, err
			}
		}
		time.Sleep(refill)
		for _, u := range urls {
			go func() {
				d, err := request(http.DefaultClient, u, event, len(event))
				results <- result{d, err}
			}()
		}
		for range urls {
			r := <-results
			if r.err != nil {
				err = r.err
			}
			together = append(together, r.took)
		}
		if err != nil {
			return ms, err
		}
	}
	if _, _, err := load(url, 1, warmup, event); err != nil {
		return ms, err
	}
	warm, _, err := load(url, 1, *requests, event)
	if err != nil {
		return ms, err
	}
	for i, d := range [][]time.Duration{alone, together, warm} {
		ms[i] = milliseconds(percentile(d, 50))
	}
	return ms, nil
}
