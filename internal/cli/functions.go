package cli

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/aws/aws-sdk-go-v2/aws"
	awslambda "github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
)

type functions struct{ remote }

// functionLine is one function as the command shows it.
type functionLine struct {
	Name     string `json:"name"`
	Runtime  string `json:"runtime"`
	Handler  string `json:"handler"`
	MemoryMB int32  `json:"memory_mb"`
	Timeout  int32  `json:"timeout_seconds"`
	CodeSize int64  `json:"code_bytes"`
	Modified string `json:"last_modified"`
}

func (f functions) Run(ctx context.Context, s *streams) error {
	c, err := f.connect(ctx, s.getenv)
	if err != nil {
		return err
	}
	list := []functionLine{}
	pages := awslambda.NewListFunctionsPaginator(c.lambda, &awslambda.ListFunctionsInput{})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return c.explain(err)
		}
		for _, fn := range page.Functions {
			runtime := string(fn.Runtime)
			if fn.PackageType == types.PackageTypeImage {
				runtime = "(image)"
			}
			list = append(list, functionLine{
				Name: aws.ToString(fn.FunctionName), Runtime: runtime, Handler: aws.ToString(fn.Handler),
				MemoryMB: aws.ToInt32(fn.MemorySize), Timeout: aws.ToInt32(fn.Timeout), CodeSize: fn.CodeSize, Modified: aws.ToString(fn.LastModified),
			})
		}
	}
	if f.JSON {
		return writeJSON(s.out, list)
	}
	if len(list) == 0 {
		fmt.Fprintln(s.out, "No functions. Create one with: aws lambda create-function")
		return nil
	}
	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tRUNTIME\tHANDLER\tMEMORY\tTIMEOUT\tMODIFIED")
	for _, l := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d MB\t%d s\t%s\n", l.Name, l.Runtime, l.Handler, l.MemoryMB, l.Timeout, strings.Replace(l.Modified, "+0000", "Z", 1))
	}
	return w.Flush()
}

type invoke struct {
	remote
	Name      string `arg:"" help:"Name or ARN of the function."`
	Payload   string `short:"p" placeholder:"JSON" help:"The event; @FILE reads a file, - standard input. Default {}."`
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
	in := &awslambda.InvokeInput{FunctionName: &i.Name, Payload: payload}
	if i.Qualifier != "" {
		in.Qualifier = &i.Qualifier
	}
	if i.Tail {
		in.LogType = types.LogTypeTail
	}
	out, err := c.lambda.Invoke(ctx, in)
	if err != nil {
		return c.explain(err)
	}
	log, err := base64.StdEncoding.DecodeString(aws.ToString(out.LogResult))
	if err != nil {
		return fmt.Errorf("the log in the answer is not base64: %w", err)
	}
	if i.JSON {
		err = writeJSON(s.out, struct {
			Status   int32  `json:"status"`
			Version  string `json:"executed_version"`
			Error    string `json:"function_error,omitempty"`
			Payload  string `json:"payload"`
			LogLines string `json:"log,omitempty"`
		}{out.StatusCode, aws.ToString(out.ExecutedVersion), aws.ToString(out.FunctionError), string(out.Payload), string(log)})
	} else {
		if len(log) > 0 {
			_, err = s.err.Write(log)
		}
		if err == nil {
			_, err = fmt.Fprintf(s.out, "%s\n", out.Payload)
		}
	}
	if err != nil {
		return err
	}
	if out.FunctionError != nil {
		if !i.JSON {
			fmt.Fprintf(s.err, "%s\n", s.red("the function failed: "+aws.ToString(out.FunctionError)))
		}
		return exitStatus(failed)
	}
	return nil
}

func (i invoke) payload(in io.Reader) ([]byte, error) {
	file, isFile := strings.CutPrefix(i.Payload, "@")
	switch {
	case i.Payload == "":
		return []byte("{}"), nil
	case i.Payload == "-":
		return io.ReadAll(in)
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
