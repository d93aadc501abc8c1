package main

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
)

// hostilePython does what its event says until its time is over.
const hostilePython = `
import os, time

def spin():
    for i in range(8):
        if os.fork() == 0:
            break
    while True:
        pass

def forks():
    while True:
        try:
            if os.fork() == 0:
                time.sleep(0.01)
        except OSError:
            time.sleep(0.01)

def memory():
    while True:
        held = bytearray(300 << 20)
        for i in range(0, len(held), 4096):
            held[i] = 1

def disk():
    while True:
        try:
            with open("/tmp/large", "wb") as f:
                while True:
                    f.write(b"x" * (1 << 20))
        except OSError:
            os.unlink("/tmp/large")

def logs():
    while True:
        print("x" * 200)

def handler(event, context):
    globals()[event["do"]]()
`

// hostilePeriod is how long a hostile function runs, in which a round must be over.
const hostilePeriod = 10 * time.Second

// neighbours compares what a quiet function takes alone and beside hostile ones,
// whose rounds take turns.
func (b *bench) neighbours(quiet *language) error {
	endpoint, _, err := b.serve(*program, "up", "--listen", "127.0.0.1:0", "--data", filepath.Join(b.work, "neighbours"), "--any-runtime", "--driver", *driver, "--log-level", "error")
	if err != nil {
		return err
	}
	if err := b.deploy(endpoint, "bench-quiet", quiet); err != nil {
		return err
	}
	url := invocations(endpoint, "bench-quiet")
	if _, _, err := load(url, 1, warmup, event); err != nil {
		return err
	}
	hostile := *quiet
	hostile.handler, hostile.files = "app.handler", map[string]string{"app.py": hostilePython}
	n := max(1, *requests/4)
	fmt.Printf("\n## A quiet %s function beside hostile ones, 1 client, %d requests a round\n\n", quiet.name, n)
	fmt.Println("| the others | p50 ms | p99 ms | p50 ÷ alone | p99 ÷ alone |")
	fmt.Println("|---|---|---|---|---|")
	for _, kind := range []string{"spin", "forks", "memory", "disk", "logs"} {
		var times [2][]time.Duration // alone, beside them
		for round := range *rounds {
			alone, _, err := load(url, 1, n, event)
			if err != nil {
				return err
			}
			name := fmt.Sprintf("bench-%s-%d", kind, round)
			end, err := b.unleash(endpoint, name, kind, &hostile)
			if err != nil {
				return err
			}
			began := time.Now()
			beside, _, err := load(url, 1, n, event)
			if took := time.Since(began); err == nil && took > hostilePeriod {
				err = fmt.Errorf("a round took %v, the hostile function ended before", took)
			}
			end()
			if err != nil {
				return fmt.Errorf("beside %s: %w", kind, err)
			}
			times[0], times[1] = append(times[0], alone...), append(times[1], beside...)
		}
		p := func(i, n int) float64 { return milliseconds(percentile(times[i], n)) }
		if kind == "spin" {
			fmt.Printf("| none | %.3f | %.3f | 1.00 | 1.00 |\n", p(0, 50), p(0, 99))
		}
		fmt.Printf("| %s | %.3f | %.3f | %.2f | %.2f |\n", kind, p(1, 50), p(1, 99), p(1, 50)/p(0, 50), p(1, 99)/p(0, 99))
	}
	return nil
}

// unleash has environments of a hostile function run; the returned function waits for their end.
func (b *bench) unleash(endpoint, name, kind string, l *language) (end func(), err error) {
	const environments = 4
	if err := b.deploy(endpoint, name, l); err != nil {
		return nil, err
	}
	api := client(endpoint)
	if _, err := api.UpdateFunctionConfiguration(context.Background(), &lambda.UpdateFunctionConfigurationInput{
		FunctionName: &name, Timeout: aws.Int32(int32(hostilePeriod.Seconds()))}); err != nil {
		return nil, err
	}
	if err := lambda.NewFunctionUpdatedV2Waiter(api, func(o *lambda.FunctionUpdatedV2WaiterOptions) { o.MinDelay = 10 * time.Millisecond }).
		Wait(context.Background(), &lambda.GetFunctionInput{FunctionName: &name}, time.Minute); err != nil {
		return nil, err
	}
	var running sync.WaitGroup
	for range environments {
		running.Go(func() {
			// It is cut off, or ends for what it did; only how long the others take matters.
			_, _ = request(http.DefaultClient, invocations(endpoint, name), fmt.Appendf(nil, `{"do":%q}`, kind), 0)
		})
	}
	time.Sleep(time.Second) // they have begun
	return running.Wait, nil
}
