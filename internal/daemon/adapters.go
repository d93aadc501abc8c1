package daemon

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"kiln/internal/bootstrap"
	"kiln/internal/environment"
	"kiln/internal/front/operator"
	"kiln/internal/lambda"
	"kiln/internal/registry"
	"kiln/internal/sandbox"
	"kiln/internal/scheduler"
	"kiln/internal/scheduler/machine"
	"kiln/internal/spares"
	"kiln/internal/state/artifact"
	"kiln/internal/state/bucket"
	"kiln/internal/state/datadir"
	"kiln/internal/state/image"
	"kiln/internal/state/objects"
	"kiln/internal/telemetry/logs"
	"kiln/internal/telemetry/metrics"
)

// packages are the stores of packages and images by the code's name in the API.
type packages struct {
	objects *objects.Store // nil where another S3 is configured
	bucket  *bucket.Fetcher
	store   *artifact.Store
	images  *image.Store
	bases   *baseImages
}

func (p packages) Fetch(ctx context.Context, o lambda.S3Object) (*io.SectionReader, func(), error) {
	return p.bucket.Fetch(ctx, o)
}

// Do asks Kiln's own S3.
func (p packages) Do(scope lambda.Scope, r *http.Request) (*http.Response, error) {
	if p.objects == nil {
		return nil, errors.New("there is no S3 of Kiln's own: endpoints names another")
	}
	return p.objects.Do(scope, r)
}

func (p packages) Add(ctx context.Context, zip *io.SectionReader) (lambda.Code, error) {
	added, err := p.store.Add(ctx, zip)
	return lambda.Code{SHA256: added.SHA256, Size: added.Size, Unpacked: added.UnpackedBytes}, err
}

func (p packages) Resolve(ctx context.Context, uri string) (lambda.Code, error) {
	i, err := p.images.Resolve(ctx, uri)
	return lambda.Code{SHA256: i.Digest, ImageURI: uri, ResolvedImageURI: i.Resolved}, err
}

func (p packages) Pull(ctx context.Context, c lambda.Code) error {
	return p.images.Pull(ctx, image.Image{Digest: c.SHA256, Resolved: c.ResolvedImageURI})
}

func (p packages) Root(ctx context.Context, c lambda.Code) (string, image.Process, func(), error) {
	return p.images.Root(ctx, c.SHA256)
}

func (p packages) Remove(ctx context.Context, c lambda.Code) error {
	if c.IsImage() {
		if p.bases.has(c.SHA256) {
			return nil
		}
		return p.images.Remove(ctx, c.SHA256)
	}
	return by(c, func(digest string) error { return p.store.Remove(ctx, digest) })
}

func (p packages) Dir(ctx context.Context, c lambda.Code) (dir string, release func(), err error) {
	err = by(c, func(digest string) (err error) { dir, release, err = p.store.Dir(ctx, digest); return err })
	return dir, release, err
}

func (p packages) Layers(ctx context.Context, layers []lambda.Layer) (dir string, release func(), err error) {
	if len(layers) == 0 {
		return "", func() {}, nil
	}
	var digests []string
	for _, l := range layers {
		if err := by(l.Code, func(digest string) error { digests = append(digests, digest); return nil }); err != nil {
			return "", nil, err
		}
	}
	return p.store.Merged(ctx, digests)
}

func (p packages) Zip(ctx context.Context, c lambda.Code) (zip io.ReadCloser, size int64, err error) {
	err = by(c, func(digest string) (err error) { zip, size, err = p.store.Zip(ctx, digest); return err })
	return zip, size, err
}

// by translates the digest of the API, base64, into that of the store, hexadecimal.
func by(c lambda.Code, do func(digest string) error) error {
	sum, err := base64.StdEncoding.DecodeString(c.SHA256)
	if err != nil {
		return fmt.Errorf("digest of a package %q: %w", c.SHA256, err)
	}
	return do(hex.EncodeToString(sum))
}

// sealer binds what it seals to its place.
type sealer struct{ dir *datadir.Dir }

func (s sealer) Seal(plaintext, context []byte) ([]byte, error) {
	return s.dir.Seal(plaintext, context), nil
}

func (s sealer) Unseal(sealed, context []byte) ([]byte, error) {
	return s.dir.OpenSealed(sealed, context)
}

// runtimes names runtime versions for the API.
type runtimes struct{ catalog *bootstrap.Catalog }

// versionWait bounds how long an answer waits for the discovery of interpreters.
const versionWait = 2 * time.Second

