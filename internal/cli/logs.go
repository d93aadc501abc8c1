package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"kiln/internal/aws/lambdaapi"
	"kiln/internal/aws/logsapi"
	frontlogs "kiln/internal/front/logs"
	"kiln/internal/lambda"
)

type logs struct {
	remote
	Name   string        `arg:"" help:"Name of the function."`
	Follow bool          `short:"f" help:"Go on showing what is logged."`
	Since  time.Duration `placeholder:"TIME" help:"Only what was logged so long ago at most, such as 10m. Default: all that is kept."`
	Filter string        `placeholder:"PATTERN" help:"Only what matches a filter pattern of CloudWatch Logs, such as ERROR."`
}

// followWait is for how many seconds one request waits for something new.
const followWait = "20"

func (l logs) Run(ctx context.Context, s *streams) error {
	c, err := l.connect(ctx, s.getenv)
	if err != nil {
		return err
	}
	err = l.show(ctx, s, c)
	if l.Follow && errors.Is(err, context.Canceled) {
		return nil // interrupted, which is how following ends
	}
	return c.explain(err)
}

func (l logs) show(ctx context.Context, s *streams, c *client) error {
	group, exists, err := l.group(ctx, c)
	if err != nil {
		return err
	}
	in := &logsapi.FilterLogEventsInput{LogGroupName: &group}
	if l.Since > 0 {
		in.StartTime = new(time.Now().Add(-l.Since).UnixMilli())
	}
	if l.Filter != "" {
		in.FilterPattern = &l.Filter
	}
	header := http.Header{}
	for {
		page, follow, err := c.filterLogEvents(ctx, in, header)
		if missing(err) {
			if !exists {
				return fmt.Errorf("there is no function %s, and no log that it left", l.Name)
			}
			page, err = &logsapi.FilterLogEventsOutput{}, nil // it has not logged yet
		}
		if err != nil {
			return err
		}
		for _, e := range page.Events {
			if err := l.print(s, e); err != nil {
				return err
			}
		}
		switch {
		case page.NextToken != nil:
			in.NextToken = page.NextToken
			header.Del(frontlogs.WaitHeader)
		case l.Follow:
			if follow != "" {
				in.NextToken = &follow
			}
			header.Set(frontlogs.WaitHeader, followWait)
		default:
			return nil
		}
	}
}

// group is where the function logs. One that was deleted may have left its log.
func (l logs) group(ctx context.Context, c *client) (group string, exists bool, err error) {
	var out lambdaapi.GetFunctionConfigurationOutput
	err = c.read(ctx, functionsPath+url.PathEscape(l.Name)+"/configuration", nil, &out)
	switch {
	case missing(err):
		arn, err := lambda.ParseFunction(l.Name, "", lambda.Scope{Region: lambda.Region(c.aws.Region)})
		return lambda.DefaultLogGroup(arn.Name), false, err
	case err != nil:
		return "", false, err
	}
	return lambdaapi.Value(out.LoggingConfig.LogGroup), true, nil
}

// filterLogEvents asks as AWS's clients do. Beside the page it returns the token of
// what is still to come.
func (c *client) filterLogEvents(ctx context.Context, in *logsapi.FilterLogEventsInput, header http.Header) (page *logsapi.FilterLogEventsOutput, follow string, err error) {
	body, err := json.Marshal(in)
	if err != nil {
		return nil, "", err
	}
	header = header.Clone()
	header.Set("Content-Type", "application/x-amz-json-1.1")
	header.Set("X-Amz-Target", "Logs_20140328.FilterLogEvents")
	response, err := c.send(ctx, http.MethodPost, "/", "logs", header, body)
	if err != nil {
		return nil, "", err
	}
	defer response.Body.Close()
	page = new(logsapi.FilterLogEventsOutput)
	return page, response.Header.Get(frontlogs.FollowHeader), json.NewDecoder(response.Body).Decode(page)
}

// logLine is one event as the command shows it.
type logLine struct {
	Time    time.Time `json:"time"`
	Stream  string    `json:"stream"`
	Message string    `json:"message"`
}

func (l logs) print(s *streams, e logsapi.FilteredLogEvent) error {
	line := logLine{time.UnixMilli(*e.Timestamp).UTC(), *e.LogStreamName, *e.Message}
	if l.JSON {
		return writeJSONLine(s.out, line)
	}
	stamp := line.Time.Format("2006-01-02T15:04:05.000Z")
	if s.interactive {
		stamp = "\x1b[2m" + stamp + "\x1b[0m"
	}
	_, err := fmt.Fprintf(s.out, "%s %s\n", stamp, strings.TrimRight(line.Message, "\n"))
	return err
}
