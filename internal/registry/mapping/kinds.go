package mapping

import (
	"regexp"
	"slices"
	"strings"

	"kiln/internal/lambda"
)

// kind is what is particular to the event sources of one kind.
type kind struct {
	source     *regexp.Regexp // matches the ARN of one
	parameters []string       // that a mapping of it may have, besides those that each has
	// provisioned are those of them that need a ProvisionedPollerConfig.
	provisioned []string
	access      []string // types of SourceAccessConfigurations
	metrics     []string
	minPollers  int
	batchSize   int  // unless one is given
	positioned  bool // reads from a StartingPosition
}

var stream = kind{
	parameters: []string{
		"ParallelizationFactor", "MaximumRecordAgeInSeconds", "BisectBatchOnFunctionError", "MaximumRetryAttempts", "TumblingWindowInSeconds",
		"DestinationConfig", "FilterCriteria", "KMSKeyArn", "FunctionResponseTypes", "MetricsConfig",
	},
	metrics: []string{"EventCount"}, batchSize: 100, positioned: true,
}

var kafka = kind{
	parameters: []string{
		"DestinationConfig", "FilterCriteria", "KMSKeyArn", "SourceAccessConfigurations", "ProvisionedPollerConfig", "MetricsConfig", "LoggingConfig",
		"FunctionResponseTypes", "MaximumRecordAgeInSeconds", "MaximumRetryAttempts", "BisectBatchOnFunctionError",
	},
	provisioned: []string{"FunctionResponseTypes", "MaximumRecordAgeInSeconds", "MaximumRetryAttempts", "BisectBatchOnFunctionError"},
	metrics:     []string{"EventCount", "ErrorCount", "KafkaMetrics"}, minPollers: 1, batchSize: 100, positioned: true,
}

// kinds are those of AWS, each with exactly the parameters that it allows.
// https://docs.aws.amazon.com/lambda/latest/dg/services-event-source-parameters.html
var kinds = map[lambda.SourceKind]kind{
	lambda.SQS: {
		source:     regexp.MustCompile(`^arn:aws[a-z-]*:sqs:[a-z0-9-]+:\d{12}:[a-zA-Z0-9_-]+(\.fifo)?$`),
		parameters: []string{"FilterCriteria", "KMSKeyArn", "FunctionResponseTypes", "ScalingConfig", "ProvisionedPollerConfig", "MetricsConfig"},
		metrics:    []string{"EventCount"}, minPollers: 2, batchSize: 10,
	},
	lambda.Kinesis:        stream.of(`^arn:aws[a-z-]*:kinesis:[a-z0-9-]+:\d{12}:stream/[a-zA-Z0-9_.-]+(/consumer/[a-zA-Z0-9_.-]+:\d+)?$`),
	lambda.DynamoDBStream: stream.of(`^arn:aws[a-z-]*:dynamodb:[a-z0-9-]+:\d{12}:table/[a-zA-Z0-9_.-]+/stream/.+$`),
	lambda.ManagedKafka: kafka.of(`^arn:aws[a-z-]*:kafka:[a-z0-9-]+:\d{12}:cluster/.+$`, "AmazonManagedKafkaEventSourceConfig").
		accessedBy("SASL_SCRAM_512_AUTH", "CLIENT_CERTIFICATE_TLS_AUTH"),
	lambda.SelfManagedKafka: kafka.of(`^$`, "SelfManagedKafkaEventSourceConfig").
		accessedBy("BASIC_AUTH", "VPC_SUBNET", "VPC_SECURITY_GROUP", "SASL_SCRAM_512_AUTH", "SASL_SCRAM_256_AUTH", "CLIENT_CERTIFICATE_TLS_AUTH", "SERVER_ROOT_CA_CERTIFICATE"),
	lambda.MQ: {
		source:     regexp.MustCompile(`^arn:aws[a-z-]*:mq:[a-z0-9-]+:\d{12}:broker:.+$`),
		parameters: []string{"FilterCriteria", "KMSKeyArn", "SourceAccessConfigurations"},
		access:     []string{"BASIC_AUTH", "VIRTUAL_HOST"}, batchSize: 100,
	},
	lambda.DocumentDB: {
		source:     regexp.MustCompile(`^arn:aws[a-z-]*:rds:[a-z0-9-]+:\d{12}:cluster:.+$`),
		parameters: []string{"SourceAccessConfigurations", "DocumentDBEventSourceConfig"},
		access:     []string{"BASIC_AUTH"}, batchSize: 100, positioned: true,
	},
}

func (k kind) of(source string, more ...string) kind {
	k.source, k.parameters = regexp.MustCompile(source), slices.Concat(k.parameters, more)
	return k
}

func (k kind) accessedBy(types ...string) kind {
	k.access = types
	return k
}

// isKafka and isFIFO tell sources apart where one rule is for several kinds.
func isKafka(s *lambda.EventSource) bool {
	return s.Kind == lambda.ManagedKafka || s.Kind == lambda.SelfManagedKafka
}

