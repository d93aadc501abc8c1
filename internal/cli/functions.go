package cli

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"text/tabwriter"

	"kiln/internal/aws/lambdaapi"
	"kiln/internal/lambda"
)

// functionsPath is where the Lambda API has functions.
const functionsPath = "/2015-03-31/functions/"

// read reads what the Lambda API has at a path.
func (c *client) read(ctx context.Context, path string, query url.Values, into any) error {
	response, err := c.lambda(ctx, http.MethodGet, path, query, nil, nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	return json.NewDecoder(response.Body).Decode(into)
}

type functions struct{ remote }

// functionLine is one function as the command shows it.
type functionLine struct {
	Name     string `json:"name"`
	Runtime  string `json:"runtime"`
	Handler  string `json:"handler"`
	MemoryMB int    `json:"memory_mb"`
	Timeout  int    `json:"timeout_seconds"`
	CodeSize int64  `json:"code_bytes"`
	Modified string `json:"last_modified"`
	Driver   string `json:"driver,omitempty"` // where it runs, if the caller may know
}

// isolation is what health tells of drivers; nothing, where the caller may not see it.
type isolation struct {
	Driver   string
	Isolates bool
	Summary  string            `json:"isolation"`
	Accounts map[string]string `json:"account_drivers"`
}

// of is the driver of a function, by its ARN.
func (i isolation) of(arn string) string {
	if parts := strings.Split(arn, ":"); len(parts) > 4 && i.Accounts[parts[4]] != "" {
		return i.Accounts[parts[4]]
	}
	return i.Driver
}

func (f functions) Run(ctx context.Context, s *streams) error {
	c, err := f.connect(ctx, s.getenv)
	if err != nil {
		return err
	}
	var where isolation
	var refused *refusal
	if err := c.get(ctx, "/_kiln/health", nil, &where); err != nil && !errors.As(err, &refused) {
		return c.explain(err)
	}
	list := []functionLine{}
	query := url.Values{}
	for more := true; more; {
		var page lambdaapi.ListFunctionsOutput
		if err := c.read(ctx, functionsPath, query, &page); err != nil {
			return c.explain(err)
		}
		for _, fn := range page.Functions {
			runtime := lambdaapi.Value(fn.Runtime)
			if lambdaapi.Value(fn.PackageType) == string(lambda.Image) {
				runtime = "(image)"
			}
			list = append(list, functionLine{
				Name: lambdaapi.Value(fn.FunctionName), Runtime: runtime, Handler: lambdaapi.Value(fn.Handler),
				MemoryMB: lambdaapi.Value(fn.MemorySize), Timeout: lambdaapi.Value(fn.Timeout), CodeSize: lambdaapi.Value(fn.CodeSize), Modified: lambdaapi.Value(fn.LastModified),
				Driver: where.of(lambdaapi.Value(fn.FunctionArn)),
			})
		}
		query.Set("Marker", lambdaapi.Value(page.NextMarker))
		more = page.NextMarker != nil
	}
	if f.JSON {
		return writeJSON(s.out, list)
	}
	if len(list) == 0 {
		fmt.Fprintln(s.out, "No functions. Create one with: aws lambda create-function")
		return nil
	}
	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tRUNTIME\tHANDLER\tMEMORY\tTIMEOUT\tMODIFIED\tDRIVER")
	for _, l := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d MB\t%d s\t%s\t%s\n", l.Name, l.Runtime, l.Handler, l.MemoryMB, l.Timeout, strings.Replace(l.Modified, "+0000", "Z", 1), first(l.Driver, "-"))
	}
	if err := w.Flush(); err != nil || where.Driver == "" || where.Isolates {
		return err
	}
	_, err = fmt.Fprintf(s.out, "Driver %s: %s.\n", where.Driver, where.Summary)
	return err
}

type invoke struct {
	remote
	Name      string `arg:"" help:"Name or ARN of the function."`
	Payload   string `short:"p" placeholder:"JSON" help:"The event; @FILE reads a file, - standard input. Default: standard input where it is a pipe or a file, else {}."`
	Qualifier string `placeholder:"VERSION" help:"Version or alias."`
	Tail      bool   `short:"t" help:"Show the end of the function's log, on standard error."`
}

// Run prints the answer. The exit code is 1 when the function failed.
func (i invoke) Run(ctx context.Context, s *streams) error {
	payload, err := i.payload(s.in)
	if err != nil {
		return err
	}
	c, err := i.connect(ctx, s.getenv)
	if err != nil {
		return err
	}
	query, header := url.Values{}, http.Header{}
	if i.Qualifier != "" {
		query.Set("Qualifier", i.Qualifier)
	}
	if i.Tail {
		header.Set("X-Amz-Log-Type", "Tail")
	}
	out, err := c.lambda(ctx, http.MethodPost, functionsPath+url.PathEscape(i.Name)+"/invocations", query, header, payload)
	if err != nil {
		return c.explain(err)
	}
	defer out.Body.Close()
	answer, err := io.ReadAll(out.Body)
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	problem := out.Header.Get("X-Amz-Function-Error")
	log, err := base64.StdEncoding.DecodeString(out.Header.Get("X-Amz-Log-Result"))
	if err != nil {
		return fmt.Errorf("the log in the answer is not base64: %w", err)
	}
	if i.JSON {
		err = writeJSON(s.out, struct {
			Status   int    `json:"status"`
			Version  string `json:"executed_version"`
			Error    string `json:"function_error,omitempty"`
			Payload  string `json:"payload"`
			LogLines string `json:"log,omitempty"`
		}{out.StatusCode, out.Header.Get("X-Amz-Executed-Version"), problem, string(answer), string(log)})
	} else {
		if len(log) > 0 {
			_, err = s.err.Write(log)
		}
		if err == nil {
			_, err = fmt.Fprintf(s.out, "%s\n", answer)
		}
	}
	if err != nil {
		return err
	}
	if problem != "" {
		if !i.JSON {
			fmt.Fprintf(s.err, "%s\n", s.red("the function failed: "+problem))
		}
		return exitStatus(failed)
	}
	return nil
}

// piped tells whether somebody feeds the command: a terminal and /dev/null do not.
func piped(in io.Reader) bool {
	f, ok := in.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && (info.Mode().IsRegular() || info.Mode()&os.ModeNamedPipe != 0)
}

func (i invoke) payload(in io.Reader) ([]byte, error) {
	file, isFile := strings.CutPrefix(i.Payload, "@")
	switch {
	case i.Payload == "-":
		return io.ReadAll(in)
	case i.Payload == "" && piped(in):
		payload, err := io.ReadAll(in)
		if len(payload) == 0 {
			payload = []byte("{}")
		}
		return payload, err
	case i.Payload == "":
		return []byte("{}"), nil
	case isFile:
		return os.ReadFile(file)
	default:
		return []byte(i.Payload), nil
	}
}

// red is for errors, on a terminal only.
func (s *streams) red(text string) string {
	if !s.interactive {
		return text
	}
	return "\x1b[31m" + text + "\x1b[0m"
}
