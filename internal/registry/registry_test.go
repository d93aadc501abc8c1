package registry_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"kiln/internal/lambda"
	"kiln/internal/registry"
	"kiln/internal/state"
	"kiln/internal/state/jetstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 30 * time.Second

var scope = lambda.Scope{Account: "123456789012", Region: "us-east-1"}

func named(name string) lambda.FunctionARN {
	return lambda.FunctionARN{Scope: scope, Name: lambda.FunctionName(name)}
}

// packages keeps zips in memory; a zip is any text. One that begins with a number
// and MB unpacks to that.
type packages struct {
	mu   sync.Mutex
	kept map[string]bool             // guarded by mu; by SHA256
	pull func(context.Context) error // guarded by mu

	open     atomic.Int32 // fetched and not closed yet
	checking func()       // called within Check, before a change is written; or nil
}

func digest(zip string) string {
	sum := sha256.Sum256([]byte(zip))
	return base64.StdEncoding.EncodeToString(sum[:])
}

func (p *packages) Add(_ context.Context, from *io.SectionReader) (lambda.Code, error) {
	zip, err := io.ReadAll(from)
	if err != nil {
		return lambda.Code{}, err
	}
	if string(zip) == "bad" {
		return lambda.Code{}, lambda.InvalidParameter("Could not unzip uploaded file.")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	c := lambda.Code{SHA256: digest(string(zip)), Size: int64(len(zip))}
	if _, err := fmt.Sscanf(string(zip), "%d MB", &c.Unpacked); err == nil {
		c.Unpacked <<= 20
	}
	p.kept[c.SHA256] = true
	return c, nil
}

// Fetch knows every object but "gone"; its zip is its key.
func (p *packages) Fetch(_ context.Context, o lambda.S3Object) (*io.SectionReader, func(), error) {
	if o.Key == "gone" {
		return nil, nil, lambda.InvalidParameter("Error occurred while GetObject. S3 Error Code: NoSuchKey. S3 Error Message: The specified key does not exist.")
	}
	p.open.Add(1)
	return io.NewSectionReader(strings.NewReader(o.Key), 0, int64(len(o.Key))), func() { p.open.Add(-1) }, nil
}

func (p *packages) Remove(_ context.Context, c lambda.Code) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.kept[c.SHA256] {
		return state.ErrNotFound
	}
	delete(p.kept, c.SHA256)
	return nil
}

// Resolve knows every image but "gone"; its digest is its name and how often that was pushed.
func (p *packages) Resolve(_ context.Context, uri string) (lambda.Code, error) {
	if uri == "gone" {
		return lambda.Code{}, &lambda.Failure{Code: lambda.ImageDeleted, Reason: "Source image gone does not exist."}
	}
	return lambda.Code{SHA256: digest(uri), ImageURI: uri, ResolvedImageURI: uri + "@" + digest(uri)}, nil
}

// Pull does what the test has set for it.
func (p *packages) Pull(ctx context.Context, c lambda.Code) error {
	p.mu.Lock()
	pull := p.pull
	p.mu.Unlock()
	if pull != nil {
		if err := pull(ctx); err != nil {
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.kept[c.SHA256] = true
	return nil
}

func (p *packages) pulling(f func(context.Context) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pull = f
}

func (p *packages) has(zip string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.kept[digest(zip)]
}

func (p *packages) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.kept)
}

// Check refuses the runtime that no machine has.
func (p *packages) Check(_ context.Context, s *lambda.Settings, _ lambda.Code) error {
	if p.checking != nil {
		p.checking()
	}
	if s.Runtime == "cobol" {
		return lambda.InvalidParameter("no cobol here")
	}
	return nil
}

// sealer turns bytes around, behind their context.
type sealer struct{}

func (sealer) Seal(plaintext, context []byte) ([]byte, error) {
	sealed := append([]byte{}, context...)
	for _, b := range plaintext {
		sealed = append(sealed, ^b)
	}
	return sealed, nil
}

func (sealer) Unseal(sealed, context []byte) ([]byte, error) {
	rest, ok := strings.CutPrefix(string(sealed), string(context))
	if !ok {
		return nil, errors.New("sealed for another place")
	}
	clear := []byte(rest)
	for i := range clear {
		clear[i] = ^clear[i]
	}
	return clear, nil
}

