package lambda

// Alias is a name for a published version, or for two that share its invocations.
// It is immutable: a change makes a new one.
type Alias struct {
	ARN         FunctionARN // with the alias as its qualifier
	Version     Qualifier
	Description string
	Additional  *WeightedVersion // nil: Version has all invocations
	Revision    RevisionID
}

// WeightedVersion has a share of an alias's invocations.
type WeightedVersion struct {
	Version Qualifier
	Weight  float64 // from 0 to 1
}

// Route picks the version of one invocation; random is from [0, 1).
func (a *Alias) Route(random float64) Qualifier {
	if a.Additional != nil && random < a.Additional.Weight {
		return a.Additional.Version
	}
	return a.Version
}
