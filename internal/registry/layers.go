package registry

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"kiln/internal/lambda"
	"kiln/internal/state"
)

// layer is a layer's name: it stays when its versions are deleted, because their
// numbers are never given again. Its slice is replaced, never changed.
type layer struct {
	last     int64 // number given
	revision state.Revision
	versions []*layerVersion // ascending
}

type layerVersion struct {
	*lambda.LayerVersion
	revision state.Revision
}

func (l *layer) find(number int64) *layerVersion {
	if l == nil {
		return nil
	}
	i, ok := slices.BinarySearchFunc(l.versions, number, func(v *layerVersion, n int64) int { return cmp.Compare(v.ARN.Version, n) })
	if !ok {
		return nil
	}
	return l.versions[i]
}

func (r *Registry) openLayers(ctx context.Context) error {
	records, err := r.state.All(ctx, layerPrefix)
	if err != nil {
		return fmt.Errorf("load layers: %w", err)
	}
	versions, err := r.state.All(ctx, layerVersionPrefix)
	if err != nil {
		return fmt.Errorf("load layer versions: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, stored := range records {
		var rec layerRecord
		if err := read(stored, &rec); err != nil {
			return err
		}
		l := r.layerOf(rec.ARN, true)
		l.last, l.revision = rec.Last, stored.Revision
	}
	for _, stored := range versions {
		var rec layerVersionRecord
		if err := read(stored, &rec); err != nil {
			return err
		}
		l := r.layerOf(rec.Version.ARN.LayerARN, true)
		l.versions = append(l.versions, &layerVersion{&rec.Version, stored.Revision})
		r.reference(rec.Version.Code)
	}
	for _, scope := range r.layers {
		for _, l := range scope {
			slices.SortFunc(l.versions, func(a, b *layerVersion) int { return cmp.Compare(a.ARN.Version, b.ARN.Version) })
		}
	}
	return nil
}

// layerOf finds a layer; with create it makes one. r.mu is held.
func (r *Registry) layerOf(arn lambda.LayerARN, create bool) *layer {
	l := r.layers[arn.Scope][arn.Name]
	if l == nil && create {
		l = &layer{}
		if r.layers[arn.Scope] == nil {
			r.layers[arn.Scope] = map[lambda.LayerName]*layer{}
		}
		r.layers[arn.Scope][arn.Name] = l
	}
	return l
}

// PublishLayer is what PublishLayerVersion asks for.
type PublishLayer struct {
	ARN           lambda.LayerARN
	Zip           []byte
	Object        *lambda.S3Object // in place of Zip
	Description   string
	License       string
	Runtimes      []lambda.RuntimeID
	Architectures []lambda.Architecture
}

// PublishLayer makes the next version of a layer.
func (r *Registry) PublishLayer(ctx context.Context, p PublishLayer) (*lambda.LayerVersion, error) {
	held := r.claims(p.ARN.Scope)
	defer held.release()
	code, err := held.add(ctx, source{zip: p.Zip, object: p.Object})
	if err != nil {
		return nil, err
	}
	defer r.writes.lock(p.ARN.String())()
	r.mu.RLock()
	var last int64
	var revision state.Revision
	if l := r.layerOf(p.ARN, false); l != nil {
		last, revision = l.last, l.revision
	}
	r.mu.RUnlock()
	v := &lambda.LayerVersion{
		Layer:         lambda.Layer{ARN: lambda.LayerVersionARN{LayerARN: p.ARN, Version: last + 1}, Code: code},
		Description:   p.Description,
		License:       p.License,
		Runtimes:      p.Runtimes,
		Architectures: p.Architectures,
		Created:       time.Now().UTC(),
	}
	counter, err := encodeLayer(p.ARN, last+1)
	if err != nil {
		return nil, err
	}
	value, err := encodeLayerVersion(v)
	if err != nil {
		return nil, err
	}
	made := func(revisions []state.Revision) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.reference(code)
		l := r.layerOf(p.ARN, true)
		l.last, l.revision = last+1, revisions[0]
		l.versions = append(slices.Clip(l.versions), &layerVersion{v, revisions[1]})
	}
	err = state.Commit(ctx, r.state, made,
		state.Change{Key: layerKey(p.ARN), Value: counter, Expect: revision},
		state.Change{Key: layerVersionKey(v.ARN), Value: value})
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", v.ARN, err)
	}
	return v, nil
}