func isFIFO(s *lambda.EventSource) bool { return strings.HasSuffix(s.ARN, ".fifo") }

// parameters names those of the settings that not every kind has.
var parameters = []struct {
	name  string
	given func(*lambda.MappingSettings) bool
}{
	{"DestinationConfig", func(s *lambda.MappingSettings) bool { return s.OnFailure != nil }},
	{"ParallelizationFactor", func(s *lambda.MappingSettings) bool { return s.ParallelizationFactor != nil }},
	{"MaximumRecordAgeInSeconds", func(s *lambda.MappingSettings) bool { return s.MaximumRecordAge != nil }},
	{"BisectBatchOnFunctionError", func(s *lambda.MappingSettings) bool { return s.BisectBatch != nil }},
	{"MaximumRetryAttempts", func(s *lambda.MappingSettings) bool { return s.MaximumRetryAttempts != nil }},
	{"TumblingWindowInSeconds", func(s *lambda.MappingSettings) bool { return s.TumblingWindow != nil }},
	{"FilterCriteria", func(s *lambda.MappingSettings) bool { return s.Filters != nil }},
	{"KMSKeyArn", func(s *lambda.MappingSettings) bool { return s.KMSKeyARN != nil }},
	{"FunctionResponseTypes", func(s *lambda.MappingSettings) bool { return s.ResponseTypes != nil }},
	{"ScalingConfig", func(s *lambda.MappingSettings) bool { return s.MaximumConcurrency != nil }},
	{"ProvisionedPollerConfig", func(s *lambda.MappingSettings) bool { return s.Pollers != nil }},
	{"SourceAccessConfigurations", func(s *lambda.MappingSettings) bool { return s.Access != nil }},
	{"AmazonManagedKafkaEventSourceConfig", func(s *lambda.MappingSettings) bool { return s.ManagedKafka != nil }},
	{"SelfManagedKafkaEventSourceConfig", func(s *lambda.MappingSettings) bool { return s.SelfManagedKafka != nil }},
	{"DocumentDBEventSourceConfig", func(s *lambda.MappingSettings) bool { return s.DocumentDB != nil }},
	{"MetricsConfig", func(s *lambda.MappingSettings) bool { return s.Metrics != nil }},
	{"LoggingConfig", func(s *lambda.MappingSettings) bool { return s.LogLevel != nil }},
}

// identify finds out what kind of source it is, and checks what never changes of it.
func identify(source *lambda.EventSource, s *lambda.MappingSettings) error {
	switch {
	case len(source.Brokers) > 0 && source.ARN != "":
		return lambda.InvalidParameter("Please provide either EventSourceArn or SelfManagedEventSource, not both.")
	case len(source.Brokers) > 0:
		if s.Access == nil {
			return lambda.InvalidParameter("Required 'sourceAccessConfigurations' parameter is missing.")
		}
		source.Kind = lambda.SelfManagedKafka
		return nil
	case source.ARN == "":
		return lambda.InvalidParameter("Unrecognized event source.")
	}
	for name, k := range kinds {
		if k.source.MatchString(source.ARN) {
			source.Kind = name
			return nil
		}
	}
	return lambda.InvalidParameter("Unrecognized event source, must be kinesis, dynamodb stream or sqs. Unsupported source arn : %s", source.ARN)
}

// defaults are the settings of a mapping that is given no others: all that its kind has.
func defaults(m *lambda.EventSourceMapping, given *lambda.MappingSettings) lambda.MappingSettings {
	s := lambda.MappingSettings{BatchSize: new(kinds[m.Source.Kind].batchSize)}
	switch m.Source.Kind {
	case lambda.SQS:
		s.BatchingWindow, s.ResponseTypes = new(0), []string{}
	case lambda.Kinesis, lambda.DynamoDBStream:
		s.BatchingWindow, s.ParallelizationFactor, s.TumblingWindow, s.OnFailure = new(0), new(1), new(0), new("")
		retry(&s)
	case lambda.ManagedKafka:
		s.OnFailure, s.ManagedKafka = new(""), group(m, given.ManagedKafka)
	case lambda.SelfManagedKafka:
		s.OnFailure, s.SelfManagedKafka = new(""), group(m, given.SelfManagedKafka)
	case lambda.DocumentDB:
		s.DocumentDB = &lambda.DocumentDBSource{FullDocument: new("Default")}
	}
	return s
}

// group is the consumer group of a mapping, which never changes.
func group(m *lambda.EventSourceMapping, given *lambda.KafkaSource) *lambda.KafkaSource {
	if given != nil && given.ConsumerGroup != nil {
		return &lambda.KafkaSource{ConsumerGroup: given.ConsumerGroup}
	}
	return &lambda.KafkaSource{ConsumerGroup: &m.ARN.ID}
}

// retry fills in how failures are treated where that can be configured.
func retry(s *lambda.MappingSettings) {
	s.MaximumRecordAge, s.MaximumRetryAttempts, s.BisectBatch, s.ResponseTypes = new(-1), new(-1), new(false), []string{}
}
