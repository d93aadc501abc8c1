// Package daemon is the composition root: it builds every part of Kiln in the
// order of their dependencies, runs them, and closes them in reverse. All wiring
// is here; the cli package calls it.
package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"kiln/internal/bootstrap"
	"kiln/internal/bootstrap/dotnet"
	"kiln/internal/bootstrap/java"
	"kiln/internal/bootstrap/nodejs"
	"kiln/internal/bootstrap/provided"
	"kiln/internal/bootstrap/python"
	"kiln/internal/bootstrap/ruby"
	"kiln/internal/config"
	"kiln/internal/environment"
	"kiln/internal/front"
	"kiln/internal/front/api"
	"kiln/internal/front/eventsource"
	"kiln/internal/front/functionurl"
	"kiln/internal/front/gateway"
	"kiln/internal/front/iam"
	frontlogs "kiln/internal/front/logs"
	"kiln/internal/front/operator"
	"kiln/internal/front/s3"
	"kiln/internal/front/sts"
	"kiln/internal/identity"
	"kiln/internal/invoke"
	"kiln/internal/invoke/async"
	"kiln/internal/invoke/destination"
	"kiln/internal/invoke/notification"
	"kiln/internal/lambda"
	"kiln/internal/registry"
	"kiln/internal/registry/capacity"
	"kiln/internal/registry/mapping"
	"kiln/internal/registry/signing"
	"kiln/internal/sandbox"
	"kiln/internal/scheduler"
	"kiln/internal/scheduler/machine"
	"kiln/internal/state/artifact"
	"kiln/internal/state/bucket"
	"kiln/internal/state/datadir"
	"kiln/internal/state/image"
	"kiln/internal/state/jetstream"
	"kiln/internal/state/lease"
	"kiln/internal/state/objects"
	"kiln/internal/telemetry/logs"
	"kiln/internal/telemetry/metrics"
)

// headerTimeout bounds the reading of a request's headers.
const headerTimeout = 30 * time.Second

// maxHeader bounds the request line and headers, as on AWS.
const maxHeader = 1 << 20

// Daemon is one Kiln.
type Daemon struct {
	config  config.Config
	version string
	log     *slog.Logger
	began   time.Time
}

// New returns a daemon that has started nothing.
func New(c config.Config, version string, log *slog.Logger) *Daemon {
	return &Daemon{config: c, version: version, log: log, began: time.Now()}
}

// Ready is what a daemon that serves says of itself.
type Ready struct {
	Addresses []string
	Admin     string // where health and metrics are; "" where the rest is
	Authority string // file with the certificate that clients must trust; "" for none
	Driver    string
	Isolation sandbox.Description
	Accounts  map[string]string // the drivers of those that have another
	Keyed     bool
	MasterKey string // where it comes from
	Took      time.Duration
}

// cleanup closes what was opened, the last first.
type cleanup []func() error

func (c *cleanup) add(name string, close func() error) {
	*c = append(*c, func() error {
		if err := close(); err != nil {
			return fmt.Errorf("close %s: %w", name, err)
		}
		return nil
	})
}

func (c cleanup) run() (err error) {
	for i := len(c) - 1; i >= 0; i-- {
		err = errors.Join(err, c[i]())
	}
	return err
}