// disk is a state.State whose commits can be made to fail, by a rule that is
// asked about each.
type disk struct {
	state.State
	mu       sync.Mutex
	rule     func(value []byte) error // guarded by mu
	doubts   []func()                 // guarded by mu; clear them
	doubtful bool                     // guarded by mu; the next commit is in doubt, and was made
}

func (d *disk) Commit(ctx context.Context, changes ...state.Change) ([]state.Revision, error) {
	d.mu.Lock()
	rule, doubtful := d.rule, d.doubtful
	d.doubtful = false
	d.mu.Unlock()
	if rule != nil {
		if err := rule(changes[0].Value); err != nil {
			return nil, err
		}
	}
	revisions, err := d.State.Commit(ctx, changes...)
	if err == nil && doubtful {
		doubt := &state.Doubt{Cause: state.ErrUnknown}
		d.mu.Lock()
		d.doubts = append(d.doubts, func() { doubt.Made(revisions) })
		d.mu.Unlock()
		err = doubt
	}
	return revisions, err
}

// inDoubt has the one commit that do makes look as if it were not known whether it was made,
// until it is, as it was.
func (r *rig) inDoubt(do func() error) {
	r.t.Helper()
	r.disk.mu.Lock()
	r.disk.doubtful = true
	r.disk.mu.Unlock()
	if err := do(); !errors.Is(err, state.ErrUnknown) {
		r.t.Errorf("a commit in doubt: %v", err)
	}
	r.disk.mu.Lock()
	clear := r.disk.doubts
	r.disk.doubts = nil
	r.disk.mu.Unlock()
	for _, c := range clear {
		c()
	}
}

// What was in doubt and turns out to be made is shown, settled and can be changed, as after
// any commit.
func TestDoubt(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	r.inDoubt(func() error { _, err := r.Create(ctx, creation("f", "one")); return err })
	r.settled("f")
	r.inDoubt(func() error {
		_, err := r.UpdateCode(ctx, registry.UpdateCode{ARN: named("f"), Zip: []byte("two")})
		return err
	})
	if f := r.settled("f"); f.Code.SHA256 != digest("two") {
		t.Errorf("it has %+v", f.Code)
	}
	r.inDoubt(func() error { _, err := r.Publish(ctx, registry.Publish{ARN: named("f")}); return err })
	alias := named("f").Qualified("live")
	r.inDoubt(func() error {
		_, err := r.CreateAlias(ctx, registry.CreateAlias{ARN: alias, Version: "1"})
		return err
	})
	if runs, err := r.Resolve(ctx, alias); err != nil || runs.Version != "1" {
		t.Errorf("the alias leads to %+v, %v", runs, err)
	}
	r.inDoubt(func() error { return r.DeleteAlias(ctx, alias) })
	if _, err := r.Alias(alias); err == nil {
		t.Error("the alias is there")
	}
	for number := int64(1); number < 3; number++ {
		r.inDoubt(func() error {
			_, err := r.PublishLayer(ctx, registry.PublishLayer{ARN: layerNamed("l"), Zip: []byte("layer")})
			return err
		})
		arn := version("l", number)
		r.inDoubt(func() error {
			_, err := r.AddLayerPermission(ctx, arn, lambda.Statement{ID: "s", Action: "lambda:GetLayerVersion", Principal: "*"}, "")
			return err
		})
		r.inDoubt(func() error { return r.DeleteLayerVersion(ctx, arn) })
	}
	r.inDoubt(func() error { return r.Delete(ctx, named("f").Qualified("1")) })
	r.inDoubt(func() error { return r.Delete(ctx, named("f")) })
	_, err := r.Get(named("f"))
	code(t, err, "ResourceNotFoundException")
	r.reopen()
	_, err = r.Get(named("f"))
	code(t, err, "ResourceNotFoundException")
}

// fullForSettling lets no record through that settles a change.
func (d *disk) fullForSettling(full bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rule = nil
	if full {
		d.rule = func(value []byte) error {
			shown, _, _ := strings.Cut(string(value), `"Serving":`)
			if strings.Contains(shown, `"UpdateStatus":"Successful"`) {
				return state.ErrFull
			}
			return nil
		}
	}
}

// rig is a registry over the real engine.
type rig struct {
	*registry.Registry
	t        *testing.T
	dir      string
	engine   *jetstream.Engine
	disk     *disk
	packages *packages

	mu          sync.Mutex
	changes     []string // guarded by mu: name and whether it is there
	provisioned int      // guarded by mu; times that provisioned concurrency was told of
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), packages: &packages{kept: map[string]bool{}}}
	r.open()
	t.Cleanup(r.close)
	return r
}

