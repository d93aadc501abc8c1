package api

import (
	"context"

	"kiln/internal/aws/lambdaapi"
	"kiln/internal/aws/policy"
	"kiln/internal/lambda"
	"kiln/internal/registry/mapping"
)

// CreateEventSourceMapping lets a function have what a queue or stream has.
func (c *call) CreateEventSourceMapping(ctx context.Context, in *lambdaapi.CreateEventSourceMappingInput) (*lambdaapi.CreateEventSourceMappingOutput, error) {
	function, err := lambda.ParseFunction(*in.FunctionName, "", c.caller.Scope)
	if err == nil {
		err = c.mayWith(lambda.Anything{Scope: function.Scope}, ofFunction(function))
	}
	if err != nil {
		return nil, err
	}
	settings, err := mappingSettings(&lambdaapi.UpdateEventSourceMappingInput{
		BatchSize: in.BatchSize, FilterCriteria: in.FilterCriteria, MaximumBatchingWindowInSeconds: in.MaximumBatchingWindowInSeconds,
		DestinationConfig: in.DestinationConfig, MaximumRecordAgeInSeconds: in.MaximumRecordAgeInSeconds,
		BisectBatchOnFunctionError: in.BisectBatchOnFunctionError, MaximumRetryAttempts: in.MaximumRetryAttempts,
		ParallelizationFactor: in.ParallelizationFactor, SourceAccessConfigurations: in.SourceAccessConfigurations,
		TumblingWindowInSeconds: in.TumblingWindowInSeconds, FunctionResponseTypes: in.FunctionResponseTypes, ScalingConfig: in.ScalingConfig,
		AmazonManagedKafkaEventSourceConfig: in.AmazonManagedKafkaEventSourceConfig, SelfManagedKafkaEventSourceConfig: in.SelfManagedKafkaEventSourceConfig,
		DocumentDBEventSourceConfig: in.DocumentDBEventSourceConfig, KMSKeyArn: in.KMSKeyArn, MetricsConfig: in.MetricsConfig,
		LoggingConfig: in.LoggingConfig, ProvisionedPollerConfig: in.ProvisionedPollerConfig,
	})
	if err != nil {
		return nil, err
	}
	source := lambda.EventSource{
		ARN: lambdaapi.Value(in.EventSourceArn), Topics: in.Topics, Queues: in.Queues, StartingPosition: lambdaapi.Value(in.StartingPosition),
	}
	if in.SelfManagedEventSource != nil {
		source.Brokers = in.SelfManagedEventSource.Endpoints[bootstrapServers]
	}
	if in.StartingPositionTimestamp != nil {
		source.StartingTime = &in.StartingPositionTimestamp.Time
	}
	m, err := c.door.Mappings.Create(ctx, mapping.Create{
		Scope: c.caller.Scope, Function: function, Source: source, Settings: settings,
		Disabled: in.Enabled != nil && !*in.Enabled, Tags: in.Tags,
	})
	if err != nil {
		return nil, err
	}
	return c.showMapping(m), nil
}

// bootstrapServers is the one kind of endpoint that a self-managed source has.
const bootstrapServers = "KAFKA_BOOTSTRAP_SERVERS"

// GetEventSourceMapping shows a mapping.
func (c *call) GetEventSourceMapping(_ context.Context, in *lambdaapi.GetEventSourceMappingInput) (*lambdaapi.GetEventSourceMappingOutput, error) {
	arn, err := c.mapping(in.UUID)
	if err != nil {
		return nil, err
	}
	m, err := c.door.Mappings.Get(arn)
	if err != nil {
		return nil, err
	}
	return c.showMapping(m), nil
}

// maxMappings is how many mappings AWS lists at once, whatever MaxItems says.
const maxMappings = 100

// ListEventSourceMappings shows a page of mappings: all, or those of a source, of a function, or of both.
func (c *call) ListEventSourceMappings(_ context.Context, in *lambdaapi.ListEventSourceMappingsInput) (*lambdaapi.ListEventSourceMappingsOutput, error) {
	if err := c.may(lambda.Anything{Scope: c.caller.Scope}); err != nil {
		return nil, err
	}
	f := mapping.Filter{Source: lambdaapi.Value(in.EventSourceArn)}
	if in.FunctionName != nil {
		function, err := lambda.ParseFunction(*in.FunctionName, "", c.caller.Scope)
		if err != nil {
			return nil, err
		}
		f.Function = &function
	}
	after, err := readMarker(in.Marker)
	if err != nil {
		return nil, err
	}
	limit := maxMappings
	if in.MaxItems != nil {
		limit = min(limit, *in.MaxItems)
	}
	page, more := c.door.Mappings.List(c.caller.Scope, f, after, limit)
	out := &lambdaapi.ListEventSourceMappingsOutput{EventSourceMappings: []lambdaapi.EventSourceMappingConfiguration{}}
	for _, m := range page {
		out.EventSourceMappings = append(out.EventSourceMappings, *c.showMapping(m))
	}
	if more {
		out.NextMarker = writeMarker(page[len(page)-1].ARN.ID)
	}
	return out, nil
}

