package logs

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"

	"kiln/internal/aws/logsapi"
	"kiln/internal/aws/wire"
	"kiln/internal/telemetry/logs"
)

// describeLimit is how many groups or streams a page has, unless the caller wants fewer.
const describeLimit = 50

// tokenPrefix tells tokens of this version from others.
const tokenPrefix = "1-"

func (c *call) CreateLogGroup(ctx context.Context, in *logsapi.CreateLogGroupInput) (*logsapi.CreateLogGroupOutput, error) {
	arn, err := c.group(in.LogGroupName, nil)
	if err != nil {
		return nil, err
	}
	settings := logs.Settings{
		Class: wire.Value(in.LogGroupClass), KMSKey: wire.Value(in.KmsKeyId), Protected: wire.Value(in.DeletionProtectionEnabled), Tags: in.Tags,
	}
	return nil, c.door.Store.CreateGroup(ctx, arn.Scope, arn.name, settings)
}

func (c *call) DeleteLogGroup(ctx context.Context, in *logsapi.DeleteLogGroupInput) (*logsapi.DeleteLogGroupOutput, error) {
	arn, err := c.group(in.LogGroupName, nil)
	if err != nil {
		return nil, err
	}
	return nil, c.door.Store.DeleteGroup(ctx, arn.Scope, arn.name, func(s logs.Settings) error {
		if s.Protected {
			return fault("ValidationException", "The log group has deletion protection enabled. Disable it with PutLogGroupDeletionProtection first.")
		}
		return nil
	})
}

func (c *call) PutLogGroupDeletionProtection(ctx context.Context, in *logsapi.PutLogGroupDeletionProtectionInput) (*logsapi.PutLogGroupDeletionProtectionOutput, error) {
	arn, err := c.group(nil, in.LogGroupIdentifier)
	if err != nil {
		return nil, err
	}
	return nil, c.door.Store.ChangeGroup(ctx, arn.Scope, arn.name, func(s *logs.Settings) error {
		s.Protected = *in.DeletionProtectionEnabled
		return nil
	})
}

func (c *call) DescribeLogGroups(ctx context.Context, in *logsapi.DescribeLogGroupsInput) (*logsapi.DescribeLogGroupsOutput, error) {
	if in.LogGroupNamePrefix != nil && in.LogGroupNamePattern != nil {
		return nil, invalid("LogGroup name prefix and LogGroup name pattern are mutually exclusive parameters.")
	}
	if err := c.authorise(groupARN{c.caller.Scope, "*"}); err != nil {
		return nil, err
	}
	wanted := map[string]bool{}
	for _, identifier := range in.LogGroupIdentifiers {
		arn, err := c.group(nil, &identifier)
		if err != nil {
			return nil, err
		}
		wanted[arn.name] = true
	}
	after, ours := strings.CutPrefix(wire.Value(in.NextToken), tokenPrefix)
	if in.NextToken != nil && !ours {
		return nil, logs.ErrCursor
	}
	limit := describeLimit
	if in.Limit != nil {
		limit = *in.Limit
	}
	list, err := c.door.Store.Groups(ctx, logs.GroupsQuery{
		Scope: c.caller.Scope, Prefix: wire.Value(in.LogGroupNamePrefix), After: after, Limit: limit + 1,
		Match: func(g logs.Group) bool {
			return strings.Contains(g.Name, wire.Value(in.LogGroupNamePattern)) &&
				(in.LogGroupClass == nil || class(g) == *in.LogGroupClass) && (len(wanted) == 0 || wanted[g.Name])
		},
	})
	if err != nil {
		return nil, err
	}
	out := &logsapi.DescribeLogGroupsOutput{LogGroups: []logsapi.LogGroup{}}
	if len(list) > limit {
		list = list[:limit]
		out.NextToken = new(tokenPrefix + list[limit-1].Name)
	}
	for _, g := range list {
		out.LogGroups = append(out.LogGroups, c.describe(g))
	}
	return out, nil
}

func class(g logs.Group) string {
	if g.Class == "" {
		return "STANDARD"
	}
	return g.Class
}

func (c *call) describe(g logs.Group) logsapi.LogGroup {
	arn := groupARN{c.caller.Scope, g.Name}.String()
	d := logsapi.LogGroup{
		LogGroupName: &g.Name, CreationTime: millis(g.Created), MetricFilterCount: new(0),
		Arn: new(arn + ":*"), LogGroupArn: &arn, StoredBytes: &g.Bytes, LogGroupClass: new(class(g)), DeletionProtectionEnabled: &g.Protected,
	}
	if g.RetentionDays > 0 {
		d.RetentionInDays = &g.RetentionDays
	}
	if g.KMSKey != "" {
		d.KmsKeyId = &g.KMSKey
	}
	return d
}