func (r *rig) open() {
	r.t.Helper()
	r.start()
	if err := r.Open(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
}

// start opens the engine, and not the registry.
func (r *rig) start() {
	r.t.Helper()
	r.engine = jetstream.New(jetstream.Config{Dir: r.dir, Node: "test"})
	if err := r.engine.Open(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	r.disk = &disk{State: r.engine.State()}
	r.Registry = registry.New(r.disk, r.packages, r.packages, sealer{}, func(arn lambda.FunctionARN, now *lambda.Function) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.changes = append(r.changes, fmt.Sprint(arn.Name, " ", now != nil))
	}, slog.New(slog.DiscardHandler), registry.Config{Architecture: lambda.X86_64, Concurrency: lambda.DefaultConcurrency, CodeStorage: lambda.DefaultCodeStorage, Provisioned: func(lambda.FunctionARN) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.provisioned++
	}})
}

func (r *rig) close() {
	r.Registry.Close()
	if err := r.engine.Close(); err != nil {
		r.t.Error(err)
	}
}

func (r *rig) reopen() {
	r.t.Helper()
	r.close()
	r.open()
}

func creation(name, zip string) registry.Create {
	return registry.Create{
		ARN: named(name),
		Settings: lambda.Settings{
			PackageType: lambda.Zip, Runtime: "provided.al2023", Handler: "x", Role: "role", Timeout: 3 * time.Second, MemoryMB: 128,
			Logging: lambda.Logging{Format: "Text"}, Environment: map[string]string{"KEY": "value of " + name},
		},
		Zip:  []byte(zip),
		Tags: map[string]string{"tag": name},
	}
}

func (r *rig) create(name, zip string) *lambda.Function {
	r.t.Helper()
	f, err := r.Create(r.t.Context(), creation(name, zip))
	if err != nil {
		r.t.Fatal(err)
	}
	if f.State != lambda.Pending || f.UpdateStatus != "" {
		r.t.Errorf("a new function is %s, %s", f.State, f.UpdateStatus)
	}
	return r.settled(name)
}

// settled waits until the function has no change in progress.
func (r *rig) settled(name string) *lambda.Function {
	r.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		f, err := r.Get(named(name))
		if err != nil {
			r.t.Fatal(err)
		}
		if f.State == lambda.Active && f.UpdateStatus == lambda.UpdateSuccessful {
			return f
		}
		if time.Now().After(end) {
			r.t.Fatalf("%s stays %s, %s", name, f.State, f.UpdateStatus)
		}
	}
}

func (r *rig) update(name, zip string) *lambda.Function {
	r.t.Helper()
	if _, err := r.UpdateCode(r.t.Context(), registry.UpdateCode{ARN: named(name), Zip: []byte(zip)}); err != nil {
		r.t.Fatal(err)
	}
	return r.settled(name)
}