// Run serves until ctx ends, then drains and closes everything. ready is called
// once it serves.
func (d *Daemon) Run(ctx context.Context, ready func(Ready)) (err error) {
	var open cleanup
	defer func() { err = errors.Join(err, open.run()) }()

	secret, err := d.config.Secret()
	if err != nil {
		return err
	}
	if err := d.adoptEndpoints(ctx, os.Getenv); err != nil {
		return err
	}
	eventsSecret, err := d.config.S3EventsSecret()
	if err != nil {
		return err
	}
	passed, err := d.passed(os.Getenv)
	if err != nil {
		return err
	}
	dir, err := datadir.Open(d.config.Data, datadir.Config{MinFree: int64(d.config.FreeSpaceFloor), MasterKey: MasterKey(d.config)})
	if err != nil {
		return err
	}
	open.add("the data directory", dir.Close)

	driver, err := d.driver(ctx, dir)
	if err != nil {
		return err
	}
	open.add("the "+driver.Name()+" driver", driver.Close)

	engine := jetstream.New(jetstream.Config{Dir: dir.Path(), Node: dir.Node(), Free: dir.Free, Log: d.log})
	if err := engine.Open(ctx); err != nil {
		return fmt.Errorf("open the state: %w", err)
	}
	open.add("the state", engine.Close)

	store, err := logs.Open(ctx, filepath.Join(dir.Telemetry(), "logs.db"), logs.Config{
		GroupBytes: int64(d.config.LogsGroupBytes), TotalBytes: int64(d.config.LogsTotalBytes), Full: func() bool { return dir.Free() != nil }, Log: d.log,
	})
	if err != nil {
		return fmt.Errorf("open the logs: %w", err)
	}
	open.add("the logs", store.Close)

	var functions *registry.Registry // made last of those that ask each other
	counts := metrics.New(metrics.Config{Version: d.version})
	code, err := d.packages(ctx, dir, engine, driver)
	if err != nil {
		return err
	}
	additions, err := bootstrap.OpenAdditions(datadir.Runtimes(dir.Path()))
	if err != nil {
		return err
	}
	if code.objects != nil {
		open.add("the objects", code.objects.Close)
	}
	code.bases = newBaseImages(code.images, driver, additions)
	catalog := Catalog(d.config, driver, additions, code.bases, filepath.Join(dir.Run(), "clients"), d.log)
	if err := catalog.Sweep(); err != nil {
		d.log.Warn("what an earlier kiln left of runtimes could not be removed", "error", err)
	}
	identities := identity.New(engine.State(), sealer{dir})
	if err := identities.Open(ctx); err != nil {
		return fmt.Errorf("open the identities: %w", err)
	}
	access := front.NewAccess(front.Config{
		Account: lambda.AccountID(d.config.Account), Region: lambda.Region(d.config.Region),
		AccessKey: d.config.AccessKey, Secret: secret, Hosts: d.config.Hosts, Identities: identities,
		Policy: func(arn lambda.ARN) lambda.Policy { return policyOf(functions, arn) },
		Tags:   func(arn lambda.ARN) map[string]string { return tagsOf(functions, arn) },
	})
	if !d.config.Loopback() && !access.Keyed() {
		return fmt.Errorf("listen: %s can be reached from other machines, and without keys everybody there could run code here: set access_key and secret_key_file, or listen on localhost, where kiln keys create makes a first key", d.config.Listen)
	}
	audit, reopen, err := d.audit(&open)
	if err != nil {
		return err
	}

	pool := environment.NewSpares(driver, int64(d.config.SpareBytes), func() bool { return scheduler.Short(machine.Read()) }, d.log)
	open.add("the spares", func() error { return pool.Close(context.Background()) })
	watchSpares(counts, pool, driver)

	// Environments call back into the gateway, which is built last.
	var inside http.Server
	networks, err := networksOf(d.config)
	if err != nil {
		return err
	}
	factory := &environment.Factory{
		Network: networks.of, Variables: proxy(d.config), Trust: trust(d.config),
		Driver: driver, Spares: pool, Runtimes: catalog, Packages: code, Identities: access,
		Logs: sink(store), Endpoint: inside.Serve, Endpoints: d.config.Endpoints, Passed: passed,
		LimitCPU: d.config.CPULimit, Log: d.log,
		// Apart from the room for requests: an answer is freed without waiting for
		// anything else, a request is not.
		Room: d.room(func() {}),
	}
	budget := memoryBudget(d.config, machine.Read())
	environments := scheduler.New(factory, counts, d.log, scheduler.Config{
		IdleTimeout: time.Duration(d.config.IdleTimeout), MaxEnvironments: d.config.Concurrency,
		ScalingRate: d.config.ScalingRate, MemoryBudget: budget, Machine: machine.Read,
	})
	changed := make(chan *lambda.Function, 1)
	functions = registry.New(engine.State(), code, factory, sealer{dir}, func(arn lambda.FunctionARN, now *lambda.Function) {
		if now == nil {
			environments.Retire(arn, "")
			if arn.Qualifier == lambda.Latest { // the function itself is gone
				counts.Forget(arn.Unqualified())
			}
			return
		}
		environments.Retire(arn, now.Build)
		select {
		case changed <- now:
		default: // another of many is as good
		}
	}, d.log, registry.Config{
		Architecture: environment.MachineArchitecture(), Concurrency: d.config.Concurrency, CodeStorage: int64(d.config.CodeStorageBytes),
		Provisioned: func(function lambda.FunctionARN) { environments.Provision(function, allotments(functions, function)) },
	})
	code.bases.unused = func(ctx context.Context, c lambda.Code) { functions.Sweep(ctx, []lambda.Code{c}) }
	if err := functions.Open(ctx); err != nil {
		return err
	}
	open.add("the registry", func() error { functions.Close(); return nil })
	for _, function := range functions.Provisioning() {
		environments.Provision(function, allotments(functions, function))
	}

	var pollers *eventsource.Pollers // made of what the mappings are for
	mappings := mapping.New(engine.State(), functions, func(arn lambda.MappingARN, now *lambda.EventSourceMapping) {
		pollers.Changed(arn, now)
		if now == nil {
			counts.ForgetSource(arn)
		}
	})
	signings := signing.New(engine.State(), func(arn lambda.SigningConfigARN) bool {
		users, _ := functions.Attaching(arn.Scope, func(a *lambda.Attached) bool { return a.CodeSigning == arn.String() }, "", 1)
		return len(users) > 0
	})
	providers := capacity.New(engine.State())
	if err := errors.Join(mappings.Open(ctx), signings.Open(ctx), providers.Open(ctx)); err != nil {
		return err
	}

	invocations := invoke.New(functions, environments, access, throttles{counts}, invoke.Config{Concurrency: d.config.Concurrency})
	destinations := destination.Config{Endpoint: d.config.Endpoint, Log: d.log}
	if code.objects != nil {
		destinations.Own = code.objects.Do
	}
	sender := destination.New(destinations)
	open.add("the destinations", func() error { sender.Close(); return nil })
	events := async.New(engine.Queue(), invocations, functions, access, sender, counts, d.log, async.Config{
		RetryDelay: time.Duration(d.config.AsyncRetryDelay), Deliveries: d.config.AsyncDeliveries,
		FunctionEvents: int64(d.config.AsyncFunctionEvents), FunctionBytes: int64(d.config.AsyncFunctionBytes),
		AccountEvents: int64(d.config.AsyncAccountEvents), AccountBytes: int64(d.config.AsyncAccountBytes),
	})
	if err := events.Open(ctx); err != nil {
		return err
	}
	leases := lease.New(engine.State(), lease.Config{Node: dir.Node()})
	pollers = eventsource.New(eventsource.Config{
		Sources: sources(), Mappings: mappings, Roles: access, Sender: sender, State: engine.State(), Leases: leases, Log: d.log,
		Invoker: polled{invocations, functions, d.room(func() {})},
		Endpoint: func(service, source string) string {
			if service == "dynamodbstreams" && d.config.Endpoints[service] == "" {
				service = "dynamodb" // it is where the tables are, unless it is elsewhere
			}
			return cmp.Or(d.config.SourceEndpoints[source], d.config.Endpoint(service))
		},
		Counter: func(m *lambda.EventSourceMapping) eventsource.Counter { return counts.Source(m.ARN, m.Function) },
	})
	notifications := notification.New(engine.State(), engine.Queue(), events, functions, access, sender, code, d.log)
	if err := notifications.Open(ctx); err != nil {
		return err
	}
	deployed := make(chan struct{}, 1)
	requests := d.room(func() {
		select {
		case deployed <- struct{}{}:
		default: // it is noticed already
		}
	})
	door := api.New(api.Config{
		Access: access, Registry: functions, Mappings: mappings, Polling: pollers.Result, Signing: signings, Capacity: providers, Invoke: invocations, Async: events, Runtimes: runtimes{catalog}, Log: d.log,
		Audit: audit, Admit: requests, Provisioned: environments.Provisioned,
	})
	stopping, stop := context.WithCancel(context.Background())
	defer stop()
	cloudWatch := frontlogs.New(frontlogs.Config{Access: access, Store: store, Audit: audit, Admit: requests, Stopping: stopping, Log: d.log})
	ports, err := d.listen(ctx, dir)
	if err != nil {
		return err
	}
	defer ports.close()
	if err := d.checkEndpoints(ctx, ports); err != nil {
		return err
	}
	elsewhere, err := d.forwarder(ctx, access, audit, requests)
	if err != nil {
		return err
	}
	open.add("the forwarded connections", func() error { elsewhere.Close(); return nil })
	saver := &backups{dir: dir, engine: engine, logs: store, version: d.version}
	if err := saver.sweep(); err != nil {
		d.log.Warn("what a backup has left that was cut off could not be removed", "error", err)
	}
	operators := operator.Config{
		Access: access, Functions: functions, Packages: code, Runtimes: catalog, Keys: identities, Backups: saver, Queue: events, Audit: audit, Metrics: counts.Handler(), Stopping: stopping, Log: d.log,
		S3Events: s3.Intake{
			Notifications: notifications, Scope: lambda.Scope{Account: lambda.AccountID(d.config.Account), Region: lambda.Region(d.config.Region)}, Secret: eventsSecret, Log: d.log,
		},
		Top:     func() operator.Top { return currently(counts, environments, pool, budget) },
		Health:  func() any { return d.health(dir, driver, engine) },
		Watched: d.watched(ports),
	}
	services := map[string]func(inside bool) http.Handler{
		"lambda": door.Handler, "logs": cloudWatch.Handler,
		"iam": iam.New(iam.Config{Access: access, Identities: identities, Audit: audit, Admit: requests, Log: d.log}).Handler,
		"sts": sts.New(sts.Config{Access: access, Identities: identities, Audit: audit, Admit: requests, Log: d.log}).Handler,
	}
	if code.objects != nil {
		services["s3"] = s3.New(s3.Config{Access: access, Objects: code.objects, Notifications: notifications, Audit: audit, Free: dir.Free, Log: d.log}).Handler
	}
	gate := gateway.New(access, gateway.Doors{
		Services: services, Elsewhere: elsewhere.Handler, Operator: operator.New(operators),
		FunctionURLs: functionurl.New(functionurl.Config{Access: access, URLs: functions, Invoke: invocations, Metrics: counts, Audit: audit, Admit: requests, Log: d.log}).Handler,
	})
	quiet := slog.NewLogLogger(d.log.Handler(), slog.LevelDebug)
	serve := func(h http.Handler) *http.Server {
		return &http.Server{Handler: h, ReadHeaderTimeout: headerTimeout, MaxHeaderBytes: maxHeader, ErrorLog: quiet}
	}
	inside.Handler, inside.MaxHeaderBytes, inside.ErrorLog = gate.Inside(), maxHeader, quiet

	work, workers := errgroup.WithContext(ctx)
	background, end := context.WithCancel(workers)
	defer end()
	ports.serve(work, ports.main, serve(gate.Outside()))
	ports.serve(work, ports.admin, serve(gate.Admin(operator.Admin(operators))))
	work.Go(func() error { environments.Run(background); return nil })
	work.Go(func() error { pool.Run(background); return nil })
	if code.objects != nil {
		work.Go(func() error { code.objects.Run(background); return nil })
	}
	taking, stopTaking := context.WithCancel(background)
	defer stopTaking()
	work.Go(func() error { events.Run(taking); return nil })
	work.Go(func() error { notifications.Run(taking); return nil })
	work.Go(func() error { leases.Run(background); return nil })
	polling := make(chan struct{})
	work.Go(func() error { defer close(polling); return pollers.Run(taking) })
	work.Go(func() error {
		for {
			select {
			case <-background.Done():
				return nil
			case fn := <-changed:
				factory.Expect(background, fn)
			}
		}
	})
	work.Go(func() error { returnMemory(background, deployed); return nil })
	work.Go(func() error { reopen(background); return nil })
	work.Go(func() error {
		if err := catalog.Run(background); err != nil && background.Err() == nil {
			d.log.Error("interpreters could not be discovered", "error", err)
		}
		return nil
	})
	work.Go(func() error {
		kept, err := code.Keys(background)
		if err != nil && background.Err() == nil {
			d.log.Warn("cannot look for packages that nothing uses", "error", err)
		}
		functions.Sweep(background, kept)
		return nil
	})

	ready(Ready{
		Addresses: ports.urls, Admin: ports.adminURL, Authority: ports.authority, Driver: driver.Name(), Isolation: driver.Describe(), Accounts: accountDrivers(driver),
		Keyed: access.Keyed(), MasterKey: MasterKey(d.config).String(), Took: time.Since(d.began),
	})
	<-workers.Done() // told to stop, or a part failed

	// From the outside in: no new request, then no invocation, then what they used.
	stop()
	drain, cancel := context.WithTimeoutCause(context.Background(), time.Duration(d.config.ShutdownTimeout), errors.New("shutdown_timeout passed"))
	defer cancel()
	drainErr := ports.shutdown(drain)
	stopTaking()
	drainErr = errors.Join(drainErr, environments.Close(drain))
	events.Wait(drain)
	<-polling     // what it had in hand is over: environments are closed
	ports.close() // connections that the drain left
	_ = inside.Close()
	end()
	if err := work.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		drainErr = errors.Join(drainErr, err)
	}
	return drainErr
}