func (r runtimes) VersionARN(id lambda.RuntimeID, region lambda.Region) string {
	ctx, cancel := context.WithTimeout(context.Background(), versionWait)
	defer cancel()
	found, err := r.catalog.Resolve(ctx, id)
	if err != nil {
		return "" // the interpreter was uninstalled since
	}
	return found.VersionARN(region)
}

func sink(store *logs.Store) func(lambda.Scope, string, string) environment.Sink {
	return func(scope lambda.Scope, group, stream string) environment.Sink {
		return store.Stream(scope, group, stream)
	}
}

// Keys lists the packages that are stored or cached, and the images.
func (p packages) Keys(ctx context.Context) (list []lambda.Code, err error) {
	for _, i := range p.images.Images() {
		list = append(list, lambda.Code{SHA256: i.Digest, ResolvedImageURI: i.Resolved})
	}
	keys, err := p.store.Keys(ctx)
	for _, digest := range keys {
		sum, err := hex.DecodeString(digest)
		if err != nil {
			return nil, fmt.Errorf("digest of a package %q: %w", digest, err)
		}
		list = append(list, lambda.Code{SHA256: base64.StdEncoding.EncodeToString(sum)})
	}
	return list, err
}

// policyOf is the resource-based policy of what an ARN names.
func policyOf(functions *registry.Registry, arn lambda.ARN) (p lambda.Policy) {
	switch arn := arn.(type) { // what is not there has none
	case lambda.LayerVersionARN:
		p, _ = functions.LayerPolicy(arn)
	case lambda.FunctionARN:
		owner, _ := functions.Owner(arn)
		p = owner.Attached.Policy
	}
	return p
}

// tagsOf are the tags of what an ARN names. Those of a function are its versions' too.
func tagsOf(functions *registry.Registry, arn lambda.ARN) map[string]string {
	function, ok := arn.(lambda.FunctionARN)
	if !ok {
		return nil
	}
	f, err := functions.Get(function.Unqualified())
	if err != nil {
		return nil
	}
	return f.Tags
}

// watchSpares shows what is held ready.
func watchSpares(m *metrics.Recorder, pool *spares.Pool, driver sandbox.Driver) {
	if w, ok := driver.(sandbox.Waiter); ok {
		m.Gauge("kiln_first_processes", "First processes of sandboxes, or kernels, that were started ahead of time and wait.", func() float64 { return float64(w.Waiting()) })
	}
	for name, g := range map[string]struct {
		help string
		read func(spares.Counts) float64
	}{
		"kiln_spares":        {"Runtimes that were started ahead of time and wait.", func(c spares.Counts) float64 { return float64(c.Ready) }},
		"kiln_spares_wanted": {"Runtimes that are to wait: as many as were needed at once, within spare_bytes.", func(c spares.Counts) float64 { return float64(c.Wanted) }},
		"kiln_spare_bytes":   {"Memory of the runtimes that wait.", func(c spares.Counts) float64 { return float64(c.Bytes) }},
	} {
		m.Gauge(name, g.help, func() float64 { return g.read(pool.Counts()) })
	}
	m.Counter("kiln_spares_taken_total", "Environments that began with a runtime that waited.", func() float64 { return float64(pool.Counts().Taken) })
	m.Counter("kiln_spares_missed_total", "Environments that could have, had one waited.", func() float64 { return float64(pool.Counts().Missed) })
}

// currently is what everything does now.
func currently(counts *metrics.Recorder, environments *scheduler.Scheduler, pool *spares.Pool, budget int64) operator.Top {
	waiting := pool.Counts()
	t := operator.Top{
		At: time.Now(), Functions: []operator.TopFunction{},
		Machine: &operator.Machine{MemoryBudget: budget, Available: machine.Read().Available, Spares: waiting.Ready, SpareBytes: waiting.Bytes},
	}
	use := environments.Use()
	for arn, n := range counts.Totals() {
		f := operator.TopFunction{
			Account: arn.Account, Region: arn.Region, Name: arn.Name, Environments: map[string]int64{},
			Provisioned: use[arn].Provisioned, Memory: use[arn].Memory,
			Invocations: n.Invocations, Errors: n.Errors, Throttles: n.Throttles, Colds: n.Colds, Durations: []operator.TopDuration{},
		}
		for state, count := range n.Environments {
			f.Environments[string(state)] = count
		}
		for _, d := range n.Durations {
			f.Durations = append(f.Durations, operator.TopDuration{UpTo: float64(d.UpTo) / float64(time.Millisecond), Count: d.Count})
		}
		t.Functions = append(t.Functions, f)
	}
	return t
}
