package api

import (
	"cmp"
	"strings"

	"kiln/internal/aws/lambdaapi"
	"kiln/internal/lambda"
)

// showMapping is a mapping as the API shows it.
func (c *call) showMapping(m *lambda.EventSourceMapping) *lambdaapi.EventSourceMappingConfiguration {
	s := &m.Settings
	out := &lambdaapi.EventSourceMappingConfiguration{
		UUID:                           &m.ARN.ID,
		EventSourceMappingArn:          new(m.ARN.String()),
		FunctionArn:                    new(m.Function.String()),
		EventSourceArn:                 optional(m.Source.ARN),
		State:                          new(string(m.State)),
		StateTransitionReason:          new("USER_INITIATED"),
		LastModified:                   &lambdaapi.Epoch{Time: m.Modified},
		StartingPosition:               optional(m.Source.StartingPosition),
		Topics:                         m.Source.Topics,
		Queues:                         m.Source.Queues,
		BatchSize:                      s.BatchSize,
		MaximumBatchingWindowInSeconds: s.BatchingWindow,
		ParallelizationFactor:          s.ParallelizationFactor,
		MaximumRecordAgeInSeconds:      s.MaximumRecordAge,
		MaximumRetryAttempts:           s.MaximumRetryAttempts,
		BisectBatchOnFunctionError:     s.BisectBatch,
		TumblingWindowInSeconds:        s.TumblingWindow,
		FunctionResponseTypes:          s.ResponseTypes,
		KMSKeyArn:                      s.KMSKeyARN,
	}
	switch m.Source.Kind {
	case lambda.Kinesis, lambda.DynamoDBStream, lambda.DocumentDB:
		out.StateTransitionReason = new("User action")
	case lambda.SelfManagedKafka:
		out.SelfManagedEventSource = &lambdaapi.SelfManagedEventSource{Endpoints: map[string][]string{bootstrapServers: m.Source.Brokers}}
	}
	result := cmp.Or(c.door.Polling(m.ARN), "No records processed")
	if m.Source.Kind != lambda.SQS {
		out.LastProcessingResult = &result
	} else if strings.HasPrefix(result, "PROBLEM") { // AWS has no other place for it
		out.StateTransitionReason = &result
	}
	if m.Source.StartingTime != nil {
		out.StartingPositionTimestamp = &lambdaapi.Epoch{Time: *m.Source.StartingTime}
	}
	if s.OnFailure != nil {
		out.DestinationConfig = &lambdaapi.DestinationConfig{OnFailure: &lambdaapi.OnFailure{Destination: optional(*s.OnFailure)}}
	}
	if s.Filters != nil {
		out.FilterCriteria = &lambdaapi.FilterCriteria{}
		for _, pattern := range s.Filters {
			out.FilterCriteria.Filters = append(out.FilterCriteria.Filters, lambdaapi.Filter{Pattern: &pattern})
		}
	}
	if s.MaximumConcurrency != nil {
		out.ScalingConfig = &lambdaapi.ScalingConfig{MaximumConcurrency: s.MaximumConcurrency}
	}
	if p := s.Pollers; p != nil {
		out.ProvisionedPollerConfig = &lambdaapi.ProvisionedPollerConfig{MinimumPollers: p.Minimum, MaximumPollers: p.Maximum, PollerGroupName: p.Group}
	}
	for _, a := range s.Access {
		out.SourceAccessConfigurations = append(out.SourceAccessConfigurations, lambdaapi.SourceAccessConfiguration{Type: &a.Type, URI: &a.URI})
	}
	if k := s.ManagedKafka; k != nil {
		out.AmazonManagedKafkaEventSourceConfig = &lambdaapi.AmazonManagedKafkaEventSourceConfig{ConsumerGroupId: k.ConsumerGroup, SchemaRegistryConfig: showSchemas(k.Schemas)}
	}
	if k := s.SelfManagedKafka; k != nil {
		out.SelfManagedKafkaEventSourceConfig = &lambdaapi.SelfManagedKafkaEventSourceConfig{ConsumerGroupId: k.ConsumerGroup, SchemaRegistryConfig: showSchemas(k.Schemas)}
	}
	if d := s.DocumentDB; d != nil {
		out.DocumentDBEventSourceConfig = &lambdaapi.DocumentDBEventSourceConfig{DatabaseName: d.Database, CollectionName: d.Collection, FullDocument: d.FullDocument}
	}
	if s.Metrics != nil {
		out.MetricsConfig = &lambdaapi.EventSourceMappingMetricsConfig{Metrics: s.Metrics}
	}
	if s.LogLevel != nil {
		out.LoggingConfig = &lambdaapi.EventSourceMappingLoggingConfig{SystemLogLevel: s.LogLevel}
	}
	return out
}

func showSchemas(s *lambda.SchemaRegistry) *lambdaapi.KafkaSchemaRegistryConfig {
	if s == nil {
		return nil
	}
	out := &lambdaapi.KafkaSchemaRegistryConfig{SchemaRegistryURI: &s.URI, EventRecordFormat: optional(s.Format)}
	for _, a := range s.Access {
		out.AccessConfigs = append(out.AccessConfigs, lambdaapi.KafkaSchemaRegistryAccessConfig{Type: &a.Type, URI: &a.URI})
	}
	for _, attribute := range s.Validate {
		out.SchemaValidationConfigs = append(out.SchemaValidationConfigs, lambdaapi.KafkaSchemaValidationConfig{Attribute: &attribute})
	}
	return out
}
