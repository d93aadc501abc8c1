package environment

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"kiln/internal/lambda"
)

// applicationLevel orders what a function logs.
type applicationLevel int

const (
	anyLevel applicationLevel = iota
	traceLevel
	debugApplication
	infoApplication
	warnApplication
	errorLevel
	fatalLevel
)

// applicationLevels are the levels by AWS's names, and those of Python's loggers.
var applicationLevels = map[string]applicationLevel{
	"TRACE": traceLevel, "DEBUG": debugApplication, "INFO": infoApplication, "WARN": warnApplication, "ERROR": errorLevel, "FATAL": fatalLevel,
	"WARNING": warnApplication, "CRITICAL": fatalLevel,
}

// leastLevel is what a function's lines must have to be logged: with LogFormat
// JSON its ApplicationLogLevel, else any.
func leastLevel(l lambda.Logging) applicationLevel {
	if l.Format != "JSON" {
		return anyLevel
	}
	return applicationLevels[l.ApplicationLevel]
}

// levelOf is the level of a line that the function printed by itself: our runtime
// clients, like AWS's, filter what goes through the language's own logger. A JSON
// object without a known level or a valid timestamp counts as INFO; a line that is
// no JSON object has every level, and so have metrics in the embedded format, which
// nobody means to lose (unverified).
// https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-log-level.html
func levelOf(line []byte) applicationLevel {
	if line = bytes.TrimSpace(line); len(line) == 0 || line[0] != '{' {
		return fatalLevel
	}
	var record struct {
		Level     string          `json:"level"`
		Timestamp string          `json:"timestamp"`
		Metrics   json.RawMessage `json:"_aws"`
	}
	err := json.Unmarshal(line, &record)
	if _, broken := errors.AsType[*json.SyntaxError](err); broken || record.Metrics != nil {
		return fatalLevel
	}
	level, known := applicationLevels[strings.ToUpper(record.Level)]
	if err == nil && known {
		if _, err = time.Parse(time.RFC3339, record.Timestamp); err == nil {
			return level
		}
	}
	return infoApplication
}
