package mapping_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"kiln/internal/lambda"
	"kiln/internal/registry/mapping"
	"kiln/internal/state/jetstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var scope = lambda.Scope{Account: "123456789012", Region: "us-east-1"}

const (
	queue    = "arn:aws:sqs:us-east-1:123456789012:jobs"
	fifo     = "arn:aws:sqs:us-east-1:123456789012:jobs.fifo"
	kinesis  = "arn:aws:kinesis:us-east-1:123456789012:stream/clicks"
	consumer = "arn:aws:kinesis:us-east-1:123456789012:stream/clicks/consumer/one:1700000000"
	dynamo   = "arn:aws:dynamodb:us-east-1:123456789012:table/orders/stream/2026-01-01T00:00:00.000"
	msk      = "arn:aws:kafka:us-east-1:123456789012:cluster/logs/0b1c2d3e-1111-2222-3333-444455556666-2"
	broker   = "arn:aws:mq:us-east-1:123456789012:broker:mail:b-0b1c2d3e-1111-2222-3333-444455556666"
	docdb    = "arn:aws:rds:us-east-1:123456789012:cluster:docs"
)

// functions are those that exist, by ARN.
type functions map[string]bool

var errBroken = errors.New("broken")

func (f functions) Get(arn lambda.FunctionARN) (*lambda.Function, error) {
	switch {
	case arn.Name == "broken":
		return nil, errBroken
	case f[arn.String()]:
		return &lambda.Function{ARN: arn}, nil
	}
	return nil, lambda.NotFound("Function not found: %s", arn)
}

type rig struct {
	*mapping.Registry
	t      *testing.T
	dir    string
	engine *jetstream.Engine
	known  functions

	mu      sync.Mutex
	changes []string // guarded by mu
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), known: functions{}}
	for _, name := range []string{"f", "f:live", "f:1", "f:$LATEST", "g"} {
		r.known["arn:aws:lambda:us-east-1:123456789012:function:"+name] = true
	}
	r.open()
	t.Cleanup(r.close)
	return r
}