// LayerVersion returns what the ARN names. Another account's may be read where
// its policy says so.
func (r *Registry) LayerVersion(by lambda.Principal, arn lambda.LayerVersionARN) (*lambda.LayerVersion, error) {
	v := r.findLayerVersion(arn)
	if arn.Account != by.Account {
		if v == nil || !v.Policy.Allows(by.Account, readLayer) {
			return nil, layerDenied(by, arn)
		}
		return v.LayerVersion, nil
	}
	if v == nil {
		return nil, lambda.NotFound("The resource you requested does not exist.")
	}
	return v.LayerVersion, nil
}

// readLayer is the one action that a layer's policy can allow.
const readLayer = "lambda:GetLayerVersion"

// layerDenied is the same for a layer that is not there: others shall not learn of that.
func layerDenied(by lambda.Principal, arn lambda.LayerVersionARN) error {
	return lambda.AccessDenied("User: %s is not authorized to perform: %s on resource: %s because no resource-based policy allows the %[2]s action. (Kiln has only layers that were published to it: publish the content of this one, and use that.)", by.ARN, readLayer, arn)
}

func (r *Registry) findLayerVersion(arn lambda.LayerVersionARN) *layerVersion {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.layerOf(arn.LayerARN, false).find(arn.Version)
}

// LayerFilter picks layer versions by what they say they are compatible with; "" is any.
type LayerFilter struct {
	Runtime      lambda.RuntimeID
	Architecture lambda.Architecture
}

func (f LayerFilter) match(v *layerVersion) bool {
	return (f.Runtime == "" || slices.Contains(v.Runtimes, f.Runtime)) &&
		(f.Architecture == "" || slices.Contains(v.Architectures, f.Architecture))
}

// Layers returns up to limit layers of a scope in the order of their names, from
// the first after the marker, each by its newest version that matches, and whether
// there are more.
func (r *Registry) Layers(scope lambda.Scope, filter LayerFilter, after lambda.LayerName, limit int) (page []*lambda.LayerVersion, more bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, name := range slices.Sorted(maps.Keys(r.layers[scope])) {
		if name <= after {
			continue
		}
		for _, v := range slices.Backward(r.layers[scope][name].versions) {
			if !filter.match(v) {
				continue
			}
			if len(page) == limit {
				return page, true
			}
			page = append(page, v.LayerVersion)
			break
		}
	}
	return page, false
}

// LayerVersions returns up to limit versions of a layer that match, the newest
// first, from the first below the marker (0: the newest of all), and whether
// there are more.
func (r *Registry) LayerVersions(arn lambda.LayerARN, filter LayerFilter, below int64, limit int) (page []*lambda.LayerVersion, more bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	l := r.layerOf(arn, false)
	if l == nil {
		return nil, false
	}
	for _, v := range slices.Backward(l.versions) {
		if below != 0 && v.ARN.Version >= below || !filter.match(v) {
			continue
		}
		if len(page) == limit {
			return page, true
		}
		page = append(page, v.LayerVersion)
	}
	return page, false
}

// DeleteLayerVersion removes a layer version, if it is there. Functions that have
// it keep it.
func (r *Registry) DeleteLayerVersion(ctx context.Context, arn lambda.LayerVersionARN) error {
	defer r.writes.lock(arn.LayerARN.String())()
	v := r.findLayerVersion(arn)
	if v == nil {
		return nil
	}
	made := func([]state.Revision) {
		r.mu.Lock()
		l := r.layerOf(arn.LayerARN, false)
		l.versions = slices.DeleteFunc(slices.Clone(l.versions), func(other *layerVersion) bool { return other == v })
		unused := r.unreference(v.Code)
		r.mu.Unlock()
		r.discard(unused...)
	}
	if err := state.Commit(ctx, r.state, made, state.Change{Key: layerVersionKey(arn), Expect: v.revision}); err != nil {
		return fmt.Errorf("delete %s: %w", arn, err)
	}
	return nil
}

