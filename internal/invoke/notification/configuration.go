package notification

import (
	"fmt"
	"slices"
	"strings"

	"kiln/internal/lambda"
)

const (
	// MaxTargets is how many configurations a bucket may have, as on AWS.
	MaxTargets = 100
	// maxID and maxFilter bound an id and a filter, in characters.
	maxID     = 255
	maxFilter = 1024
)

// Target is who is told of what becomes of a bucket's objects.
type Target struct {
	ID             string
	ARN            string // of a function, a queue or a topic
	Events         []string
	Prefix, Suffix string `json:",omitempty"` // of keys
}

// events are those that can be asked for. Kiln has those of objects that are made, removed
// and tagged; the others never happen here.
// https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-how-to-event-types-and-destinations.html
var events = strings.Fields(`s3:ObjectCreated:* s3:ObjectCreated:Put s3:ObjectCreated:Post s3:ObjectCreated:Copy s3:ObjectCreated:CompleteMultipartUpload
	s3:ObjectRemoved:* s3:ObjectRemoved:Delete s3:ObjectRemoved:DeleteMarkerCreated
	s3:ObjectRestore:* s3:ObjectRestore:Post s3:ObjectRestore:Completed s3:ObjectRestore:Delete s3:ReducedRedundancyLostObject
	s3:Replication:* s3:Replication:OperationFailedReplication s3:Replication:OperationMissedThreshold
	s3:Replication:OperationReplicatedAfterThreshold s3:Replication:OperationNotTracked
	s3:LifecycleTransition s3:LifecycleExpiration:* s3:LifecycleExpiration:Delete s3:LifecycleExpiration:DeleteMarkerCreated
	s3:IntelligentTiering s3:ObjectTagging:* s3:ObjectTagging:Put s3:ObjectTagging:Delete s3:ObjectAcl:Put`)

// wants tells whether the target is told of an event, such as ObjectCreated:Put.
func (t Target) wants(event, key string) bool {
	return strings.HasPrefix(key, t.Prefix) && strings.HasSuffix(key, t.Suffix) &&
		slices.ContainsFunc(t.Events, func(e string) bool { return common(e, "s3:"+event) })
}

// common tells whether two names of events stand for one that is the same.
func common(a, b string) bool {
	if a == b {
		return true
	}
	family, all := strings.CutSuffix(a, "*")
	if all && strings.HasPrefix(b, family) {
		return true
	}
	family, all = strings.CutSuffix(b, "*")
	return all && strings.HasPrefix(a, family)
}

// Invalid is what a configuration gets that cannot be, in S3's words. Argument names
// what is wrong with which target, if it is one.
type Invalid struct {
	Message, Argument, Value string
}

func (e *Invalid) Error() string { return e.Message }

func invalid(format string, args ...any) error {
	return &Invalid{Message: fmt.Sprintf(format, args...)}
}

// unreachable is what a target gets that cannot be told of anything.
func unreachable(arn, why string) error {
	return &Invalid{Message: "Unable to validate the following destination configurations", Argument: arn, Value: why}
}

// check refuses what contradicts itself or S3's rules, and gives ids to those without.
func check(scope lambda.Scope, targets []Target) error {
	if len(targets) > MaxTargets {
		return invalid("The number of notification configurations exceeds the limit of %d", MaxTargets)
	}
	ids := map[string]bool{}
	for i := range targets {
		t := &targets[i]
		if t.ID == "" {
			t.ID = lambda.NewUUID()
		}
		switch {
		case len(t.ID) > maxID:
			return invalid("The ID of a configuration is longer than %d characters", maxID)
		case ids[t.ID]:
			return invalid("Same ID used for multiple configurations. IDs must be unique")
		case len(t.Events) == 0:
			return invalid("A configuration has no event")
		case len(t.Prefix) > maxFilter, len(t.Suffix) > maxFilter:
			return invalid("The value of a filter rule is longer than %d characters", maxFilter)
		}
		ids[t.ID] = true
		for _, e := range t.Events {
			if !slices.Contains(events, e) {
				return invalid("The event '%s' is not supported for notifications", e)
			}
		}
		part := strings.SplitN(t.ARN, ":", 6)
		if len(part) < 6 || part[0] != "arn" || lambda.Destination(t.ARN).Service() == "" {
			if strings.HasSuffix(t.ARN, ".fifo") {
				return unreachable(t.ARN, "FIFO queues and topics are told of nothing, as on AWS: name a standard one")
			}
			return invalid("The ARN could not be parsed")
		}
		if part[3] != string(scope.Region) {
			return invalid("The notification destination service region is not valid for the bucket location constraint")
		}
	}
	for i, a := range targets {
		for _, b := range targets[:i] {
			if err := overlap(a, b); err != nil {
				return err
			}
		}
	}
	return nil
}

// overlap refuses two targets that would be told of the same event of the same object.
func overlap(a, b Target) error {
	same := slices.ContainsFunc(a.Events, func(e string) bool {
		return slices.ContainsFunc(b.Events, func(f string) bool { return common(e, f) })
	})
	prefixes := strings.HasPrefix(a.Prefix, b.Prefix) || strings.HasPrefix(b.Prefix, a.Prefix)
	suffixes := strings.HasSuffix(a.Suffix, b.Suffix) || strings.HasSuffix(b.Suffix, a.Suffix)
	switch {
	case !same || !prefixes || !suffixes:
		return nil
	case a.Prefix+a.Suffix+b.Prefix+b.Suffix == "":
		return invalid("Configurations overlap. Configurations on the same bucket cannot share a common event type.")
	}
	return invalid("Configuration is ambiguously defined. Cannot have overlapping suffixes in two rules if the prefixes are overlapping for the same event type.")
}
