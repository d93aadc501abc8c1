package environment

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"kiln/internal/lambda"
	"kiln/internal/runtimeapi"
	"kiln/internal/sandbox"
	"kiln/internal/telemetry/metrics"
)

// Outcome is what an invocation cost and how it ended.
type Outcome struct {
	metrics.Outcome
	Init  time.Duration // of a cold start that succeeded; else 0
	Ahead bool          // Init was before anybody waited for it: it is shown, and not billed
	Held  int64         // bytes that the environment has at the end; 0: not known
}

// course is when an invocation came how far; zero: it did not.
type course struct {
	began    time.Time // the runtime has the event
	answered time.Time // its answer is here, or begins
	complete time.Time // the answer is whole
	done     time.Time // it asked for the next event, or ended
}

// spans are AWS's parts of the runtime's time.
func (c course) spans() []span {
	if c.complete.IsZero() {
		return nil
	}
	return []span{
		newSpan("responseLatency", c.began, c.answered),
		newSpan("responseDuration", c.answered, c.complete),
		newSpan("runtimeOverhead", c.complete, c.done),
	}
}

// failure is an error that the platform reports, in the caller's words and in the log's.
type failure struct {
	kind       metrics.ErrorKind
	document   []byte    // for the caller
	status     string    // of REPORT and INIT_REPORT: error or timeout; "" for none
	errorType  string    // likewise
	logMessage string    // between START and END; "" for none
	at         time.Time // zero: not since an invocation began
}

// time is when what was waited for failed or, with no failure, has just happened.
func (f *failure) time() time.Time {
	if f == nil || f.at.IsZero() {
		return time.Now()
	}
	return f.at
}

// shutdownReason is what extensions are told of why the environment ends.
func (f *failure) shutdownReason() string {
	switch {
	case f.status == "timeout":
		return shutdownTimeout
	case f.kind == metrics.Platform:
		return shutdownSpindown
	default:
		return shutdownFailure
	}
}

func document(errorType, format string, args ...any) []byte {
	body, _ := json.Marshal(lambda.ErrorDocument{Type: errorType, Message: fmt.Sprintf(format, args...)}) // two strings always marshal
	return body
}

func timedOut(id lambda.RequestID, timeout time.Duration, now time.Time) failure {
	message := fmt.Sprintf("Task timed out after %.2f seconds", timeout.Seconds())
	return failure{
		kind:       metrics.Timeout,
		document:   document("Sandbox.Timedout", "RequestId: %s Error: %s", id, message),
		status:     "timeout",
		logMessage: fmt.Sprintf("%s %s %s", now.UTC().Format("2006-01-02T15:04:05.000Z"), id, message),
	}
}

// streamEnd is what the caller sees of a failure that cut off a streamed answer.
func (f *failure) streamEnd() lambda.StreamEnd {
	switch f.kind {
	case metrics.Timeout:
		return lambda.StreamEnd{ErrorCode: "Sandbox.Timedout", ErrorDetails: f.document}
	case metrics.Platform:
		return lambda.StreamEnd{ErrorCode: f.errorType, ErrorDetails: f.document}
	default: // the runtime is gone
		return lambda.StreamEnd{ErrorCode: runtimeapi.TruncatedResponse}
	}
}

// exited describes a runtime that ended when it should not have.
func exited(id lambda.RequestID, how sandbox.Exit) failure {
	message := "Runtime exited without providing a reason"
	switch {
	case how.Signal != 0:
		message = "Runtime exited with error: signal: " + how.Signal.String()
	case how.Code != 0:
		message = "Runtime exited with error: exit status " + strconv.Itoa(how.Code)
	}
	f := failure{
		kind:       metrics.Exit,
		document:   document("Runtime.ExitError", "RequestId: %s Error: %s", id, message),
		status:     "error",
		errorType:  "Runtime.ExitError",
		logMessage: fmt.Sprintf("RequestId: %s Error: %s\nRuntime.ExitError", id, message),
	}
	if how.OOM { // the caller sees a killed process, the report the reason
		f.kind = metrics.OutOfMemory
		f.errorType = "Runtime.OutOfMemory"
	}
	return f
}

// milliseconds prints a duration as AWS's text logs do.
func milliseconds(d time.Duration) string {
	return strconv.FormatFloat(float64(d)/float64(time.Millisecond), 'f', 2, 64)
}

// billed is the Billed Duration, in milliseconds. It covers the init phase of a
// cold start, as on AWS since August 2025.
func (o Outcome) billed() int64 {
	d := o.Duration
	if !o.Ahead {
		d += o.Init
	}
	return int64(math.Ceil(float64(d) / float64(time.Millisecond)))
}

// reportLine is the REPORT line of one invocation.
func reportLine(id lambda.RequestID, o Outcome, memoryMB int, f *failure) string {
	var b strings.Builder
	fmt.Fprintf(&b, "REPORT RequestId: %s\tDuration: %s ms\tBilled Duration: %d ms\tMemory Size: %d MB\tMax Memory Used: %d MB\t",
		id, milliseconds(o.Duration), o.billed(), memoryMB, usedMB(o.MaxMemory, memoryMB))
	if o.Init > 0 {
		fmt.Fprintf(&b, "Init Duration: %s ms\t", milliseconds(o.Init))
	}
	if f != nil && f.status != "" {
		b.WriteString(statusFields(f))
	}
	b.WriteByte('\n')
	return b.String()
}

func initReportLine(d time.Duration, phase string, f *failure) string {
	return fmt.Sprintf("INIT_REPORT Init Duration: %s ms\tPhase: %s\t%s", milliseconds(d), phase, statusFields(f))
}

func statusFields(f *failure) string {
	s := "Status: " + f.status
	if f.errorType != "" {
		s += "\tError Type: " + f.errorType
	}
	return s
}

// usedMB rounds up, and never shows more than the function may use: the limit
// counts whole pages in the kernel's way, ours is what the processes had.
func usedMB(bytes int64, limit int) int {
	return min(int((bytes+1<<20-1)>>20), limit)
}