// passed are the credentials for AWS that functions get, if they do.
func (d *Daemon) passed(getenv func(string) string) (*environment.Credentials, error) {
	if !d.config.PassCredentials {
		return nil, nil
	}
	c := environment.Credentials{AccessKeyID: getenv("AWS_ACCESS_KEY_ID"), SecretAccessKey: getenv("AWS_SECRET_ACCESS_KEY"), SessionToken: getenv("AWS_SESSION_TOKEN")}
	if c.AccessKeyID == "" || c.SecretAccessKey == "" {
		return nil, errors.New("pass_credentials: Kiln was started without AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; with the AWS CLI, get them by: eval \"$(aws configure export-credentials --format env)\"")
	}
	d.log.Warn("functions have this machine's AWS credentials, and reach AWS itself", "access_key", c.AccessKeyID)
	return &c, nil
}

// MasterKey is where the configuration says that the master key comes from.
func MasterKey(c config.Config) datadir.MasterKey {
	return datadir.MasterKey{File: c.MasterKeyFile, Credential: c.MasterKeyCredential, Command: c.MasterKeyCommand}
}

// packages opens the stores of packages and images. Images' roots are made for the driver.
func (d *Daemon) packages(ctx context.Context, dir *datadir.Dir, engine *jetstream.Engine, driver sandbox.Driver) (p packages, err error) {
	p.store = artifact.New(engine.Blob(), dir.Code(), artifact.Config{MaxCache: int64(d.config.ArtifactCacheBytes), Free: dir.Free, Log: d.log})
	if err := p.store.Open(ctx); err != nil {
		return p, fmt.Errorf("open the packages: %w", err)
	}
	fetch := bucket.Config{Endpoint: d.config.Endpoints["s3"], Dir: dir.Run(), Free: dir.Free, Log: d.log}
	if fetch.Endpoint == "" {
		p.objects = objects.New(objects.Config{Dir: datadir.Objects(dir.Path()), Run: dir.Run(), Log: d.log})
		fetch.Local = p.objects.Do
	}
	p.bucket = bucket.New(fetch)
	images := image.Config{Dir: dir.Images(), Trees: p.store, Folders: d.config.ImageFolders, Free: dir.Free, Log: d.log}
	if r, ok := driver.(sandbox.Rooter); ok {
		images.MountPoints = r.MountPoints()
	}
	p.images = image.New(images)
	return p, p.images.Open(ctx)
}

