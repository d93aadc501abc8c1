package mapping

import (
	"slices"
	"strings"

	"kiln/internal/aws/eventpattern"
	"kiln/internal/lambda"
)

const (
	// maxPlainBatch is the largest batch of an SQS queue without a window, and of a FIFO queue.
	maxPlainBatch = 10
	// maxFilters bounds a mapping's filters, as AWS does unless one asks for more.
	maxFilters = 5
	// minRecordAge is the lowest bound of a record's age, in seconds.
	minRecordAge = 60
	// maxMinPollers bounds MinimumPollers; the wire bounds MaximumPollers.
	maxMinPollers     = 200
	defaultMaxPollers = 200
)

// check refuses a mapping that AWS would, in its order. The bounds of single
// members are checked before, at the door.
func check(m *lambda.EventSourceMapping) error {
	s := &m.Settings
	if isFIFO(&m.Source) && *s.BatchSize > maxPlainBatch {
		return lambda.InvalidParameter("BatchSize must be less than or equal to %d for SQS FIFO queues", maxPlainBatch)
	}
	if err := checkPosition(&m.Source); err != nil {
		return err
	}
	if m.Source.Kind == lambda.SQS {
		switch {
		case isFIFO(&m.Source) && *s.BatchingWindow > 0:
			return lambda.InvalidParameter("Batching window is not supported for FIFO queues")
		case *s.BatchSize > maxPlainBatch && *s.BatchingWindow == 0:
			return lambda.InvalidParameter("Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than %d", maxPlainBatch)
		}
	}
	if len(s.Filters) > maxFilters {
		return lambda.InvalidParameter("FilterCriteria must have at most %d filters.", maxFilters)
	}
	for _, f := range s.Filters {
		if !eventpattern.Valid(f) {
			return lambda.InvalidParameter("Invalid filter pattern definition.")
		}
	}
	if err := checkNames(&m.Source, s); err != nil {
		return err
	}
	if age := s.MaximumRecordAge; age != nil && *age != -1 && *age < minRecordAge {
		return lambda.InvalidParameter("MaximumRecordAgeInSeconds must be -1, or between %d and 604800.", minRecordAge)
	}
	if err := checkPollers(m.Source.Kind, s); err != nil {
		return err
	}
	if d := s.OnFailure; d != nil && *d != "" && !validDestination(&m.Source, *d) {
		return lambda.InvalidParameter("The provided destination config DestinationConfig(onSuccess=null, onFailure=OnFailure(destination=%s)) is invalid.", *d)
	}
	return nil
}

// checkPosition checks where in the source the mapping begins.
func checkPosition(source *lambda.EventSource) error {
	positioned := kinds[source.Kind].positioned
	switch {
	case !positioned && (source.StartingPosition != "" || source.StartingTime != nil):
		return lambda.InvalidParameter("StartingPosition is not valid for %s event sources.", source.Kind)
	case positioned && source.StartingPosition == "":
		return missing("startingPosition")
	case source.Kind == lambda.DynamoDBStream && source.StartingPosition == "AT_TIMESTAMP":
		return lambda.InvalidParameter("Unsupported starting position for arn type: %s", source.ARN)
	case source.StartingTime != nil && source.StartingPosition != "AT_TIMESTAMP":
		return lambda.InvalidParameter("Timestamp only valid with StartingPosition AT_TIMESTAMP")
	case source.StartingTime == nil && source.StartingPosition == "AT_TIMESTAMP":
		return missing("startingPositionTimestamp")
	case source.StartingTime != nil && source.StartingTime.Unix() < 0:
		return lambda.InvalidParameter("Received Exception while reading from provided stream. class java.lang.Long can not be converted to a Timestamp")
	}
	return nil
}

// missing imitates the wording of validation, with a final dot, as AWS does.
func missing(member string) error {
	return lambda.InvalidParameter("1 validation error detected: Value null at '%s' failed to satisfy constraint: Member must not be null.", member)
}

