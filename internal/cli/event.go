package cli

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"kiln/internal/config"
)

// samples are events as the sources send them, by the names in sources.
//
//go:embed events/*.json
var samples embed.FS

// sources are those that there are samples of, in the order in which they are listed.
var sources = []struct{ name, what string }{
	{"activemq", "messages of an ActiveMQ broker"},
	{"alb", "a request to an Application Load Balancer"},
	{"alb-multivalue", "the same, of a target group with multi-value headers"},
	{"apigateway", "a request to a REST API (payload format 1.0)"},
	{"apigateway-authorizer", "a token for an authorizer of a REST API"},
	{"apigateway-websocket", "a message to a WebSocket API"},
	{"cloudformation", "the creation of a custom resource"},
	{"cloudwatch-alarm", "an alarm that changed its state"},
	{"cloudwatch-logs", "log events of a subscription; data is base64 of gzip"},
	{"cognito-postconfirmation", "a user who has signed up to a user pool"},
	{"cognito-presignup", "a user who signs up to a user pool"},
	{"cognito-pretokengen", "a token that a user pool is about to give out"},
	{"config", "a periodic evaluation of a Config rule"},
	{"documentdb", "a change in a DocumentDB collection"},
	{"dynamodb", "changes in a table, of its stream"},
	{"eventbridge", "an event of a bus that a rule matched"},
	{"firehose", "records to transform; data is base64"},
	{"function-url", "a request to a function URL (payload format 2.0)"},
	{"http-api", "a request to an HTTP API (payload format 2.0)"},
	{"kafka", "records of a self-managed Kafka; key and value are base64"},
	{"kinesis", "records of a stream; data is base64"},
	{"msk", "records of Amazon MSK; key and value are base64"},
	{"rabbitmq", "messages of a RabbitMQ broker; data is base64"},
	{"s3", "an object that was put"},
	{"s3-delete", "an object that was deleted"},
	{"schedule", "a rule's schedule"},
	{"secretsmanager", "a step of a secret's rotation"},
	{"ses", "an email that was received"},
	{"sns", "a message of a topic"},
	{"sqs", "messages of a queue"},
	{"sqs-fifo", "messages of a FIFO queue"},
}

type event struct {
	Source string   `arg:"" optional:"" help:"Whose event; without it, the sources are listed."`
	Set    []string `sep:"none" placeholder:"PATH=VALUE" help:"Change a value: names and positions separated by dots, such as Records.0.body=hello. What is no text already, is JSON."`
	Add    []string `sep:"none" placeholder:"PATH=VALUE" help:"Add one that is not there, at a new name or at the end of a list. It is JSON, or else text."`
}

// Run prints a sample as JSON, for kiln invoke to read.
func (e event) Run(s *streams) error {
	if e.Source == "" {
		w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
		for _, source := range sources {
			fmt.Fprintf(w, "%s\t%s\n", source.name, source.what)
		}
		return w.Flush()
	}
	sample, err := samples.ReadFile("events/" + e.Source + ".json")
	if err != nil {
		var names []string
		for _, source := range sources {
			names = append(names, source.name)
		}
		return fmt.Errorf("there is no event of %q%s; kiln event lists the sources", e.Source, meant(e.Source, names))
	}
	if len(e.Set)+len(e.Add) == 0 {
		_, err := s.out.Write(sample)
		return err
	}
	decoder := json.NewDecoder(bytes.NewReader(sample))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		return err
	}
	for _, change := range []struct {
		list []string
		add  bool
	}{{e.Set, false}, {e.Add, true}} {
		for _, pair := range change.list {
			path, text, ok := strings.Cut(pair, "=")
			if !ok {
				return fmt.Errorf("%q is not PATH=VALUE", pair)
			}
			if value, err = edit(value, strings.Split(path, "."), "", text, change.add); err != nil {
				return err
			}
		}
	}
	encoder := json.NewEncoder(s.out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}

// edit returns the value with what is at the path below it changed to the text, or with
// the text added there. at is where the value is.
func edit(value any, path []string, at, text string, add bool) (changed any, err error) {
	if len(path) == 0 {
		list, isList := value.([]any)
		switch {
		case !add:
			return replaced(value, at, text)
		case isList:
			return append(list, parsed(text)), nil
		}
		return nil, fmt.Errorf("%s is there already; --set changes it", at)
	}
	below := func(name string) string { return strings.TrimPrefix(at+"."+name, ".") }
	switch v := value.(type) {
	case map[string]any:
		for n := 1; n <= len(path); n++ { // a name may have dots in it
			name := strings.Join(path[:n], ".")
			if old, there := v[name]; there {
				v[name], err = edit(old, path[n:], below(name), text, add)
				return v, err
			}
		}
		if add {
			v[strings.Join(path, ".")] = parsed(text)
			return v, nil
		}
		names := slices.Sorted(maps.Keys(v))
		return nil, fmt.Errorf("there is no %s in this event%s; what is there: %s; --add adds what is not", below(path[0]), meant(path[0], names), strings.Join(names, ", "))
	case []any:
		i, err := strconv.Atoi(path[0])
		switch {
		case err == nil && add && i == len(v) && len(path) == 1:
			return append(v, parsed(text)), nil
		case err != nil || i < 0 || i >= len(v):
			return nil, fmt.Errorf("there is no %s in this event: that is a list of %d, counted from 0", below(path[0]), len(v))
		}
		v[i], err = edit(v[i], path[1:], below(path[0]), text, add)
		return v, err
	}
	return nil, fmt.Errorf("there is no %s in this event: %s is no object and no list", below(path[0]), at)
}

// replaced is the text in place of a value: text stays text, all else is JSON.
func replaced(old any, at, text string) (any, error) {
	if _, ok := old.(string); ok {
		return text, nil
	}
	if old == nil { // it could be anything
		return parsed(text), nil
	}
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		return nil, fmt.Errorf("%s: %q is not JSON, and it was no text before", at, text)
	}
	return json.RawMessage(text), nil
}

// parsed is JSON, or else text.
func parsed(text string) any {
	if json.Valid([]byte(text)) {
		return json.RawMessage(text)
	}
	return text
}

// meant asks for the name that begins so, or is nearest to one that is not there.
func meant(name string, names []string) string {
	if i := slices.IndexFunc(names, func(n string) bool { return strings.HasPrefix(n, name) }); i >= 0 {
		return ": did you mean " + names[i] + "?"
	}
	if best := config.Nearest(name, names); best != "" {
		return ": did you mean " + best + "?"
	}
	return ""
}
