package environment

import (
	"math"
	"strings"
	"time"

	"kiln/internal/lambda"
	"kiln/internal/runtimeapi"
	"kiln/internal/telemetry/delivery"
	"kiln/internal/telemetry/metrics"
)

// What the platform tells of an environment's life. Each event is made in one
// place, and goes to the function's log — as a line of text or, with LogFormat JSON
// and from the function's SystemLogLevel on, as the event of the Telemetry API — and
// to the extensions that subscribed, whatever the log's format and level.
// https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-advanced.html
// https://docs.aws.amazon.com/lambda/latest/dg/telemetry-schema-reference.html

type systemLevel int

const (
	debugLevel systemLevel = iota
	infoLevel
	warnLevel
)

var systemLevels = map[string]systemLevel{"DEBUG": debugLevel, "INFO": infoLevel, "WARN": warnLevel}

// told is one event in its forms, each made only where somebody reads it.
type told struct {
	line   func() string // of a text log; nil or "": none
	record func() any    // of the Telemetry API and JSON logs; nil: they know no such event
	logs   func() any    // of the Logs API; nil: likewise
}

// tell tells of an event: its type after "platform.", its level in a JSON log, its
// forms. None of these outlives the call, so that what nobody reads costs nothing.
func (e *Environment) tell(kind string, level systemLevel, t told) {
	now := time.Now()
	switch {
	case !e.json():
		if t.line == nil {
			break
		}
		if line := t.line(); line != "" {
			e.out.logAt(now, []byte(line))
		}
	case t.record != nil && level >= systemLevels[e.function.Settings.Logging.SystemLevel]:
		e.out.logAt(now, delivery.Render(now, "platform."+kind, t.record()))
	}
	if !e.out.followed() {
		return
	}
	var record, logs any
	if t.record != nil {
		record = t.record()
	}
	if t.logs != nil {
		logs = t.logs()
	}
	e.out.publish(delivery.Event{Time: now, Kind: delivery.Platform, Type: "platform." + kind, Size: recordSize, Record: func(s delivery.Schema) any {
		switch {
		case !s.Logs():
			return record
		case kind == runtimeDone && s == delivery.Logs20200815:
			return nil // which is older
		}
		return logs
	}})
}

const runtimeDone = "runtimeDone"

// recordSize is about what a record of the platform has, in bytes.
const recordSize = 256

// The records of the events, with their members in AWS's order.
type (
	initRecord struct {
		Type        string           `json:"initializationType"`
		Phase       string           `json:"phase"`
		Metrics     *runMetrics      `json:"metrics,omitempty"`
		Status      string           `json:"status,omitempty"`
		ErrorType   string           `json:"errorType,omitempty"`
		Runtime     string           `json:"runtimeVersion,omitempty"`
		RuntimeARN  string           `json:"runtimeVersionArn,omitempty"`
		Function    string           `json:"functionName,omitempty"`
		Version     lambda.Qualifier `json:"functionVersion,omitempty"`
		FunctionARN string           `json:"functionArn,omitempty"`
		Instance    string           `json:"instanceId,omitempty"`
		MaxMemory   int              `json:"instanceMaxMemory,omitempty"`
	}
	startRecord struct {
		ID      lambda.RequestID `json:"requestId"`
		Version lambda.Qualifier `json:"version"`
		Tracing *tracing         `json:"tracing,omitempty"`
	}
	endRecord struct {
		ID lambda.RequestID `json:"requestId"`
	}
	doneRecord struct {
		ID        lambda.RequestID `json:"requestId"`
		Status    string           `json:"status"`
		ErrorType string           `json:"errorType,omitempty"`
		Metrics   *runMetrics      `json:"metrics,omitempty"`
		Spans     []span           `json:"spans,omitempty"`
	}
	reportRecord struct {
		ID        lambda.RequestID `json:"requestId"`
		Metrics   reportMetrics    `json:"metrics"`
		Status    string           `json:"status,omitempty"`
		ErrorType string           `json:"errorType,omitempty"`
		Spans     []span           `json:"spans,omitempty"`
	}
	extensionRecord struct {
		Name      string   `json:"name"`
		State     string   `json:"state"`
		Events    []string `json:"events"`
		ErrorType string   `json:"errorType,omitempty"`
	}
	subscriptionRecord struct {
		Name  string          `json:"name"`
		State string          `json:"state"`
		Kinds []delivery.Kind `json:"types"`
	}
	tracing struct {
		Type  string `json:"type"`
		Value string `json:"value"`
	}
	runMetrics struct {
		Duration float64 `json:"durationMs"`
		Produced *int    `json:"producedBytes,omitempty"`
	}
	reportMetrics struct {
		Duration  float64 `json:"durationMs"`
		Billed    int64   `json:"billedDurationMs"`
		Memory    int     `json:"memorySizeMB"`
		MaxMemory int     `json:"maxMemoryUsedMB"`
		Init      float64 `json:"initDurationMs,omitempty"`
	}
	span struct {
		Name     string  `json:"name"`
		Start    string  `json:"start"`
		Duration float64 `json:"durationMs"`
	}
)

