package mapping

import (
	"slices"

	"kiln/internal/lambda"
)

// change applies what the request gives; the rest stays. What comes out of it is
// checked in the order in which AWS does it.
func change(m *lambda.EventSourceMapping, given *lambda.MappingSettings) error {
	k := kinds[m.Source.Kind]
	for _, p := range parameters {
		if p.given(given) && !slices.Contains(k.parameters, p.name) {
			return Unsupported(p.name)
		}
	}
	if err := merge(&m.Settings, given, k); err != nil {
		return err
	}
	if m.Settings.Pollers == nil {
		for _, p := range parameters {
			if p.given(given) && slices.Contains(k.provisioned, p.name) {
				return lambda.InvalidParameter("%s is supported for %s event sources only with a ProvisionedPollerConfig.", p.name, m.Source.Kind)
			}
		}
	}
	return check(m)
}

// Unsupported is what a parameter gets that sources of the kind do not have.
func Unsupported(parameter string) error {
	return lambda.InvalidParameter("Unsupported %s parameter for given event source mapping type.", parameter)
}

// merge overwrites the settings with those that are given. What is given empty is taken away.
func merge(s, given *lambda.MappingSettings, k kind) error {
	set(&s.BatchSize, given.BatchSize)
	set(&s.BatchingWindow, given.BatchingWindow)
	set(&s.ParallelizationFactor, given.ParallelizationFactor)
	set(&s.TumblingWindow, given.TumblingWindow)
	set(&s.OnFailure, given.OnFailure)
	set(&s.LogLevel, given.LogLevel)
	replace(&s.Filters, given.Filters)
	replace(&s.Access, given.Access)
	replace(&s.Metrics, given.Metrics)
	if set(&s.KMSKeyARN, given.KMSKeyARN); s.KMSKeyARN != nil && *s.KMSKeyARN == "" {
		s.KMSKeyARN = nil
	}
	if set(&s.MaximumConcurrency, given.MaximumConcurrency); s.MaximumConcurrency != nil && *s.MaximumConcurrency == 0 {
		s.MaximumConcurrency = nil
	}
	provision(s, given.Pollers, k)
	set(&s.MaximumRecordAge, given.MaximumRecordAge)
	set(&s.MaximumRetryAttempts, given.MaximumRetryAttempts)
	set(&s.BisectBatch, given.BisectBatch)
	if given.ResponseTypes != nil {
		s.ResponseTypes = given.ResponseTypes
	}
	if g := given.DocumentDB; g != nil {
		d := *s.DocumentDB
		set(&d.Database, g.Database)
		set(&d.Collection, g.Collection)
		set(&d.FullDocument, g.FullDocument)
		s.DocumentDB = &d
	}
	if err := mergeKafka(&s.ManagedKafka, given.ManagedKafka); err != nil {
		return err
	}
	return mergeKafka(&s.SelfManagedKafka, given.SelfManagedKafka)
}

// provision changes the pollers, and what of Kafka can be configured only with them.
func provision(s *lambda.MappingSettings, given *lambda.Pollers, k kind) {
	if given == nil {
		return
	}
	if *given == (lambda.Pollers{}) {
		s.Pollers = nil
		if k.provisioned != nil {
			s.MaximumRecordAge, s.MaximumRetryAttempts, s.BisectBatch, s.ResponseTypes = nil, nil, nil, nil
		}
		return
	}
	p := lambda.Pollers{Minimum: &k.minPollers, Maximum: new(defaultMaxPollers)}
	if s.Pollers != nil {
		p = *s.Pollers
	} else if k.provisioned != nil {
		retry(s)
	}
	set(&p.Minimum, given.Minimum)
	set(&p.Maximum, given.Maximum)
	set(&p.Group, given.Group)
	s.Pollers = &p
}

func mergeKafka(to **lambda.KafkaSource, given *lambda.KafkaSource) error {
	if given == nil {
		return nil
	}
	k := **to
	if given.ConsumerGroup != nil && *given.ConsumerGroup != *k.ConsumerGroup {
		return lambda.InvalidParameter("The ConsumerGroupId of an event source mapping cannot be updated.")
	}
	if g := given.Schemas; g != nil {
		if k.Schemas = g; g.URI == "" {
			k.Schemas = nil
		}
	}
	*to = &k
	return nil
}

func set[T any](to **T, given *T) {
	if given != nil {
		*to = given
	}
}

func replace[T any](to *[]T, given []T) {
	switch {
	case len(given) > 0:
		*to = given
	case given != nil:
		*to = nil
	}
}