func code(t *testing.T, err error, want string) {
	t.Helper()
	e := lambda.AsError(err)
	if e == nil || e.Code != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestLife(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	f := r.create("f", "one")
	if f.Revision == "" || f.Code.SHA256 != digest("one") || f.Version != lambda.Latest || f.Settings.Architecture != lambda.X86_64 ||
		f.Settings.Logging.Group != "/aws/lambda/f" || f.Build == "" {
		t.Errorf("created %+v", f)
	}
	runs, err := r.Resolve(t.Context(), named("f"))
	if err != nil || runs.Build != f.Build {
		t.Errorf("runs %+v, %v", runs, err)
	}
	_, err = r.Create(t.Context(), creation("f", "one"))
	code(t, err, "ResourceConflictException")

	after := r.update("f", "two")
	if after.Build == f.Build || after.Revision == f.Revision || after.Code.SHA256 != digest("two") || r.packages.has("one") {
		t.Errorf("updated %+v, the old package is there: %v", after, r.packages.has("one"))
	}
	dry, err := r.UpdateCode(t.Context(), registry.UpdateCode{ARN: named("f"), Zip: []byte("three"), DryRun: true})
	if err != nil || dry.Code.SHA256 != digest("three") || r.settled("f").Revision != after.Revision || r.packages.has("three") {
		t.Errorf("a dry run: %+v, %v; package kept: %v", dry, err, r.packages.has("three"))
	}
	if _, err := r.UpdateConfiguration(t.Context(), registry.UpdateConfiguration{ARN: named("f"), Revision: after.Revision, Apply: func(s *lambda.Settings) { s.MemoryMB = 256 }}); err != nil {
		t.Fatal(err)
	}
	configured := r.settled("f")
	if configured.Settings.MemoryMB != 256 || configured.Build == after.Build || !r.packages.has("two") {
		t.Errorf("configured %+v, its package is there: %v", configured, r.packages.has("two"))
	}
	_, err = r.UpdateCode(t.Context(), registry.UpdateCode{ARN: named("f"), Zip: []byte("three"), Revision: after.Revision})
	code(t, err, "PreconditionFailedException")
	if r.packages.has("three") {
		t.Error("a refused update left its package")
	}

	r.reopen()
	again, err := r.Get(named("f"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(configured, again); diff != "" {
		t.Errorf("after a restart (-before +after):\n%s", diff)
	}
	if err := r.Delete(t.Context(), named("f")); err != nil {
		t.Fatal(err)
	}
	_, err = r.Get(named("f"))
	code(t, err, "ResourceNotFoundException")
	code(t, r.Delete(t.Context(), named("f")), "ResourceNotFoundException")
	r.reopen()
	_, err = r.Resolve(t.Context(), named("f"))
	code(t, err, "ResourceNotFoundException")
	if r.packages.count() != 0 {
		t.Errorf("%d packages are left", r.packages.count())
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if diff := cmp.Diff([]string{"f true", "f true", "f true", "f false"}, r.changes); diff != "" {
		t.Errorf("changes told: %s", diff)
	}
}

func TestSharedPackages(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.create("a", "shared")
	r.create("b", "shared")
	r.create("c", "own")
	r.update("c", "shared")
	if r.packages.has("own") || !r.packages.has("shared") {
		t.Error("an unused package stays, or a used one is gone")
	}
	r.reopen() // counts are made again from the records
	r.update("a", "other")
	r.update("a", "shared") // back
	r.update("a", "other")
	for _, name := range []string{"b", "c"} {
		if !r.packages.has("shared") {
			t.Errorf("the package of %s is gone", name)
		}
		if err := r.Delete(t.Context(), named(name)); err != nil {
			t.Fatal(err)
		}
	}
	if r.packages.has("shared") || !r.packages.has("other") {
		t.Error("an unused package stays, or a used one is gone")
	}
	r.update("a", "other") // the same again
	if !r.packages.has("other") {
		t.Error("an update to the same code removed it")
	}
}

// Writers of one name and of shared packages, all at once: one creates, the
// others conflict; in the end there are exactly the packages in use.
func TestConcurrentWriters(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const writers, rounds = 8, 12
	var wait sync.WaitGroup
	for w := range writers {
		wait.Go(func() {
			for i := range rounds {
				name, zip := fmt.Sprintf("f%d", (w+i)%3), fmt.Sprintf("zip %d", (w*i)%4)
				var err error
				switch (w + i) % 4 {
				case 0, 1:
					_, err = r.Create(t.Context(), creation(name, zip))
				case 2:
					_, err = r.UpdateCode(t.Context(), registry.UpdateCode{ARN: named(name), Zip: []byte(zip)})
				default:
					err = r.Delete(t.Context(), named(name))
				}
				if e := lambda.AsError(err); err != nil && (e == nil || e.Status != 409 && e.Status != 404) {
					t.Errorf("%s: %v", name, err)
				}
				if page, more := r.List(scope, "", 50); len(page) > 3 || more {
					t.Errorf("%d functions are listed", len(page))
				}
				r.Sweep(t.Context(), []lambda.Code{{SHA256: digest(zip)}})
			}
		})
	}
	wait.Wait()
	used := map[string]bool{}
	page, _ := r.List(scope, "", 50)
	for _, f := range page {
		used[r.settled(string(f.ARN.Name)).Code.SHA256] = true
	}
	r.Registry.Close()
	r.packages.mu.Lock()
	if diff := cmp.Diff(used, maps.Clone(r.packages.kept)); diff != "" {
		t.Errorf("packages in use (-) and kept (+):\n%s", diff)
	}
	r.packages.mu.Unlock()
	if err := r.engine.Close(); err != nil {
		t.Error(err)
	}
	r.open()
	after, _ := r.List(scope, "", 50)
	if len(after) != len(page) {
		t.Errorf("%d functions after a restart, %d before", len(after), len(page))
	}
}

// A function that is deleted while it is being created: whoever waits for it
// learns of that.
func TestDeletedWhilePending(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.disk.fullForSettling(true)
	if _, err := r.Create(t.Context(), creation("f", "one")); err != nil {
		t.Fatal(err)
	}
	_, err := r.UpdateCode(t.Context(), registry.UpdateCode{ARN: named("f"), Zip: []byte("two")})
	code(t, err, "ResourceConflictException")
	waits := make(chan error, 1)
	go func() { // ended by Delete
		_, err := r.Resolve(t.Context(), named("f"))
		waits <- err
	}()
	if err := r.Delete(t.Context(), named("f")); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-waits:
		code(t, err, "ResourceNotFoundException")
	case <-time.After(patience):
		t.Fatal("an invocation waits for a function that was deleted")
	}
}

// A change that could not be finished is finished later, and after a restart at
// the latest.
func TestSettlesAfterFailure(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	before := r.create("f", "one")
	r.disk.fullForSettling(true)
	if _, err := r.UpdateCode(t.Context(), registry.UpdateCode{ARN: named("f"), Zip: []byte("two")}); err != nil {
		t.Fatal(err)
	}
	_, err := r.UpdateConfiguration(t.Context(), registry.UpdateConfiguration{ARN: named("f"), Apply: func(*lambda.Settings) {}})
	code(t, err, "ResourceConflictException")
	if runs, err := r.Resolve(t.Context(), named("f")); err != nil || runs.Build != before.Build {
		t.Errorf("while an update is in progress %+v runs, %v", runs, err)
	}
	if !r.packages.has("one") || !r.packages.has("two") {
		t.Error("while an update is in progress both packages are needed")
	}
	r.reopen()
	if f := r.settled("f"); f.Code.SHA256 != digest("two") {
		t.Errorf("after a restart it has %+v", f.Code)
	}
	r.Sweep(t.Context(), []lambda.Code{{SHA256: digest("one")}, {SHA256: digest("two")}})
	if r.packages.has("one") || !r.packages.has("two") {
		t.Error("swept the wrong package")
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	big := strings.Repeat("x", lambda.MaxEnvironment)
	for what, change := range map[string]func(*registry.Create){
		"name too long":       func(c *registry.Create) { c.ARN.Name = lambda.FunctionName(strings.Repeat("n", 65)) },
		"bad package":         func(c *registry.Create) { c.Zip = []byte("bad") },
		"no such runtime":     func(c *registry.Create) { c.Settings.Runtime = "cobol" },
		"no runtime":          func(c *registry.Create) { c.Settings.Runtime = "" },
		"no handler":          func(c *registry.Create) { c.Settings.Handler = "" },
		"reserved variable":   func(c *registry.Create) { c.Settings.Environment = map[string]string{"AWS_REGION": "x"} },
		"variables too large": func(c *registry.Create) { c.Settings.Environment = map[string]string{"A": big} },
		"zero byte":           func(c *registry.Create) { c.Settings.Environment = map[string]string{"A": "a\x00b"} },
		"level without JSON":  func(c *registry.Create) { c.Settings.Logging.ApplicationLevel = "INFO" },
		"too many tags": func(c *registry.Create) {
			c.Tags = map[string]string{}
			for i := range lambda.MaxTags + 1 {
				c.Tags[fmt.Sprint(i)] = ""
			}
		},
	} {
		c := creation("f", "zip")
		change(&c)
		_, err := r.Create(t.Context(), c)
		if e := lambda.AsError(err); e == nil || e.Code != "InvalidParameterValueException" {
			t.Errorf("%s: %v", what, err)
		}
	}
	if page, _ := r.List(scope, "", 50); len(page) != 0 || r.packages.count() != 0 {
		t.Errorf("refused functions left %d functions and %d packages", len(page), r.packages.count())
	}
	versioned := named("f")
	r.create("f", "zip")
	versioned.Qualifier = "1"
	_, err := r.Get(versioned)
	code(t, err, "ResourceNotFoundException")
	versioned.Qualifier = lambda.Latest
	if _, err := r.Get(versioned); err != nil {
		t.Error(err)
	}
	code(t, r.Delete(t.Context(), versioned), "InvalidParameterValueException")
}

func TestList(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, name := range []string{"b", "a", "d", "c"} {
		r.create(name, "zip")
	}
	elsewhere := creation("e", "zip")
	elsewhere.ARN.Region = "eu-west-1"
	if _, err := r.Create(t.Context(), elsewhere); err != nil {
		t.Fatal(err)
	}
	var names []string
	after, more := lambda.FunctionName(""), true
	for more {
		var page []*lambda.Function
		page, more = r.List(scope, after, 3)
		for _, f := range page {
			names = append(names, string(f.ARN.Name))
			after = f.ARN.Name
		}
	}
	if diff := cmp.Diff([]string{"a", "b", "c", "d"}, names); diff != "" {
		t.Error(diff)
	}
}

// What lies on the disk is sealed, and bound to its place.
func TestSealed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.create("f", "zip")
	r.create("g", "zip")
	records, err := r.engine.State().All(t.Context(), "function.")
	if err != nil || len(records) != 2 {
		t.Fatal(len(records), err)
	}
	for _, rec := range records {
		if strings.Contains(string(rec.Value), "value of ") {
			t.Errorf("%s holds a variable in clear: %s", rec.Key, rec.Value)
		}
	}
	r.Registry.Close()
	// f's record with g's variables
	var f, g map[string]any
	if err := errors.Join(json.Unmarshal(records[0].Value, &f), json.Unmarshal(records[1].Value, &g)); err != nil {
		t.Fatal(err)
	}
	f["Environment"] = g["Environment"]
	value, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	r.put(records[0], value)
	if err := r.engine.Close(); err != nil {
		t.Fatal(err)
	}
	r.start()
	if err := r.Open(t.Context()); err == nil || !strings.Contains(err.Error(), "unseal the environment of "+named("f").String()) {
		t.Errorf("variables of another function: %v", err)
	}
}

func (r *rig) put(rec state.Record, value []byte) {
	r.t.Helper()
	if _, err := r.engine.State().Commit(r.t.Context(), state.Change{Key: rec.Key, Value: value, Expect: rec.Revision}); err != nil {
		r.t.Fatal(err)
	}
}

func TestForeignRecords(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		change func(value string) string
		want   string
	}{
		"newer":   {func(v string) string { return strings.Replace(v, `"Schema":1`, `"Schema":2`, 1) }, "was written by a newer Kiln (schema 2; this one knows 1): upgrade kiln"},
		"damaged": {func(v string) string { return v[:len(v)/2] }, "is damaged"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.create("f", "zip")
			records, err := r.engine.State().All(t.Context(), "function.")
			if err != nil {
				t.Fatal(err)
			}
			r.Registry.Close()
			r.put(records[0], []byte(c.change(string(records[0].Value))))
			if err := r.engine.Close(); err != nil {
				t.Fatal(err)
			}
			r.start()
			if err := r.Open(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), records[0].Key) {
				t.Errorf("got %v, want %q and %s in it", err, c.want, records[0].Key)
			}
		})
	}
}

