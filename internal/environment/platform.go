package environment

import (
	"encoding/json"
	"math"
	"time"

	"kiln/internal/lambda"
	"kiln/internal/telemetry/metrics"
)

// The platform's own lines in a function's log: text, or with LogFormat JSON the
// events of the Telemetry API, from the function's SystemLogLevel on.
// https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-advanced.html

type systemLevel int

const (
	debugLevel systemLevel = iota
	infoLevel
	warnLevel
)

var systemLevels = map[string]systemLevel{"DEBUG": debugLevel, "INFO": infoLevel, "WARN": warnLevel}

// The records of the events, with their members in AWS's order.
type (
	initRecord struct {
		Type       string           `json:"initializationType"`
		Phase      string           `json:"phase"`
		Metrics    *runMetrics      `json:"metrics,omitempty"`
		Status     string           `json:"status,omitempty"`
		ErrorType  string           `json:"errorType,omitempty"`
		Runtime    string           `json:"runtimeVersion,omitempty"`
		RuntimeARN string           `json:"runtimeVersionArn,omitempty"`
		Function   string           `json:"functionName,omitempty"`
		Version    lambda.Qualifier `json:"functionVersion,omitempty"`
	}
	startRecord struct {
		ID      lambda.RequestID `json:"requestId"`
		Version lambda.Qualifier `json:"version"`
		Tracing *tracing         `json:"tracing,omitempty"`
	}
	doneRecord struct {
		ID        lambda.RequestID `json:"requestId"`
		Status    string           `json:"status"`
		ErrorType string           `json:"errorType,omitempty"`
		Metrics   runMetrics       `json:"metrics"`
	}
	reportRecord struct {
		ID        lambda.RequestID `json:"requestId"`
		Metrics   reportMetrics    `json:"metrics"`
		Status    string           `json:"status"`
		ErrorType string           `json:"errorType,omitempty"`
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
)

// json tells whether the function's log is JSON.
func (e *Environment) json() bool { return e.function.Settings.Logging.Format == "JSON" }

// event writes a JSON event, if the function's SystemLogLevel lets it through.
func (e *Environment) event(level systemLevel, kind string, record any) {
	if level < systemLevels[e.function.Settings.Logging.SystemLevel] {
		return
	}
	now := time.Now()
	line, err := json.Marshal(struct {
		Time   string `json:"time"`
		Type   string `json:"type"`
		Record any    `json:"record"`
	}{now.UTC().Format("2006-01-02T15:04:05.000Z"), "platform." + kind, record})
	if err != nil {
		e.log.Error("an event of the platform cannot be written", "error", err)
		return
	}
	e.out.logAt(now, line)
}

const onDemand = "on-demand"

func (e *Environment) logInitStart() {
	label, arn := e.runtime.Label, e.runtime.VersionARN(e.function.ARN.Region)
	switch {
	case e.json():
		level := infoLevel
		if label == "" {
			level = debugLevel
		}
		e.event(level, "initStart", initRecord{
			Type: onDemand, Phase: "init", Runtime: label, RuntimeARN: arn, Function: string(e.function.ARN.Name), Version: e.function.Version,
		})
	case label != "":
		e.out.log("INIT_START Runtime Version: " + label + "\tRuntime Version ARN: " + arn + "\t")
	}
}

// logInit tells of an init that ended; of one that succeeded, only JSON does.
func (e *Environment) logInit(took time.Duration, phase string, f *failure) {
	if e.json() {
		level, record := debugLevel, initRecord{Type: onDemand, Phase: phase, Status: "success"}
		if f != nil {
			level, record.Status, record.ErrorType = warnLevel, f.status, f.errorType
		}
		e.event(level, "initRuntimeDone", record)
		record.Metrics = &runMetrics{Duration: rounded(took)}
		e.event(level, "initReport", record)
	} else if f != nil {
		e.out.log(initReportLine(took, phase, f))
	}
}

func (e *Environment) logStart(inv *lambda.Invocation) {
	if !e.json() {
		e.out.log("START RequestId: " + string(inv.ID) + " Version: " + string(e.function.Version))
		return
	}
	record := startRecord{ID: inv.ID, Version: e.function.Version}
	if inv.TraceHeader != "" {
		record.Tracing = &tracing{"X-Amzn-Trace-Id", inv.TraceHeader}
	}
	e.event(infoLevel, "start", record)
}

// logEnd tells how an invocation ended and what it cost; produced is the size of
// the function's own answer.
func (e *Environment) logEnd(id lambda.RequestID, o Outcome, produced int, f *failure) {
	memory := e.function.Settings.MemoryMB
	if !e.json() {
		if f != nil && f.logMessage != "" {
			e.out.log(f.logMessage)
		}
		e.out.log("END RequestId: " + string(id))
		e.out.log(reportLine(id, o, memory, f))
		return
	}
	status, errorType := "success", ""
	switch {
	case f != nil:
		status, errorType = f.status, f.errorType
	case o.Error != metrics.NoError:
		status = "error"
	}
	done, report := debugLevel, infoLevel
	if status != "success" {
		done, report = warnLevel, warnLevel
	}
	e.event(done, "runtimeDone", doneRecord{id, status, errorType, runMetrics{rounded(o.Duration), &produced}})
	e.event(report, "report", reportRecord{id, reportMetrics{
		Duration: rounded(o.Duration), Billed: o.billed(), Memory: memory, MaxMemory: usedMB(o.MaxMemory, memory), Init: rounded(o.Init),
	}, status, errorType})
}

// rounded is a duration in milliseconds, exact to the microsecond.
func rounded(d time.Duration) float64 { return math.Round(float64(d)/1e3) / 1e3 }
