package lambda

import "time"

// MappingARN is the full name of an event source mapping.
type MappingARN struct {
	Scope
	ID string // a UUID
}

func (a MappingARN) String() string {
	return "arn:aws:lambda:" + string(a.Region) + ":" + string(a.Account) + ":event-source-mapping:" + a.ID
}

// MappingState is a mapping's State.
//
//	Creating ─▶ Enabled ─▶ Disabling ─▶ Disabled ─▶ Enabling ─▶ Enabled
//	            Enabled, Disabled ─▶ Updating ─▶ as before
//	            Enabled, Disabled ─▶ Deleting ─▶ gone
//
// A mapping rests in Enabled or Disabled. The others are what the operation that
// changes it answers, as on AWS; whoever asks next sees the state it rests in.
type MappingState string

// The states of a mapping.
const (
	MappingCreating  MappingState = "Creating"
	MappingEnabling  MappingState = "Enabling"
	MappingEnabled   MappingState = "Enabled"
	MappingDisabling MappingState = "Disabling"
	MappingDisabled  MappingState = "Disabled"
	MappingUpdating  MappingState = "Updating"
	MappingDeleting  MappingState = "Deleting"
)

// EventSourceMapping lets a function have what a queue or stream has. It is
// immutable: a change makes a new one. It outlives its function.
type EventSourceMapping struct {
	ARN      MappingARN
	State    MappingState
	Function FunctionARN // with the qualifier that its user wrote
	Source   EventSource
	Settings MappingSettings
	Tags     map[string]string
	Modified time.Time
}

// SourceKind is a kind of event source.
type SourceKind string

// The kinds of event source.
const (
	SQS              SourceKind = "SQS"
	Kinesis          SourceKind = "Kinesis"
	DynamoDBStream   SourceKind = "DynamoDB"
	ManagedKafka     SourceKind = "Amazon MSK"
	SelfManagedKafka SourceKind = "self-managed Kafka"
	MQ               SourceKind = "Amazon MQ"
	DocumentDB       SourceKind = "DocumentDB"
)

// EventSource is what a mapping reads, and from where. It never changes.
type EventSource struct {
	Kind             SourceKind
	ARN              string   // "" for self-managed Kafka
	Brokers          []string // of self-managed Kafka, host:port
	Topics           []string // of Kafka: one
	Queues           []string // of MQ: one
	StartingPosition string   // TRIM_HORIZON, LATEST or AT_TIMESTAMP; "" for queues
	StartingTime     *time.Time
}

// MappingSettings are what can be changed of a mapping. nil is what was not given,
// and in a mapping what sources of its kind do not have.
type MappingSettings struct {
	BatchSize             *int
	BatchingWindow        *int // seconds; nil is half a second
	ParallelizationFactor *int
	MaximumRecordAge      *int // seconds; -1: any
	MaximumRetryAttempts  *int // -1: any number
	BisectBatch           *bool
	TumblingWindow        *int    // seconds
	OnFailure             *string // destination; "": none
	Filters               []string
	KMSKeyARN             *string
	ResponseTypes         []string
	MaximumConcurrency    *int // 0 in a request takes it away
	Pollers               *Pollers
	Access                []SourceAccess
	ManagedKafka          *KafkaSource
	SelfManagedKafka      *KafkaSource
	DocumentDB            *DocumentDBSource
	Metrics               []string
	LogLevel              *string
}

// Pollers is a mapping's ProvisionedPollerConfig.
type Pollers struct {
	Minimum, Maximum *int
	Group            *string
}

// SourceAccess is one way in which a mapping identifies itself to its source.
type SourceAccess struct {
	Type string
	URI  string
}

// KafkaSource is what is particular to Kafka.
type KafkaSource struct {
	ConsumerGroup *string
	Schemas       *SchemaRegistry
}

// SchemaRegistry is where a mapping finds the schemas of Kafka's records.
type SchemaRegistry struct {
	URI      string
	Format   string // of the records that the function gets: JSON or SOURCE
	Access   []SourceAccess
	Validate []string // of KEY and VALUE
}

// DocumentDBSource is what is particular to DocumentDB.
type DocumentDBSource struct {
	Database     *string
	Collection   *string
	FullDocument *string // Default or UpdateLookup
}