// AddLayerPermission adds a statement to the policy of a layer version.
func (r *Registry) AddLayerPermission(ctx context.Context, arn lambda.LayerVersionARN, s lambda.Statement, revision lambda.RevisionID) (*lambda.LayerVersion, error) {
	return r.changeLayerPolicy(ctx, arn, revision, func(p *lambda.Policy) error { return addStatement(p, s, arn.String()) })
}

// RemoveLayerPermission removes a statement from the policy of a layer version.
func (r *Registry) RemoveLayerPermission(ctx context.Context, arn lambda.LayerVersionARN, id string, revision lambda.RevisionID) error {
	_, err := r.changeLayerPolicy(ctx, arn, revision, func(p *lambda.Policy) error { return removeStatement(p, id) })
	return err
}

// LayerPolicy returns the policy of a layer version.
func (r *Registry) LayerPolicy(arn lambda.LayerVersionARN) (lambda.Policy, error) {
	v := r.findLayerVersion(arn)
	switch {
	case v == nil:
		return lambda.Policy{}, noLayerVersion(arn)
	case len(v.Policy.Statements) == 0:
		return lambda.Policy{}, noPolicy()
	}
	return v.Policy, nil
}

func noLayerVersion(arn lambda.LayerVersionARN) error {
	return lambda.NotFound("Layer version %s does not exist.", arn)
}

func (r *Registry) changeLayerPolicy(ctx context.Context, arn lambda.LayerVersionARN, revision lambda.RevisionID, change func(*lambda.Policy) error) (*lambda.LayerVersion, error) {
	defer r.writes.lock(arn.LayerARN.String())()
	from := r.findLayerVersion(arn)
	if from == nil {
		return nil, noLayerVersion(arn)
	}
	if revision != "" && revision != from.Policy.Revision {
		return nil, lambda.PreconditionFailed("GetLayerPolicy")
	}
	v := *from.LayerVersion
	if err := change(&v.Policy); err != nil {
		return nil, err
	}
	v.Policy.Revision = lambda.NewRevisionID()
	value, err := encodeLayerVersion(&v)
	if err != nil {
		return nil, err
	}
	made := func(revisions []state.Revision) {
		r.mu.Lock()
		defer r.mu.Unlock()
		l := r.layerOf(arn.LayerARN, false)
		l.versions = slices.Clone(l.versions)
		l.versions[slices.Index(l.versions, from)] = &layerVersion{&v, revisions[0]}
	}
	if err := state.Commit(ctx, r.state, made, state.Change{Key: layerVersionKey(arn), Value: value, Expect: from.revision}); err != nil {
		return nil, fmt.Errorf("write %s: %w", arn, err)
	}
	return &v, nil
}

// resolveLayers finds the layers that a function of the region is to have, and
// claims their packages.
func (r *Registry) resolveLayers(by lambda.Principal, region lambda.Region, names []string, held *claims) (list []lambda.Layer, err error) {
	if len(names) > lambda.MaxLayers {
		return nil, lambda.InvalidParameter("Cannot reference more than %d layers.", lambda.MaxLayers)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var unpacked int64
	for _, name := range names {
		arn, err := lambda.ParseLayerVersion(name)
		if err != nil {
			return nil, err
		}
		v := r.layerOf(arn.LayerARN, false).find(arn.Version)
		switch {
		case arn.Account != by.Account:
			if v == nil || arn.Region != region || !v.Policy.Allows(by.Account, readLayer) {
				return nil, layerDenied(by, arn)
			}
		case arn.Region != region:
			return nil, lambda.InvalidParameter("Layers are not in the same region as the function. Layers are expected to be in region %s.", region)
		case v == nil:
			return nil, lambda.InvalidParameter("Layer version %s does not exist.", name)
		}
		for _, other := range list {
			if other.ARN.LayerARN == arn.LayerARN {
				return nil, lambda.InvalidParameter("Two different versions of the same layer are not allowed to be referenced in the same function. %s and %s are versions of the same layer.", other.ARN, arn)
			}
		}
		list = append(list, v.Layer)
		held.hold(v.Code)
		unpacked += v.Code.Unpacked
	}
	if unpacked > lambda.MaxUnzipped {
		return nil, lambda.InvalidParameter("Layers consume more than the available size of %d bytes", lambda.MaxUnzipped)
	}
	return list, nil
}
