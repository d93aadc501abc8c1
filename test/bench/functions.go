package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"golang.org/x/sync/errgroup"
)

// few functions are what many are compared with.
const few = 100

// restarts is how often each daemon is started again.
const restarts = 5

// functions compares daemons that have none, few and many: what one request takes,
// and a restart.
func (b *bench) functions(many int, l *language) error {
	counts := []int{0, few, many}
	daemons := make([]*daemon, len(counts))
	for i, n := range counts {
		d := &daemon{bench: b, data: filepath.Join(b.work, fmt.Sprintf("functions-%d", n))}
		if _, err := d.start(); err != nil {
			return err
		}
		if err := d.fill(n, l); err != nil {
			return fmt.Errorf("create %d functions: %w", n, err)
		}
		daemons[i] = d
	}

	fmt.Printf("\n## %d functions, 1 client, %d requests a round\n\n", many, few)
	fmt.Printf("| operation | p50 ms of %d | p50 ms of %d | ratio |\n", few, many)
	fmt.Println("|---|---|---|---|")
	ctx := context.Background()
	for _, o := range []struct {
		name string
		call func(*lambda.Client, string) error
	}{
		{"ListFunctions, a page", func(c *lambda.Client, _ string) error {
			first, err := c.ListFunctions(ctx, &lambda.ListFunctionsInput{})
			if err == nil && len(first.Functions) != 50 {
				err = fmt.Errorf("a page has %d functions", len(first.Functions))
			}
			return err
		}},
		{"GetFunction", func(c *lambda.Client, name string) error {
			_, err := c.GetFunction(ctx, &lambda.GetFunctionInput{FunctionName: &name})
			return err
		}},
		{"UpdateFunctionConfiguration", func(c *lambda.Client, name string) error {
			_, err := c.UpdateFunctionConfiguration(ctx, &lambda.UpdateFunctionConfigurationInput{FunctionName: &name, MemorySize: aws.Int32(256)})
			return err
		}},
	} {
		times := map[*daemon][]time.Duration{}
		for round := range *rounds + 1 {
			for _, d := range daemons[1:] {
				for i := range few {
					began := time.Now()
					if err := o.call(d.api, numbered(i*d.functions/few)); err != nil {
						return fmt.Errorf("%s: %w", o.name, err)
					}
					if round > 0 { // the first only warms up
						times[d] = append(times[d], time.Since(began))
					}
				}
			}
		}
		base, p50 := milliseconds(percentile(times[daemons[1]], 50)), milliseconds(percentile(times[daemons[2]], 50))
		fmt.Printf("| %s | %.2f | %.2f | %.2f |\n", o.name, base, p50, p50/base)
	}

	took := map[*daemon][]time.Duration{}
	for range restarts {
		for _, d := range daemons {
			if err := d.stop(); err != nil {
				return err
			}
			started, err := d.start()
			if err != nil {
				return err
			}
			took[d] = append(took[d], started)
		}
	}
	fmt.Printf("\n### Restart, %d times\n\n", restarts)
	fmt.Println("| functions | p50 ms | slowest ms | resident MiB | p50 ms above none, of 10,000 |")
	fmt.Println("|---|---|---|---|---|")
	base := milliseconds(percentile(took[daemons[0]], 50))
	for _, d := range daemons {
		p50, each := milliseconds(percentile(took[d], 50)), "–"
		if d.functions == many {
			each = fmt.Sprintf("%.0f", (p50-base)*10000/float64(many))
		}
		fmt.Printf("| %d | %.0f | %.0f | %.1f | %s |\n", d.functions, p50, milliseconds(slices.Max(took[d])), float64(rss(d.process.Process.Pid))/(1<<20), each)
	}
	return nil
}

func numbered(i int) string { return fmt.Sprintf("bench-%05d", i) }

// daemon is a Kiln that can be started again.
type daemon struct {
	bench     *bench
	data      string
	flags     []string
	functions int

	process  *exec.Cmd
	endpoint string
	api      *lambda.Client
}

// start returns how long it took until the daemon served.
func (d *daemon) start() (time.Duration, error) {
	began := time.Now()
	args := append([]string{"up", "--listen", "127.0.0.1:0", "--data", d.data, "--any-runtime", "--driver", *driver, "--log-level", "error"}, d.flags...)
	endpoint, _, err := d.bench.serve(*program, args...)
	took := time.Since(began)
	if err != nil {
		return 0, err
	}
	d.process, d.endpoint, d.api = d.bench.commands[len(d.bench.commands)-1], endpoint, client(endpoint)
	return took, nil
}

func (d *daemon) stop() error {
	d.bench.commands = slices.DeleteFunc(d.bench.commands, func(c *exec.Cmd) bool { return c == d.process })
	if err := d.process.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return d.process.Wait()
}

// fill creates functions, each with a package and variables of its own.
func (d *daemon) fill(n int, l *language) error {
	d.functions = n
	var work errgroup.Group
	work.SetLimit(8)
	for i := range n {
		work.Go(func() error {
			zip, err := pack(map[string]string{"index.js": fmt.Sprintf("exports.handler = async () => %d;\n", i)})
			if err != nil {
				return err
			}
			_, err = d.api.CreateFunction(context.Background(), &lambda.CreateFunctionInput{
				FunctionName: aws.String(numbered(i)), Runtime: types.Runtime(l.runtime), Handler: &l.handler,
				Role: aws.String("arn:aws:iam::000000000000:role/bench"), Code: &types.FunctionCode{ZipFile: zip},
				Environment: &types.Environment{Variables: map[string]string{"STAGE": "bench", "NUMBER": fmt.Sprint(i)}},
				Tags:        map[string]string{"stage": "bench"},
			})
			return err
		})
	}
	return work.Wait()
}