func newSpan(name string, from, to time.Time) span {
	return span{name, delivery.FormatTime(from), rounded(to.Sub(from))}
}

// json tells whether the function's log is JSON.
func (e *Environment) json() bool { return e.function.Settings.Logging.Format == "JSON" }

// How an environment is initialised.
const (
	onDemand               = "on-demand"
	provisionedConcurrency = "provisioned-concurrency"
)

// The phases that an init is in: its own, or that of the first invocation.
const (
	initPhase   = "init"
	invokePhase = "invoke"
)

func (e *Environment) tellInitStart(phase string) {
	label, arn := e.runtime.Label, e.runtime.VersionARN(e.function.ARN.Region)
	level := infoLevel
	if label == "" {
		level = debugLevel
	}
	e.tell("initStart", level, told{
		line: func() string {
			if label == "" || phase != initPhase { // a second init shows only when it fails
				return ""
			}
			return "INIT_START Runtime Version: " + label + "\tRuntime Version ARN: " + arn + "\t"
		},
		record: func() any {
			return initRecord{
				Type: e.how, Phase: phase, Runtime: label, RuntimeARN: arn,
				Function: string(e.function.ARN.Name), Version: e.function.Version, FunctionARN: e.function.ARN.String(),
				Instance: e.id, MaxMemory: e.function.Settings.MemoryMB,
			}
		},
	})
}

// tellInitRuntimeDone tells that the runtime is initialised, or that it never will be.
func (e *Environment) tellInitRuntimeDone(phase string, f *failure) {
	level, record := e.initOutcome(phase, f)
	e.tell("initRuntimeDone", level, told{record: func() any { return record }})
}

// tellInitReport tells of an init that ended; of one that succeeded, a line does only
// where no invocation waited for it.
func (e *Environment) tellInitReport(took time.Duration, phase string, f *failure) {
	level, record := e.initOutcome(phase, f)
	e.tell("initReport", level, told{
		line: func() string {
			switch {
			case f != nil:
				return initReportLine(took, phase, f)
			case e.how != onDemand && phase == initPhase:
				return "INIT_REPORT Init Duration: " + milliseconds(took) + " ms\t"
			}
			return ""
		},
		record: func() any {
			record.Metrics = &runMetrics{Duration: rounded(took)}
			return record
		},
	})
}

func (e *Environment) initOutcome(phase string, f *failure) (systemLevel, initRecord) {
	record := initRecord{Type: e.how, Phase: phase, Status: "success"}
	if f == nil {
		return debugLevel, record
	}
	record.Status, record.ErrorType = f.status, f.errorType
	return warnLevel, record
}

// tellExtensions tells how far each extension came by the end of an init.
func (e *Environment) tellExtensions(list []runtimeapi.Extension) {
	for _, x := range list {
		level := infoLevel
		if x.ErrorType != "" {
			level = warnLevel
		}
		record := func() any {
			return extensionRecord{x.Name, string(x.State), append([]string{}, x.Events...), x.ErrorType}
		}
		e.tell("extension", level, told{
			record: record, logs: record,
			line: func() string {
				line := "EXTENSION\tName: " + x.Name + "\tState: " + string(x.State) + "\tEvents: [" + strings.Join(x.Events, ", ") + "]"
				if x.ErrorType != "" {
					line += "\tError Type: " + x.ErrorType
				}
				return line
			},
		})
	}
}

