package lambda

import "time"

// CapacityProviderARN is the full name of a capacity provider.
type CapacityProviderARN struct {
	Scope
	Name string
}

func (a CapacityProviderARN) String() string {
	return "arn:aws:lambda:" + string(a.Region) + ":" + string(a.Account) + ":capacity-provider:" + a.Name
}

// CapacityState is a capacity provider's State.
//
//	Pending ─▶ Active ─▶ Deleting ─▶ gone
//
// A provider rests in Active. The others are what the operation that makes or
// removes it answers; whoever asks next sees what came of it.
type CapacityState string

// The states of a capacity provider here.
const (
	CapacityPending  CapacityState = "Pending"
	CapacityActive   CapacityState = "Active"
	CapacityDeleting CapacityState = "Deleting"
)

// CapacityProvider describes instances of EC2 for functions to run on. Kiln has
// none: it is kept and shown.
type CapacityProvider struct {
	ARN              CapacityProviderARN
	State            CapacityState
	SubnetIDs        []string
	SecurityGroupIDs []string
	OperatorRole     string
	Instances        *InstanceRequirements
	Scaling          *CapacityScaling
	KMSKeyARN        string
	Tags             map[string]string
	Modified         time.Time
}

// InstanceRequirements says which instances a provider may have.
type InstanceRequirements struct {
	Architectures []Architecture
	Allowed       []string // types; nil: any
	Excluded      []string
}

// CapacityScaling says how many instances a provider has. nil and "" were not given.
type CapacityScaling struct {
	MaxVCPUs *int
	Mode     string // Auto or Manual
	Policies []ScalingPolicy
}

// ScalingPolicy keeps a metric at its target.
type ScalingPolicy struct {
	Metric string
	Target float64
}