// smallBody is never waited for, in bytes: it costs no more than its connection,
// and must not queue behind slow clients with large bodies.
const smallBody = 16 << 10

// room bounds bytes in flight. large is called after what is larger than any event
// or answer, as only a package is, was let go.
func (d *Daemon) room(large func()) func(ctx context.Context, n int64) (release func(), err error) {
	bytes := semaphore.NewWeighted(int64(d.config.MaxInflightBytes))
	return func(ctx context.Context, n int64) (func(), error) {
		if n <= smallBody {
			return func() {}, nil
		}
		if err := bytes.Acquire(ctx, n); err != nil {
			return nil, err
		}
		return func() {
			bytes.Release(n)
			if n > lambda.MaxResponsePayload {
				large()
			}
		}, nil
	}
}

// allotments are the environments that a function's provisioned concurrency is to have.
func allotments(r *registry.Registry, function lambda.FunctionARN) (list []scheduler.Allotment) {
	for _, a := range r.Allotments(function) {
		list = append(list, scheduler.Allotment(a))
	}
	return list
}

// memoryBudget is what all environments may hold together, in bytes.
func memoryBudget(c config.Config, m machine.Memory) int64 {
	if c.MemoryBudget > 0 {
		return int64(c.MemoryBudget)
	}
	return m.Total / 5 * 4
}