func (r *rig) open() {
	r.t.Helper()
	r.engine = jetstream.New(jetstream.Config{Dir: r.dir, Node: "test"})
	if err := r.engine.Open(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	r.Registry = mapping.New(r.engine.State(), r.known, func(arn lambda.MappingARN, now *lambda.EventSourceMapping) {
		r.mu.Lock()
		defer r.mu.Unlock()
		change := "gone"
		if now != nil {
			change = string(now.State)
		}
		r.changes = append(r.changes, change)
	})
	if err := r.Open(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) close() {
	if err := r.engine.Close(); err != nil {
		r.t.Error(err)
	}
}

func function(name string) lambda.FunctionARN {
	arn, err := lambda.ParseFunction(name, "", scope)
	if err != nil {
		panic(err)
	}
	return arn
}

// from is a request for a mapping of f with no more than its source needs.
func from(source string) mapping.Create {
	c := mapping.Create{Scope: scope, Function: function("f"), Source: lambda.EventSource{ARN: source}}
	auth := []lambda.SourceAccess{{Type: "BASIC_AUTH", URI: "arn:aws:secretsmanager:us-east-1:123456789012:secret:s"}}
	switch source {
	case kinesis, consumer, dynamo:
		c.Source.StartingPosition = "LATEST"
	case msk:
		c.Source.StartingPosition, c.Source.Topics = "TRIM_HORIZON", []string{"t"}
	case "":
		c.Source.Brokers = []string{"b1:9092", "b2:9092"}
		c.Source.StartingPosition, c.Source.Topics, c.Settings.Access = "TRIM_HORIZON", []string{"t"}, auth
	case broker:
		c.Source.Queues, c.Settings.Access = []string{"q"}, auth
	case docdb:
		c.Source.StartingPosition, c.Settings.Access = "LATEST", auth
		c.Settings.DocumentDB = &lambda.DocumentDBSource{Database: new("db")}
	}
	return c
}

func (r *rig) create(c mapping.Create) *lambda.EventSourceMapping {
	r.t.Helper()
	m, err := r.Create(r.t.Context(), c)
	if err != nil {
		r.t.Fatal(err)
	}
	return m
}

func refused(t *testing.T, what string, err error, code, message string) {
	t.Helper()
	if e := lambda.AsError(err); e == nil || e.Code != code || e.Message != message {
		t.Errorf("%s: got %v\nwant %s: %s", what, err, code, message)
	}
}

const invalid = "InvalidParameterValueException"

// TestDefaults: each kind of source has its settings, and no others.
func TestDefaults(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	streams := lambda.MappingSettings{
		BatchSize: new(100), BatchingWindow: new(0), ParallelizationFactor: new(1), MaximumRecordAge: new(-1), MaximumRetryAttempts: new(-1),
		BisectBatch: new(false), TumblingWindow: new(0), OnFailure: new(""), ResponseTypes: []string{},
	}
	for source, c := range map[string]struct {
		kind lambda.SourceKind
		want func(m *lambda.EventSourceMapping) lambda.MappingSettings
	}{
		queue: {lambda.SQS, func(*lambda.EventSourceMapping) lambda.MappingSettings {
			return lambda.MappingSettings{BatchSize: new(10), BatchingWindow: new(0), ResponseTypes: []string{}}
		}},
		kinesis:  {lambda.Kinesis, func(*lambda.EventSourceMapping) lambda.MappingSettings { return streams }},
		consumer: {lambda.Kinesis, func(*lambda.EventSourceMapping) lambda.MappingSettings { return streams }},
		dynamo:   {lambda.DynamoDBStream, func(*lambda.EventSourceMapping) lambda.MappingSettings { return streams }},
		msk: {lambda.ManagedKafka, func(m *lambda.EventSourceMapping) lambda.MappingSettings {
			return lambda.MappingSettings{BatchSize: new(100), OnFailure: new(""), ManagedKafka: &lambda.KafkaSource{ConsumerGroup: &m.ARN.ID}}
		}},
		"": {lambda.SelfManagedKafka, func(m *lambda.EventSourceMapping) lambda.MappingSettings {
			return lambda.MappingSettings{BatchSize: new(100), OnFailure: new(""), SelfManagedKafka: &lambda.KafkaSource{ConsumerGroup: &m.ARN.ID}, Access: from("").Settings.Access}
		}},
		broker: {lambda.MQ, func(*lambda.EventSourceMapping) lambda.MappingSettings {
			return lambda.MappingSettings{BatchSize: new(100), Access: from(broker).Settings.Access}
		}},
		docdb: {lambda.DocumentDB, func(*lambda.EventSourceMapping) lambda.MappingSettings {
			return lambda.MappingSettings{BatchSize: new(100), Access: from(docdb).Settings.Access, DocumentDB: &lambda.DocumentDBSource{Database: new("db"), FullDocument: new("Default")}}
		}},
	} {
		m := r.create(from(source))
		if m.Source.Kind != c.kind {
			t.Errorf("%s is of kind %q", source, m.Source.Kind)
		}
		if diff := cmp.Diff(c.want(m), m.Settings); diff != "" {
			t.Errorf("%s (-want +got):\n%s", source, diff)
		}
	}
}

// TestLife takes mappings through their states, over a restart.
func TestLife(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := from(queue)
	c.Tags = map[string]string{"k": "v"}
	made := r.create(c)
	if made.State != lambda.MappingCreating || made.ARN.String() != "arn:aws:lambda:us-east-1:123456789012:event-source-mapping:"+made.ARN.ID || time.Since(made.Modified) > time.Minute {
		t.Errorf("created %+v", made)
	}
	off := from(kinesis)
	off.Disabled = true
	if m := r.create(off); m.State != lambda.MappingDisabled {
		t.Errorf("created disabled: %s", m.State)
	}
	got, err := r.Get(made.ARN)
	if err != nil || got.State != lambda.MappingEnabled {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, step := range []struct {
		update       mapping.Update
		answer, rest lambda.MappingState
	}{
		{mapping.Update{}, lambda.MappingUpdating, lambda.MappingEnabled},
		{mapping.Update{Enabled: new(false)}, lambda.MappingDisabling, lambda.MappingDisabled},
		{mapping.Update{Enabled: new(false), Settings: lambda.MappingSettings{BatchSize: new(5)}}, lambda.MappingUpdating, lambda.MappingDisabled},
		{mapping.Update{Enabled: new(true)}, lambda.MappingEnabling, lambda.MappingEnabled},
		{mapping.Update{Function: new(function("f:live"))}, lambda.MappingUpdating, lambda.MappingEnabled},
	} {
		step.update.ARN = made.ARN
		m, err := r.Update(t.Context(), step.update)
		if err != nil || m.State != step.answer {
			t.Errorf("%+v answers %+v, %v", step.update, m, err)
		}
		if m, err = r.Get(made.ARN); err != nil || m.State != step.rest {
			t.Errorf("after %+v: %+v, %v", step.update, m, err)
		}
	}
	before, _ := r.Get(made.ARN)
	if before.Function.String() != "arn:aws:lambda:us-east-1:123456789012:function:f:live" || *before.Settings.BatchSize != 5 {
		t.Errorf("updated to %+v", before)
	}
	r.close()
	clear(r.known) // the functions are gone; their mappings are not
	r.open()
	after, err := r.Get(made.ARN)
	if diff := cmp.Diff(before, after); err != nil || diff != "" {
		t.Errorf("after a restart (-before +after): %v\n%s", err, diff)
	}
	gone, err := r.Delete(t.Context(), made.ARN)
	if err != nil || gone.State != lambda.MappingDeleting {
		t.Errorf("deleted: %+v, %v", gone, err)
	}
	const missing = "The resource you requested does not exist."
	_, err = r.Get(made.ARN)
	refused(t, "Get", err, "ResourceNotFoundException", missing)
	_, err = r.Delete(t.Context(), made.ARN)
	refused(t, "Delete", err, "ResourceNotFoundException", missing)
	_, err = r.Update(t.Context(), mapping.Update{ARN: made.ARN})
	refused(t, "Update", err, "ResourceNotFoundException", missing)
	want := []string{"Enabled", "Disabled", "Enabled", "Disabled", "Disabled", "Enabled", "Enabled", "gone"}
	if diff := cmp.Diff(want, r.changes); diff != "" {
		t.Errorf("announced (-want +got):\n%s", diff)
	}
}

// TestRefused: what AWS refuses, with its words.
func TestRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const unsupported = "Unsupported %s parameter for given event source mapping type."
	null := func(member string) string {
		return "1 validation error detected: Value null at '" + member + "' failed to satisfy constraint: Member must not be null."
	}
	all := map[string]func(s *lambda.MappingSettings){
		"DestinationConfig":                   func(s *lambda.MappingSettings) { s.OnFailure = new("") },
		"ParallelizationFactor":               func(s *lambda.MappingSettings) { s.ParallelizationFactor = new(1) },
		"MaximumRecordAgeInSeconds":           func(s *lambda.MappingSettings) { s.MaximumRecordAge = new(-1) },
		"BisectBatchOnFunctionError":          func(s *lambda.MappingSettings) { s.BisectBatch = new(true) },
		"MaximumRetryAttempts":                func(s *lambda.MappingSettings) { s.MaximumRetryAttempts = new(1) },
		"TumblingWindowInSeconds":             func(s *lambda.MappingSettings) { s.TumblingWindow = new(1) },
		"FilterCriteria":                      func(s *lambda.MappingSettings) { s.Filters = []string{`{"a":["b"]}`} },
		"KMSKeyArn":                           func(s *lambda.MappingSettings) { s.KMSKeyARN = new("arn:aws:kms:us-east-1:123456789012:key/k") },
		"FunctionResponseTypes":               func(s *lambda.MappingSettings) { s.ResponseTypes = []string{"ReportBatchItemFailures"} },
		"ScalingConfig":                       func(s *lambda.MappingSettings) { s.MaximumConcurrency = new(2) },
		"ProvisionedPollerConfig":             func(s *lambda.MappingSettings) { s.Pollers = &lambda.Pollers{Minimum: new(2)} },
		"AmazonManagedKafkaEventSourceConfig": func(s *lambda.MappingSettings) { s.ManagedKafka = &lambda.KafkaSource{} },
		"SelfManagedKafkaEventSourceConfig":   func(s *lambda.MappingSettings) { s.SelfManagedKafka = &lambda.KafkaSource{} },
		"DocumentDBEventSourceConfig":         func(s *lambda.MappingSettings) { s.DocumentDB = &lambda.DocumentDBSource{Database: new("other")} },
		"MetricsConfig":                       func(s *lambda.MappingSettings) { s.Metrics = []string{"EventCount"} },
		"LoggingConfig":                       func(s *lambda.MappingSettings) { s.LogLevel = new("INFO") },
	}
	const streams = "DestinationConfig ParallelizationFactor MaximumRecordAgeInSeconds BisectBatchOnFunctionError MaximumRetryAttempts TumblingWindowInSeconds FilterCriteria KMSKeyArn FunctionResponseTypes MetricsConfig"
	const kafka = "DestinationConfig FilterCriteria KMSKeyArn ProvisionedPollerConfig MetricsConfig LoggingConfig"
	const provisioned = "MaximumRecordAgeInSeconds BisectBatchOnFunctionError MaximumRetryAttempts FunctionResponseTypes"
	for source, allowed := range map[string]string{
		queue:   "FilterCriteria KMSKeyArn FunctionResponseTypes ScalingConfig ProvisionedPollerConfig MetricsConfig",
		kinesis: streams, dynamo: streams,
		msk: kafka + " AmazonManagedKafkaEventSourceConfig", "": kafka + " SelfManagedKafkaEventSourceConfig",
		broker: "FilterCriteria KMSKeyArn", docdb: "DocumentDBEventSourceConfig",
	} {
		for name, give := range all {
			c := from(source)
			give(&c.Settings)
			m, err := r.Create(t.Context(), c)
			isKafka := source == msk || source == ""
			switch listed := func(list string) bool { return strings.Contains(" "+list+" ", " "+name+" ") }; {
			case listed(allowed):
				if err != nil {
					t.Errorf("%s of %q: %v", name, source, err)
					continue
				}
				if _, err := r.Delete(t.Context(), m.ARN); err != nil {
					t.Fatal(err)
				}
			case isKafka && listed(provisioned):
				if err == nil || !strings.Contains(err.Error(), name+" is supported for ") || !strings.Contains(err.Error(), "only with a ProvisionedPollerConfig") {
					t.Errorf("%s of %q without pollers: %v", name, source, err)
				}
			default:
				refused(t, name+" of "+source, err, invalid, fmt.Sprintf(unsupported, name))
			}
		}
	}
	many := map[string]string{}
	for i := range lambda.MaxTags + 1 {
		many[fmt.Sprint(i)] = ""
	}
	at := time.Unix(1700000000, 0)
	for _, c := range []struct {
		name, source string
		give         func(*mapping.Create)
		message      string
	}{
		{"no source", queue, func(c *mapping.Create) { c.Source.ARN = "" }, "Unrecognized event source."},
		{"two sources", queue, func(c *mapping.Create) { c.Source.Brokers = []string{"b:1"} }, "Please provide either EventSourceArn or SelfManagedEventSource, not both."},
		{"a topic", "arn:aws:sns:us-east-1:123456789012:t", nil, "Unrecognized event source, must be kinesis, dynamodb stream or sqs. Unsupported source arn : arn:aws:sns:us-east-1:123456789012:t"},
		{"a table", "arn:aws:dynamodb:us-east-1:123456789012:table/orders", nil, "Unrecognized event source, must be kinesis, dynamodb stream or sqs. Unsupported source arn : arn:aws:dynamodb:us-east-1:123456789012:table/orders"},
		{"no access", "", func(c *mapping.Create) { c.Settings.Access = nil }, "Required 'sourceAccessConfigurations' parameter is missing."},
		{"no access of a broker", broker, func(c *mapping.Create) { c.Settings.Access = nil }, "Required 'sourceAccessConfigurations' parameter is missing."},
		{"access that the kind has not", broker, func(c *mapping.Create) { c.Settings.Access[0].Type = "VPC_SUBNET" }, "SourceAccessConfigurations of type VPC_SUBNET are not valid for Amazon MQ event sources; these are: BASIC_AUTH, VIRTUAL_HOST."},
		{"a large batch of a FIFO queue", fifo, func(c *mapping.Create) { c.Settings.BatchSize = new(11) }, "BatchSize must be less than or equal to 10 for SQS FIFO queues"},
		{"a window of a FIFO queue", fifo, func(c *mapping.Create) { c.Settings.BatchingWindow = new(1) }, "Batching window is not supported for FIFO queues"},
		{"a large batch without a window", queue, func(c *mapping.Create) { c.Settings.BatchSize = new(11) }, "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10"},
		{"no position", kinesis, func(c *mapping.Create) { c.Source.StartingPosition = "" }, null("startingPosition")},
		{"no position of Kafka", msk, func(c *mapping.Create) { c.Source.StartingPosition = "" }, null("startingPosition")},
		{"a position of a queue", queue, func(c *mapping.Create) { c.Source.StartingPosition = "LATEST" }, "StartingPosition is not valid for SQS event sources."},
		{"a time of a queue", queue, func(c *mapping.Create) { c.Source.StartingTime = &at }, "StartingPosition is not valid for SQS event sources."},
		{"a time with LATEST", kinesis, func(c *mapping.Create) { c.Source.StartingTime = &at }, "Timestamp only valid with StartingPosition AT_TIMESTAMP"},
		{"AT_TIMESTAMP without a time", kinesis, func(c *mapping.Create) { c.Source.StartingPosition = "AT_TIMESTAMP" }, null("startingPositionTimestamp")},
		{"a time before 1970", kinesis, func(c *mapping.Create) {
			c.Source.StartingPosition, c.Source.StartingTime = "AT_TIMESTAMP", new(time.Unix(-1, 0))
		}, "Received Exception while reading from provided stream. class java.lang.Long can not be converted to a Timestamp"},
		{"AT_TIMESTAMP of DynamoDB", dynamo, func(c *mapping.Create) { c.Source.StartingPosition, c.Source.StartingTime = "AT_TIMESTAMP", &at }, "Unsupported starting position for arn type: " + dynamo},
		{"six filters", queue, func(c *mapping.Create) { c.Settings.Filters = slices.Repeat([]string{`{"a":["b"]}`}, 6) }, "FilterCriteria must have at most 5 filters."},
		{"a bad filter", queue, func(c *mapping.Create) { c.Settings.Filters = []string{`{"a":["b"]}`, `{"a":"b"}`} }, "Invalid filter pattern definition."},
		{"an empty filter", queue, func(c *mapping.Create) { c.Settings.Filters = []string{""} }, "Invalid filter pattern definition."},
		{"no topic", msk, func(c *mapping.Create) { c.Source.Topics = nil }, null("topics")},
		{"a topic of a queue", queue, func(c *mapping.Create) { c.Source.Topics = []string{"t"} }, fmt.Sprintf(unsupported, "Topics")},
		{"a queue of a stream", kinesis, func(c *mapping.Create) { c.Source.Queues = []string{"t"} }, fmt.Sprintf(unsupported, "Queues")},
		{"no queue", broker, func(c *mapping.Create) { c.Source.Queues = nil }, null("queues")},
		{"no database", docdb, func(c *mapping.Create) { c.Settings.DocumentDB = nil }, null("documentDBEventSourceConfig.databaseName")},
		{"a metric that the kind has not", queue, func(c *mapping.Create) { c.Settings.Metrics = []string{"EventCount", "KafkaMetrics"} }, "The metric KafkaMetrics is not valid for SQS event sources; these are: EventCount."},
		{"a record age of 59", kinesis, func(c *mapping.Create) { c.Settings.MaximumRecordAge = new(59) }, "MaximumRecordAgeInSeconds must be -1, or between 60 and 604800."},
		{"one poller of a queue", queue, func(c *mapping.Create) { c.Settings.Pollers = &lambda.Pollers{Minimum: new(1)} }, "MinimumPollers should be between [2, 200] and MaximumPollers should be between [MinimumPollers, 2000]"},
		{"fewer than the least pollers", msk, func(c *mapping.Create) { c.Settings.Pollers = &lambda.Pollers{Minimum: new(9), Maximum: new(8)} }, "MinimumPollers should be between [1, 200] and MaximumPollers should be between [MinimumPollers, 2000]"},
		{"a group of pollers of a queue", queue, func(c *mapping.Create) { c.Settings.Pollers = &lambda.Pollers{Group: new("g")} }, fmt.Sprintf(unsupported, "PollerGroupName")},
		{"pollers and concurrency", queue, func(c *mapping.Create) {
			c.Settings.Pollers, c.Settings.MaximumConcurrency = &lambda.Pollers{Maximum: new(5)}, new(5)
		}, "Provisioned mode for SQS ESM does not support maximum concurrency feature. Use MaximumPollers as the control mechanism and remove maximum concurrency."},
		{"schemas without pollers", msk, func(c *mapping.Create) {
			c.Settings.ManagedKafka = &lambda.KafkaSource{Schemas: &lambda.SchemaRegistry{URI: "https://r"}}
		}, "SchemaRegistryConfig is supported only with a ProvisionedPollerConfig."},
		{"a destination that is none", kinesis, func(c *mapping.Create) { c.Settings.OnFailure = new("arn:aws:kinesis:us-east-1:123456789012:stream/s") }, "The provided destination config DestinationConfig(onSuccess=null, onFailure=OnFailure(destination=arn:aws:kinesis:us-east-1:123456789012:stream/s)) is invalid."},
		{"a topic as a stream's destination", kinesis, func(c *mapping.Create) { c.Settings.OnFailure = new("kafka://t") }, "The provided destination config DestinationConfig(onSuccess=null, onFailure=OnFailure(destination=kafka://t)) is invalid."},
		{"no function", queue, func(c *mapping.Create) { c.Function = function("absent") }, "Function does not exist"},
		{"no alias", queue, func(c *mapping.Create) { c.Function = function("f:absent") }, "Function does not exist"},
		{"51 tags", queue, func(c *mapping.Create) { c.Tags = many }, "Number of tags exceeds resource tag limit."},
	} {
		in := from(c.source)
		if c.give != nil {
			c.give(&in)
		}
		_, err := r.Create(t.Context(), in)
		refused(t, c.name, err, invalid, c.message)
	}
	broken := from(queue)
	broken.Function.Name = "broken"
	if _, err := r.Create(t.Context(), broken); !errors.Is(err, errBroken) {
		t.Errorf("a registry that fails: %v", err)
	}
	if page, _ := r.List(scope, mapping.Filter{}, "", 100); len(page) != 0 {
		t.Errorf("%d mappings were made all the same", len(page))
	}
}

// TestAtTheEdge: what is just allowed.
func TestAtTheEdge(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, c := range []struct {
		source string
		give   func(*mapping.Create)
	}{
		{queue, func(c *mapping.Create) { c.Settings.BatchSize, c.Settings.BatchingWindow = new(10000), new(1) }},
		{fifo, func(c *mapping.Create) { c.Settings.BatchSize = new(10) }},
		{kinesis, func(c *mapping.Create) {
			c.Settings.MaximumRecordAge, c.Settings.OnFailure = new(60), new("arn:aws:s3:::failed")
		}},
		{consumer, func(c *mapping.Create) {
			c.Source.StartingPosition, c.Source.StartingTime = "AT_TIMESTAMP", new(time.Unix(0, 0))
		}},
		{dynamo, func(c *mapping.Create) { c.Settings.Filters = slices.Repeat([]string{`{"eventName":["INSERT"]}`}, 5) }},
		{msk, func(c *mapping.Create) {
			c.Settings.Pollers = &lambda.Pollers{Minimum: new(1), Maximum: new(1), Group: new("g")}
			c.Settings.OnFailure, c.Settings.Metrics, c.Settings.ResponseTypes = new("kafka://failed"), []string{"KafkaMetrics"}, []string{"ReportBatchItemFailures"}
			c.Settings.ManagedKafka = &lambda.KafkaSource{ConsumerGroup: new("mine"), Schemas: &lambda.SchemaRegistry{URI: "https://r", Format: "JSON"}}
		}},
	} {
		in := from(c.source)
		c.give(&in)
		r.create(in)
	}
}

// TestDuplicates: one source feeds one function once.
func TestDuplicates(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const update = " already exists. Please update or delete the existing mapping with UUID "
	for source, message := range map[string]string{
		queue:   `An event source mapping with SQS arn (" ` + queue + ` ") and function (" f ")`,
		kinesis: `The event source arn (" ` + kinesis + ` ") and function (" f ") provided mapping`,
		dynamo:  `The event source arn (" ` + dynamo + ` ") and function (" f ") provided mapping`,
		broker:  `The event source arn (" ` + broker + ` ") and function (" f ") provided mapping`,
		"":      `An event source mapping with event source ("b1:9092,b2:9092"), function ("arn:aws:lambda:us-east-1:123456789012:function:f"), topics ("t")`,
		msk:     `An event source mapping with event source ("` + msk + `"), function ("arn:aws:lambda:us-east-1:123456789012:function:f"), topics ("t")`,
	} {
		first := r.create(from(source))
		_, err := r.Create(t.Context(), from(source))
		refused(t, source, err, "ResourceConflictException", message+update+first.ARN.ID)
		other := from(source)
		other.Function = function("f:live")
		second := r.create(other)
		_, err = r.Update(t.Context(), mapping.Update{ARN: second.ARN, Function: new(function("f"))})
		refused(t, "moving "+source, err, "ResourceConflictException", message+update+first.ARN.ID)
		if _, err := r.Update(t.Context(), mapping.Update{ARN: first.ARN, Function: new(function("f"))}); err != nil {
			t.Errorf("naming the same function of %s: %v", source, err)
		}
	}
	for _, c := range []mapping.Create{from(""), from(msk), from(broker)} {
		if c.Source.Topics != nil {
			c.Source.Topics = []string{"u"}
		} else {
			c.Source.Queues = []string{"u"}
		}
		r.create(c)
	}
	var wait sync.WaitGroup
	var mu sync.Mutex
	made := 0
	for range 8 {
		wait.Go(func() {
			c := from(queue)
			c.Function = function("g")
			if _, err := r.Create(t.Context(), c); err == nil {
				mu.Lock()
				defer mu.Unlock()
				made++
			}
		})
	}
	wait.Wait()
	if made != 1 {
		t.Errorf("%d of 8 at once were made", made)
	}
}

// TestUpdate: what is given replaces, what is given empty is taken away, the rest stays.
func TestUpdate(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := from(queue)
	c.Settings.Filters, c.Settings.MaximumConcurrency, c.Settings.Metrics = []string{`{"body":["x"]}`}, new(7), []string{"EventCount"}
	c.Settings.ResponseTypes, c.Settings.KMSKeyARN = []string{"ReportBatchItemFailures"}, new("arn:aws:kms:us-east-1:123456789012:key/k")
	q := r.create(c)
	update := func(m *lambda.EventSourceMapping, s lambda.MappingSettings) *lambda.MappingSettings {
		t.Helper()
		now, err := r.Update(t.Context(), mapping.Update{ARN: m.ARN, Settings: s})
		if err != nil {
			t.Fatal(err)
		}
		return &now.Settings
	}
	kept := update(q, lambda.MappingSettings{BatchSize: new(3)})
	want := q.Settings
	want.BatchSize = new(3)
	if diff := cmp.Diff(&want, kept); diff != "" {
		t.Errorf("an update of one setting (-want +got):\n%s", diff)
	}
	bare := update(q, lambda.MappingSettings{Filters: []string{}, MaximumConcurrency: new(0), Metrics: []string{}, ResponseTypes: []string{}, KMSKeyARN: new("")})
	if diff := cmp.Diff(&lambda.MappingSettings{BatchSize: new(3), BatchingWindow: new(0), ResponseTypes: []string{}}, bare); diff != "" {
		t.Errorf("an update that takes away (-want +got):\n%s", diff)
	}
	_, err := r.Update(t.Context(), mapping.Update{ARN: q.ARN, Settings: lambda.MappingSettings{BatchSize: new(11)}})
	refused(t, "a large batch", err, invalid, "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10")
	_, err = r.Update(t.Context(), mapping.Update{ARN: q.ARN, Function: new(function("absent"))})
	refused(t, "no function", err, invalid, "Function does not exist")
	now, _ := r.Get(q.ARN)
	if *now.Settings.BatchSize != 3 || now.Function != function("f") {
		t.Errorf("a refused update changed %+v", now)
	}

	k := r.create(from(msk))
	got := update(k, lambda.MappingSettings{Pollers: &lambda.Pollers{Maximum: new(9)}, MaximumRetryAttempts: new(4)})
	if *got.Pollers.Minimum != 1 || *got.Pollers.Maximum != 9 || *got.MaximumRetryAttempts != 4 || *got.MaximumRecordAge != -1 || *got.BisectBatch || got.ResponseTypes == nil {
		t.Errorf("with pollers: %+v", got)
	}
	got = update(k, lambda.MappingSettings{Pollers: &lambda.Pollers{Minimum: new(3)}, ManagedKafka: &lambda.KafkaSource{Schemas: &lambda.SchemaRegistry{URI: "https://r"}}})
	if *got.Pollers.Minimum != 3 || *got.Pollers.Maximum != 9 || got.ManagedKafka.Schemas.URI != "https://r" || *got.ManagedKafka.ConsumerGroup != k.ARN.ID {
		t.Errorf("with more pollers: %+v", got)
	}
	got = update(k, lambda.MappingSettings{Pollers: &lambda.Pollers{}, ManagedKafka: &lambda.KafkaSource{Schemas: &lambda.SchemaRegistry{}}})
	if diff := cmp.Diff(&k.Settings, got); diff != "" {
		t.Errorf("without pollers again (-want +got):\n%s", diff)
	}
	_, err = r.Update(t.Context(), mapping.Update{ARN: k.ARN, Settings: lambda.MappingSettings{ManagedKafka: &lambda.KafkaSource{ConsumerGroup: new("other")}}})
	refused(t, "another consumer group", err, invalid, "The ConsumerGroupId of an event source mapping cannot be updated.")

	d := r.create(from(docdb))
	got = update(d, lambda.MappingSettings{DocumentDB: &lambda.DocumentDBSource{Collection: new("c"), FullDocument: new("UpdateLookup")}})
	if diff := cmp.Diff(&lambda.DocumentDBSource{Database: new("db"), Collection: new("c"), FullDocument: new("UpdateLookup")}, got.DocumentDB); diff != "" {
		t.Errorf("DocumentDB (-want +got):\n%s", diff)
	}
}

// TestList: by source, by function, by both, in pages; scopes are apart.
func TestList(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, name := range []string{"f", "f:live", "f:1", "g"} {
		for _, source := range []string{queue, kinesis} {
			c := from(source)
			c.Function = function(name)
			r.create(c)
		}
	}
	elsewhere := lambda.Scope{Account: scope.Account, Region: "eu-west-1"}
	for _, c := range []struct {
		scope  lambda.Scope
		filter mapping.Filter
		want   int
	}{
		{scope, mapping.Filter{}, 8},
		{scope, mapping.Filter{Source: queue}, 4},
		{scope, mapping.Filter{Function: new(function("f"))}, 2},
		{scope, mapping.Filter{Function: new(function("f:live"))}, 2},
		{scope, mapping.Filter{Source: kinesis, Function: new(function("g"))}, 1},
		{scope, mapping.Filter{Source: dynamo}, 0},
		{elsewhere, mapping.Filter{}, 0},
	} {
		seen := map[string]bool{}
		for after := ""; ; {
			page, more := r.List(c.scope, c.filter, after, 3)
			for _, m := range page {
				if m.ARN.ID <= after {
					t.Errorf("%s comes after %s", m.ARN.ID, after)
				}
				after = m.ARN.ID
				seen[after] = true
			}
			if !more {
				break
			}
			if len(page) != 3 {
				t.Fatalf("a page of %d that is not the last", len(page))
			}
		}
		if len(seen) != c.want {
			t.Errorf("%+v lists %d, want %d", c.filter, len(seen), c.want)
		}
	}
	page, _ := r.List(scope, mapping.Filter{}, "", 1)
	_, err := r.Get(lambda.MappingARN{Scope: elsewhere, ID: page[0].ARN.ID})
	refused(t, "another region's", err, "ResourceNotFoundException", "The resource you requested does not exist.")
}

// TestTags: set, replaced, removed, bounded, and no change of the mapping.
func TestTags(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	m := r.create(from(queue))
	steps := []struct {
		set    map[string]string
		remove []string
		want   map[string]string
	}{
		{map[string]string{"a": "1", "b": "2"}, nil, map[string]string{"a": "1", "b": "2"}},
		{map[string]string{"a": "3"}, nil, map[string]string{"a": "3", "b": "2"}},
		{nil, []string{"a", "absent"}, map[string]string{"b": "2"}},
		{nil, []string{"b"}, nil},
	}
	for _, s := range steps {
		if err := r.Tag(t.Context(), m.ARN, s.set, s.remove); err != nil {
			t.Fatal(err)
		}
		got, err := r.Tags(m.ARN)
		if diff := cmp.Diff(s.want, got); err != nil || diff != "" {
			t.Errorf("after %+v (-want +got): %v\n%s", s, err, diff)
		}
	}
	many := map[string]string{}
	for i := range lambda.MaxTags {
		many[fmt.Sprint(i)] = "x"
	}
	if err := r.Tag(t.Context(), m.ARN, many, nil); err != nil {
		t.Errorf("50 tags: %v", err)
	}
	refused(t, "51 tags", r.Tag(t.Context(), m.ARN, map[string]string{"more": ""}, nil), invalid, "Number of tags exceeds resource tag limit.")
	if len(r.changes) != 1 {
		t.Errorf("announced %v", r.changes)
	}
	absent := lambda.MappingARN{Scope: scope, ID: lambda.NewUUID()}
	const message = "Event source mapping not found: "
	refused(t, "Tag", r.Tag(t.Context(), absent, many, nil), "ResourceNotFoundException", message+absent.String())
	_, err := r.Tags(absent)
	refused(t, "Tags", err, "ResourceNotFoundException", message+absent.String())
}
