package events

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// BenchmarkSources measures how fast one mapping brings what a source has to a Python
// function, beside a client that only reads the same source: from the first message on.
func BenchmarkSources(b *testing.B) {
	const messages, readers = 500, 5 // moto looks at all for each request
	r := newRig(b)
	r.function(r.d, "count", "def handler(event, context):\n    pass\n", func(in *lambda.CreateFunctionInput) { in.MemorySize = aws.Int32(1769) })
	fill := func(name string) (url *string, arn string) {
		url, arn = r.queue(name, 60)
		r.send(url, numbers("message ", messages)...)
		return url, arn
	}
	fmt.Printf("\n### One mapping, beside a client that only reads\n\n| source | client, records/s | mapping, records/s | ratio |\n|---|---|---|---|\n")
	for range b.N {
		url, _ := fill("bare")
		began := time.Now()
		var done sync.WaitGroup
		for range readers { // as many as the mapping begins with
			done.Go(func() {
				for {
					out, err := r.sqs.ReceiveMessage(context.Background(), &sqs.ReceiveMessageInput{QueueUrl: url, MaxNumberOfMessages: 10})
					if err != nil {
						b.Error(err)
					}
					if err != nil || len(out.Messages) == 0 {
						return
					}
					in := &sqs.DeleteMessageBatchInput{QueueUrl: url}
					for i, m := range out.Messages {
						in.Entries = append(in.Entries, sqstypes.DeleteMessageBatchRequestEntry{Id: aws.String(strconv.Itoa(i)), ReceiptHandle: m.ReceiptHandle})
					}
					if _, err := r.sqs.DeleteMessageBatch(context.Background(), in); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		done.Wait()
		bare := time.Since(began)

		url, arn := fill("mapped")
		began = time.Now()
		r.mapping(arn, "count", nil)
		deleted := func() float64 {
			return r.d.Metric("kiln_event_source_events_total", `function="count"`, `kind="deleted"`)
		}
		r.await("all messages", func() bool { return deleted() == messages })
		mapped := time.Since(began)
		rate := func(d time.Duration) float64 { return messages / d.Seconds() }
		fmt.Printf("| SQS (moto) | %.0f | %.0f | %.2f |\n", rate(bare), rate(mapped), rate(mapped)/rate(bare))
		_ = url
	}
}