// A client reads its own writes at once, from any goroutine.
func TestReadYourWrites(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var wait sync.WaitGroup
	for w := range 4 {
		wait.Go(func() {
			name := fmt.Sprintf("f%d", w)
			for i := range 10 {
				zip := fmt.Sprintf("zip %d %d", w, i)
				if _, err := r.Create(t.Context(), creation(name, zip)); err != nil {
					t.Error(err)
				}
				if f, err := r.Get(named(name)); err != nil || f.Code.SHA256 != digest(zip) {
					t.Errorf("%s is %+v, %v", name, f, err)
				}
				if f, err := r.Resolve(t.Context(), named(name)); err != nil || f.Code.SHA256 != digest(zip) {
					t.Errorf("%s runs %+v, %v", name, f, err)
				}
				if err := r.Delete(t.Context(), named(name)); err != nil {
					t.Error(err)
				}
				if _, err := r.Get(named(name)); err == nil {
					t.Errorf("%s is there after its deletion", name)
				}
			}
		})
	}
	wait.Wait()
	if r.packages.count() != 0 {
		t.Errorf("%d packages are left", r.packages.count())
	}
}

func TestSettlingIsTriedAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.disk.fullForSettling(true)
	if _, err := r.Create(t.Context(), creation("f", "one")); err != nil {
		t.Fatal(err)
	}
	r.disk.fullForSettling(false)
	r.settled("f")
	if _, err := r.Resolve(t.Context(), named("f")); err != nil {
		t.Error(err)
	}
}