// checkNames checks what within the source is read, and with which secrets.
func checkNames(source *lambda.EventSource, s *lambda.MappingSettings) error {
	switch {
	case len(source.Topics) > 0 && !isKafka(source):
		return Unsupported("Topics")
	case len(source.Queues) > 0 && source.Kind != lambda.MQ:
		return Unsupported("Queues")
	case len(source.Topics) == 0 && isKafka(source):
		return missing("topics")
	case len(source.Queues) == 0 && source.Kind == lambda.MQ:
		return missing("queues")
	case source.Kind == lambda.DocumentDB && s.DocumentDB.Database == nil:
		return missing("documentDBEventSourceConfig.databaseName")
	case s.Access == nil && (source.Kind == lambda.SelfManagedKafka || source.Kind == lambda.MQ || source.Kind == lambda.DocumentDB):
		return lambda.InvalidParameter("Required 'sourceAccessConfigurations' parameter is missing.")
	}
	for _, a := range s.Access {
		if types := kinds[source.Kind].access; !slices.Contains(types, a.Type) {
			return lambda.InvalidParameter("SourceAccessConfigurations of type %s are not valid for %s event sources; these are: %s.", a.Type, source.Kind, strings.Join(types, ", "))
		}
	}
	for _, name := range s.Metrics {
		if metrics := kinds[source.Kind].metrics; !slices.Contains(metrics, name) {
			return lambda.InvalidParameter("The metric %s is not valid for %s event sources; these are: %s.", name, source.Kind, strings.Join(metrics, ", "))
		}
	}
	return nil
}

func checkPollers(of lambda.SourceKind, s *lambda.MappingSettings) error {
	p := s.Pollers
	if p == nil {
		for _, k := range []*lambda.KafkaSource{s.ManagedKafka, s.SelfManagedKafka} {
			if k != nil && k.Schemas != nil {
				return lambda.InvalidParameter("SchemaRegistryConfig is supported only with a ProvisionedPollerConfig.")
			}
		}
		return nil
	}
	lowest := kinds[of].minPollers
	switch {
	case of == lambda.SQS && p.Group != nil:
		return Unsupported("PollerGroupName")
	case *p.Minimum < lowest || *p.Minimum > maxMinPollers || *p.Maximum < *p.Minimum:
		return lambda.InvalidParameter("MinimumPollers should be between [%d, %d] and MaximumPollers should be between [MinimumPollers, 2000]", lowest, maxMinPollers)
	case s.MaximumConcurrency != nil:
		return lambda.InvalidParameter("Provisioned mode for SQS ESM does not support maximum concurrency feature. Use MaximumPollers as the control mechanism and remove maximum concurrency.")
	}
	return nil
}

// validDestination reports whether records that failed can be told to the destination.
func validDestination(source *lambda.EventSource, destination string) bool {
	if strings.HasPrefix(destination, "kafka://") {
		return isKafka(source)
	}
	arn := strings.SplitN(destination, ":", 4)
	return len(arn) == 4 && slices.Contains([]string{"sqs", "sns", "s3"}, arn[2])
}

// sameSource reports whether two mappings would read the same records.
func sameSource(a, b *lambda.EventSource) bool {
	overlaps := func(a, b []string) bool {
		return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
	}
	switch {
	case a.Kind != b.Kind || a.ARN != b.ARN:
		return false
	case isKafka(a):
		return overlaps(a.Topics, b.Topics) && (a.ARN != "" || overlaps(a.Brokers, b.Brokers))
	case a.Kind == lambda.MQ:
		return overlaps(a.Queues, b.Queues)
	}
	return true
}

// duplicate is the refusal of a mapping that is there with that id.
func duplicate(m *lambda.EventSourceMapping, id string) error {
	switch source := &m.Source; {
	case isKafka(source):
		read := source.ARN
		if read == "" {
			read = strings.Join(source.Brokers, ",")
		}
		return lambda.Conflict("An event source mapping with event source (\"%s\"), function (\"%s\"), topics (\"%s\") already exists. Please update or delete the existing mapping with UUID %s",
			read, m.Function, strings.Join(source.Topics, ","), id)
	case source.Kind == lambda.SQS:
		return lambda.Conflict("An event source mapping with SQS arn (\" %s \") and function (\" %s \") already exists. Please update or delete the existing mapping with UUID %s", source.ARN, m.Function.Name, id)
	default:
		return lambda.Conflict("The event source arn (\" %s \") and function (\" %s \") provided mapping already exists. Please update or delete the existing mapping with UUID %s", source.ARN, m.Function.Name, id)
	}
}