// tellSubscription tells of an extension that subscribed. It comes from a request
// of the extension, at any time of an init.
func (e *Environment) tellSubscription(sub delivery.Subscription) {
	kind, label := "telemetrySubscription", "TELEMETRY"
	if sub.Schema.Logs() {
		kind, label = "logsSubscription", "LOGS"
	}
	record := func() any { return subscriptionRecord{sub.Name, "Subscribed", sub.Kinds} }
	e.tell(kind, infoLevel, told{
		record: record, logs: record,
		line: func() string {
			names := make([]string, len(sub.Kinds))
			for i, k := range sub.Kinds {
				names[i] = strings.ToUpper(string(k[:1])) + string(k[1:])
			}
			return label + "\tName: " + sub.Name + "\tState: Subscribed\tTypes: [" + strings.Join(names, ", ") + "]"
		},
	})
}

// tellDropped writes what a subscriber lost into a JSON log; the subscriber is told
// by its own feed.
func (e *Environment) tellDropped(lost delivery.Event) {
	if e.json() { // a warning passes every level
		e.out.logAt(lost.Time, delivery.Render(lost.Time, lost.Type, lost.Record(delivery.Telemetry20221213)))
	}
}

func (e *Environment) tellStart(inv *lambda.Invocation) {
	e.tell("start", infoLevel, told{
		line: func() string { return "START RequestId: " + string(inv.ID) + " Version: " + string(e.function.Version) },
		record: func() any {
			record := startRecord{ID: inv.ID, Version: e.function.Version}
			if inv.TraceHeader != "" {
				record.Tracing = &tracing{"X-Amzn-Trace-Id", inv.TraceHeader}
			}
			return record
		},
		logs: func() any { return startRecord{ID: inv.ID, Version: e.function.Version} },
	})
}

// outcomeOf is how an invocation ended, in the words of the events.
func outcomeOf(kind metrics.ErrorKind, f *failure) (status, errorType string, level systemLevel) {
	switch {
	case f != nil:
		return f.status, f.errorType, warnLevel
	case kind != metrics.NoError:
		return "error", "", warnLevel
	}
	return "success", "", debugLevel
}

// tellRuntimeDone tells that the runtime is done with the invocation, so that
// extensions may be too; produced is the size of the function's own answer.
func (e *Environment) tellRuntimeDone(id lambda.RequestID, o Outcome, ran course, produced int, f *failure) {
	status, errorType, level := outcomeOf(o.Error, f)
	e.tell(runtimeDone, level, told{
		record: func() any {
			bytes := produced
			return doneRecord{id, status, errorType, &runMetrics{rounded(ran.done.Sub(ran.began)), &bytes}, ran.spans()}
		},
		logs: func() any { return doneRecord{ID: id, Status: status, ErrorType: errorType} },
	})
}

// tellReport tells how an invocation ended and what it cost.
func (e *Environment) tellReport(id lambda.RequestID, o Outcome, ran course, f *failure) {
	memory := e.function.Settings.MemoryMB
	if f != nil && f.logMessage != "" {
		e.tell("fault", infoLevel, told{
			line: func() string { return f.logMessage },
			logs: func() any { return f.logMessage },
		})
	}
	e.tell("end", infoLevel, told{
		line: func() string { return "END RequestId: " + string(id) },
		logs: func() any { return endRecord{id} },
	})
	status, errorType, level := outcomeOf(o.Error, f)
	report := func() reportRecord {
		return reportRecord{ID: id, Metrics: reportMetrics{
			Duration: rounded(o.Duration), Billed: o.billed(), Memory: memory, MaxMemory: usedMB(o.MaxMemory, memory), Init: rounded(o.Init),
		}}
	}
	e.tell("report", max(level, infoLevel), told{
		line: func() string { return reportLine(id, o, memory, f) },
		record: func() any {
			record := report()
			record.Status, record.ErrorType = status, errorType
			if o.Extensions > 0 {
				record.Spans = []span{newSpan("extensionOverhead", ran.done, ran.done.Add(o.Extensions))}
			}
			return record
		},
		logs: func() any { return report() },
	})
}

// rounded is a duration in milliseconds, exact to the microsecond.
func rounded(d time.Duration) float64 { return math.Round(float64(d)/1e3) / 1e3 }