// retentions are the numbers of days that AWS takes.
var retentions = []int{1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653}

func (c *call) PutRetentionPolicy(ctx context.Context, in *logsapi.PutRetentionPolicyInput) (*logsapi.PutRetentionPolicyOutput, error) {
	if !slices.Contains(retentions, *in.RetentionInDays) {
		var set []string
		for _, days := range retentions {
			set = append(set, strconv.Itoa(days))
		}
		return nil, invalid("1 validation error detected: Value '" + strconv.Itoa(*in.RetentionInDays) + "' at 'retentionInDays' failed to satisfy constraint: Member must satisfy enum value set: [" + strings.Join(set, ", ") + "]")
	}
	return nil, c.retain(ctx, in.LogGroupName, *in.RetentionInDays)
}

func (c *call) DeleteRetentionPolicy(ctx context.Context, in *logsapi.DeleteRetentionPolicyInput) (*logsapi.DeleteRetentionPolicyOutput, error) {
	return nil, c.retain(ctx, in.LogGroupName, 0)
}

func (c *call) retain(ctx context.Context, group *string, days int) error {
	arn, err := c.group(group, nil)
	if err != nil {
		return err
	}
	return c.door.Store.ChangeGroup(ctx, arn.Scope, arn.name, func(s *logs.Settings) error {
		s.RetentionDays = days
		return nil
	})
}

func (c *call) ListTagsForResource(ctx context.Context, in *logsapi.ListTagsForResourceInput) (*logsapi.ListTagsForResourceOutput, error) {
	arn, err := c.groupByARN(*in.ResourceArn)
	if err != nil {
		return nil, err
	}
	tags, err := c.tags(ctx, arn)
	return &logsapi.ListTagsForResourceOutput{Tags: tags}, err
}

func (c *call) ListTagsLogGroup(ctx context.Context, in *logsapi.ListTagsLogGroupInput) (*logsapi.ListTagsLogGroupOutput, error) {
	arn, err := c.group(in.LogGroupName, nil)
	if err != nil {
		return nil, err
	}
	tags, err := c.tags(ctx, arn)
	return &logsapi.ListTagsLogGroupOutput{Tags: tags}, err
}

func (c *call) tags(ctx context.Context, arn groupARN) (map[string]string, error) {
	g, err := c.door.Store.Group(ctx, arn.Scope, arn.name)
	if err != nil {
		return nil, err
	}
	if g.Tags == nil {
		g.Tags = map[string]string{} // an empty object, not none
	}
	return g.Tags, nil
}

func (c *call) TagResource(ctx context.Context, in *logsapi.TagResourceInput) (*logsapi.TagResourceOutput, error) {
	arn, err := c.groupByARN(*in.ResourceArn)
	if err != nil {
		return nil, err
	}
	return nil, c.tag(ctx, arn, in.Tags)
}

func (c *call) TagLogGroup(ctx context.Context, in *logsapi.TagLogGroupInput) (*logsapi.TagLogGroupOutput, error) {
	arn, err := c.group(in.LogGroupName, nil)
	if err != nil {
		return nil, err
	}
	return nil, c.tag(ctx, arn, in.Tags)
}

// maxTags of a group is AWS's.
const maxTags = 50

func (c *call) tag(ctx context.Context, arn groupARN, tags map[string]string) error {
	return c.door.Store.ChangeGroup(ctx, arn.Scope, arn.name, func(s *logs.Settings) error {
		if s.Tags == nil {
			s.Tags = map[string]string{}
		}
		maps.Copy(s.Tags, tags)
		if len(s.Tags) > maxTags {
			return fault("TooManyTagsException", "A log group can have no more than "+strconv.Itoa(maxTags)+" tags.")
		}
		return nil
	})
}

func (c *call) UntagResource(ctx context.Context, in *logsapi.UntagResourceInput) (*logsapi.UntagResourceOutput, error) {
	arn, err := c.groupByARN(*in.ResourceArn)
	if err != nil {
		return nil, err
	}
	return nil, c.untag(ctx, arn, in.TagKeys)
}

func (c *call) UntagLogGroup(ctx context.Context, in *logsapi.UntagLogGroupInput) (*logsapi.UntagLogGroupOutput, error) {
	arn, err := c.group(in.LogGroupName, nil)
	if err != nil {
		return nil, err
	}
	return nil, c.untag(ctx, arn, in.Tags)
}

func (c *call) untag(ctx context.Context, arn groupARN, keys []string) error {
	return c.door.Store.ChangeGroup(ctx, arn.Scope, arn.name, func(s *logs.Settings) error {
		for _, key := range keys {
			delete(s.Tags, key)
		}
		return nil
	})
}