// returnMemory gives back to the system what deployments needed: packages are
// many times larger than all else that the daemon holds.
func returnMemory(ctx context.Context, deployed <-chan struct{}) {
	const pause = 2 * time.Second // several deployments in a row are one
	for {
		select {
		case <-ctx.Done():
			return
		case <-deployed:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
			debug.FreeOSMemory()
		}
	}
}

// Catalog is the machine's runtimes, as the driver can use them.
func Catalog(c config.Config, driver sandbox.Driver, additions *bootstrap.Additions, images bootstrap.Images, dir string, log *slog.Logger) *bootstrap.Catalog {
	families := []bootstrap.Family{nodejs.New(), python.New(), java.New(), ruby.New(), dotnet.New(), provided.New()}
	var usable func(bootstrap.Installation) error
	if u, ok := driver.(interface{ Usable(path string) error }); ok {
		usable = func(in bootstrap.Installation) error { return u.Usable(in.Program) }
	}
	return bootstrap.New(families, bootstrap.Config{
		AnyRuntime: c.AnyRuntime, Paths: c.RuntimePaths, Additions: additions, Images: images, Dir: dir, Getenv: os.Getenv, Usable: usable, Log: log,
	})
}

// health is the body of /_kiln/health.
func (d *Daemon) health(dir *datadir.Dir, driver sandbox.Driver, engine *jetstream.Engine) any {
	status, problem := "ok", ""
	if err := cmp.Or(engine.Err(), dir.Free()); err != nil {
		status, problem = "degraded", err.Error()
	}
	description := driver.Describe()
	return struct {
		Status   string            `json:"status"` // ok, or degraded: functions run, and nothing can be stored
		Problem  string            `json:"problem,omitempty"`
		Version  string            `json:"version"`
		Node     string            `json:"node"`
		Driver   string            `json:"driver"`
		Isolates bool              `json:"isolates"`
		Summary  string            `json:"isolation"`
		Missing  []string          `json:"missing,omitempty"`
		Accounts map[string]string `json:"account_drivers,omitempty"` // of those that have another driver
		Uptime   float64           `json:"uptime_seconds"`
	}{status, problem, d.version, dir.Node(), driver.Name(), description.Isolates, description.Summary, description.Missing, accountDrivers(driver), time.Since(d.began).Seconds()}
}

// accountDrivers are the names of the drivers of accounts that have one of their own.
func accountDrivers(d sandbox.Driver) map[string]string {
	c, ok := d.(*sandbox.Choice)
	if !ok {
		return nil
	}
	names := map[string]string{}
	for account, other := range c.Others {
		names[account] = other.Name()
	}
	return names
}

// throttles counts what was not run.
type throttles struct{ metrics *metrics.Recorder }

func (t throttles) Throttled(fn *lambda.Function, reason string) {
	t.metrics.Function(fn.ARN).Throttled(reason)
}

func (t throttles) Recursive(fn *lambda.Function) { t.metrics.Function(fn.ARN).RecursionDropped() }