// UpdateEventSourceMapping changes a mapping.
func (c *call) UpdateEventSourceMapping(ctx context.Context, in *lambdaapi.UpdateEventSourceMappingInput) (*lambdaapi.UpdateEventSourceMappingOutput, error) {
	arn, err := c.mapping(in.UUID)
	if err != nil {
		return nil, err
	}
	u := mapping.Update{ARN: arn, Enabled: in.Enabled}
	if in.FunctionName != nil {
		function, err := lambda.ParseFunction(*in.FunctionName, "", c.caller.Scope)
		if err == nil {
			err = c.mayWith(lambda.MappingARN{Scope: function.Scope, ID: arn.ID}, ofFunction(function))
		}
		if err != nil {
			return nil, err
		}
		u.Function = &function
	}
	if u.Settings, err = mappingSettings(in); err != nil {
		return nil, err
	}
	m, err := c.door.Mappings.Update(ctx, u)
	if err != nil {
		return nil, err
	}
	return c.showMapping(m), nil
}

// DeleteEventSourceMapping removes a mapping.
func (c *call) DeleteEventSourceMapping(ctx context.Context, in *lambdaapi.DeleteEventSourceMappingInput) (*lambdaapi.DeleteEventSourceMappingOutput, error) {
	arn, err := c.mapping(in.UUID)
	if err != nil {
		return nil, err
	}
	m, err := c.door.Mappings.Delete(ctx, arn)
	if err != nil {
		return nil, err
	}
	return c.showMapping(m), nil
}

// mapping names the mapping that a request is about, and checks that the caller
// may do this to it.
func (c *call) mapping(id *string) (lambda.MappingARN, error) {
	arn := lambda.MappingARN{Scope: c.caller.Scope, ID: *id}
	var keys policy.Keys
	if m, err := c.door.Mappings.Get(arn); err == nil {
		keys = ofFunction(m.Function)
	}
	return arn, c.mayWith(arn, keys)
}

// ofFunction is the condition key of mappings: the function that they feed.
func ofFunction(arn lambda.FunctionARN) policy.Keys {
	keys := policy.Keys{}
	keys.Set("lambda:FunctionArn", arn.String())
	return keys
}

// mappingSettings are what the request names of a mapping's settings. An empty
// structure is what takes a setting away.
func mappingSettings(in *lambdaapi.UpdateEventSourceMappingInput) (lambda.MappingSettings, error) {
	s := lambda.MappingSettings{
		BatchSize: in.BatchSize, BatchingWindow: in.MaximumBatchingWindowInSeconds, ParallelizationFactor: in.ParallelizationFactor,
		MaximumRecordAge: in.MaximumRecordAgeInSeconds, MaximumRetryAttempts: in.MaximumRetryAttempts, BisectBatch: in.BisectBatchOnFunctionError,
		TumblingWindow: in.TumblingWindowInSeconds, KMSKeyARN: in.KMSKeyArn, ResponseTypes: in.FunctionResponseTypes,
	}
	if d := in.DestinationConfig; d != nil {
		if d.OnSuccess != nil {
			return s, mapping.Unsupported("DestinationConfig")
		}
		s.OnFailure = new("")
		if d.OnFailure != nil {
			set(s.OnFailure, d.OnFailure.Destination)
		}
	}
	if f := in.FilterCriteria; f != nil {
		s.Filters = []string{}
		for _, filter := range f.Filters {
			s.Filters = append(s.Filters, lambdaapi.Value(filter.Pattern))
		}
	}
	if in.ScalingConfig != nil {
		s.MaximumConcurrency = new(lambdaapi.Value(in.ScalingConfig.MaximumConcurrency))
	}
	if p := in.ProvisionedPollerConfig; p != nil {
		s.Pollers = &lambda.Pollers{Minimum: p.MinimumPollers, Maximum: p.MaximumPollers, Group: p.PollerGroupName}
	}
	if in.SourceAccessConfigurations != nil {
		s.Access = []lambda.SourceAccess{}
		for _, a := range in.SourceAccessConfigurations {
			s.Access = append(s.Access, lambda.SourceAccess{Type: lambdaapi.Value(a.Type), URI: lambdaapi.Value(a.URI)})
		}
	}
	if k := in.AmazonManagedKafkaEventSourceConfig; k != nil {
		s.ManagedKafka = &lambda.KafkaSource{ConsumerGroup: k.ConsumerGroupId, Schemas: schemas(k.SchemaRegistryConfig)}
	}
	if k := in.SelfManagedKafkaEventSourceConfig; k != nil {
		s.SelfManagedKafka = &lambda.KafkaSource{ConsumerGroup: k.ConsumerGroupId, Schemas: schemas(k.SchemaRegistryConfig)}
	}
	if d := in.DocumentDBEventSourceConfig; d != nil {
		s.DocumentDB = &lambda.DocumentDBSource{Database: d.DatabaseName, Collection: d.CollectionName, FullDocument: d.FullDocument}
	}
	if in.MetricsConfig != nil {
		s.Metrics = append([]string{}, in.MetricsConfig.Metrics...)
	}
	if in.LoggingConfig != nil {
		s.LogLevel = in.LoggingConfig.SystemLogLevel
	}
	return s, nil
}

func schemas(in *lambdaapi.KafkaSchemaRegistryConfig) *lambda.SchemaRegistry {
	if in == nil {
		return nil
	}
	s := &lambda.SchemaRegistry{URI: lambdaapi.Value(in.SchemaRegistryURI), Format: lambdaapi.Value(in.EventRecordFormat)}
	for _, a := range in.AccessConfigs {
		s.Access = append(s.Access, lambda.SourceAccess{Type: lambdaapi.Value(a.Type), URI: lambdaapi.Value(a.URI)})
	}
	for _, v := range in.SchemaValidationConfigs {
		s.Validate = append(s.Validate, lambdaapi.Value(v.Attribute))
	}
	return s
}
