package kiln

import (
	"context"
	_ "embed"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
)

//go:embed gate.py
var gate string

// Gate is the package of a Python function, gate.handler, whose invocations wait
// until Open. They answer with the name of their environment's log stream.
func Gate() []byte { return Zip(map[string]string{"gate.py": gate}) }

// Open lets the invocations of a Gate function go on, and those to come.
func (d *Daemon) Open(function string) {
	d.t.Helper()
	_, err := d.Client().UpdateFunctionConfiguration(context.Background(), &lambda.UpdateFunctionConfigurationInput{
		FunctionName: &function, Description: aws.String("open"),
	})
	if err != nil {
		d.t.Fatal(err)
	}
}

// Timeout is a change for Create: the function's timeout, in seconds.
func Timeout(seconds int32) func(*lambda.CreateFunctionInput) {
	return func(in *lambda.CreateFunctionInput) { in.Timeout = &seconds }
}

// awaitTimeout bounds Await: a loaded machine is slow.
const awaitTimeout = time.Minute

// Await polls until the condition holds, where nothing tells of it.
func Await(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(awaitTimeout); !condition(); {
		if time.Now().After(end) {
			t.Fatalf("still waiting for %s after %v", what, awaitTimeout)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Metric adds up the values of /metrics whose line begins with the name and holds
// each of the labels.
func (d *Daemon) Metric(name string, labels ...string) (sum float64) {
	d.t.Helper()
next:
	for line := range strings.Lines(d.Metrics()) {
		if !strings.HasPrefix(line, name) {
			continue
		}
		for _, l := range labels {
			if !strings.Contains(line, l) {
				continue next
			}
		}
		fields := strings.Fields(line)
		value, err := strconv.ParseFloat(fields[len(fields)-1], 64)
		if err != nil {
			d.t.Fatalf("%v in %s", err, line)
		}
		sum += value
	}
	return sum
}
