package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"kiln/internal/config"
	"kiln/internal/lambda"
	"kiln/internal/sandbox"
	"kiln/internal/sandbox/gvisor"
	"kiln/internal/sandbox/linux"
	"kiln/internal/sandbox/process"
	"kiln/internal/sandbox/program"
	"kiln/internal/state/datadir"
)

func (d *Daemon) driver(ctx context.Context, dir *datadir.Dir) (sandbox.Driver, error) {
	driver, reason, err := Driver(ctx, d.config, filepath.Join(dir.Run(), "sandboxes"), d.log)
	if err != nil {
		return nil, err
	}
	if reason != "" {
		d.log.Warn("functions run without isolation", "driver", driver.Name(), "reason", reason)
	}
	if e, ok := driver.(sandbox.Exposer); ok {
		// What else is in these folders is closed to others itself.
		if err := e.Expose(dir.Path(), dir.Run(), dir.Code()); err != nil {
			return nil, errors.Join(err, driver.Close())
		}
	}
	return driver, nil
}

// firstProcesses is how many first processes of linux sandboxes wait ready, and how many where
// so many were wanted at once of late, about 1 MB each: starting one, with its /tmp, is most of what
// making a sandbox costs.
const firstProcesses, mostFirstProcesses = 2, 32

// kernels is how many booted gVisors wait ready likewise, about 20 MB each: booting one takes
// 100 ms and more.
const kernels, mostKernels = 2, 8

// Driver makes the driver that the configuration asks for, or a Choice of several, and
// removes what an earlier run left. With driver = auto it is linux where that works; else
// reason says why it does not.
func Driver(ctx context.Context, c config.Config, dir string, log *slog.Logger) (driver sandbox.Driver, reason string, err error) {
	n, err := networksOf(c)
	if err != nil {
		return nil, "", err
	}
	files, err := authorities(c)
	if err != nil {
		return nil, "", err // what is configured wrongly is no reason for a weaker driver
	}
	made := map[string]sandbox.Driver{}
	defer func() {
		if err != nil {
			for _, d := range made {
				err = errors.Join(err, d.Close())
			}
		}
	}()
	get := func(name string) (sandbox.Driver, error) {
		if d := made[name]; d != nil {
			return d, nil
		}
		d, err := named(ctx, name, c, n, files, filepath.Join(dir, name), log)
		if err != nil {
			return nil, fmt.Errorf("driver %s cannot be used here: %w", name, err)
		}
		made[name] = d
		return d, nil
	}
	if c.Driver != "auto" {
		driver, err = get(c.Driver)
	} else if driver, err = get("linux"); err != nil {
		reason = errors.Unwrap(err).Error()
		driver, err = get("process")
	}
	if err != nil {
		return nil, "", err
	}
	others := map[string]sandbox.Driver{}
	for account, settings := range c.Accounts {
		if settings.Driver == "" || settings.Driver == driver.Name() {
			continue
		}
		if config.Weaker(settings.Driver, driver.Name()) { // than what auto turned out to be
			return nil, "", fmt.Errorf("accounts: the driver %s of %s keeps functions apart less than %s does for all; leave it out", settings.Driver, account, driver.Name())
		}
		if others[account], err = get(settings.Driver); err != nil {
			return nil, "", fmt.Errorf("accounts: %s: %w", account, err)
		}
	}
	if len(others) > 0 {
		return &sandbox.Choice{Driver: driver, Others: others}, reason, nil
	}
	return driver, reason, nil
}

// firstProgram is the small program for first processes of sandboxes; nil where this program is
// to be that as well, because it was built without, or the machine executes nothing from memory.
func firstProgram(log *slog.Logger) *os.File {
	f, err := program.File()
	if err != nil {
		log.Debug("first processes of sandboxes take longer to start", "reason", err)
	}
	return f
}

// networked makes a driver with the network that is wanted, or that auto can have.
func networked[D sandbox.Driver](n networks, log *slog.Logger, create func(mode string) (D, error)) (D, error) {
	d, err := create(n.mode)
	if err != nil && !n.chosen && n.mode == sandbox.NetworkNAT {
		log.Warn("functions reach nothing but Kiln", "reason", err)
		d, err = create(sandbox.NetworkNone)
	}
	return d, err
}

// named makes one driver that works here, without what an earlier run left.
func named(ctx context.Context, name string, c config.Config, n networks, files map[string][]byte, dir string, log *slog.Logger) (sandbox.Driver, error) {
	switch name {
	case "linux":
		d, err := networked(n, log, func(network string) (*linux.Driver, error) {
			return linux.New(linux.Config{
				Dir: dir, Program: firstProgram(log), Network: network, NAT: n.nat, Files: files, Log: log,
				Spares: firstProcesses, MaxSpares: mostFirstProcesses, SpareTmpBytes: lambda.DefaultEphemeralStorage << 20,
			})
		})
		if err != nil {
			return nil, err
		}
		return tried(ctx, d)
	case "gvisor":
		d, err := networked(n, log, func(network string) (*gvisor.Driver, error) {
			return gvisor.New(gvisor.Config{
				Dir: dir, Program: firstProgram(log), Runsc: c.Runsc, Network: network, NAT: n.nat, Files: files, Log: log,
				Spares: kernels, MaxSpares: mostKernels,
			})
		})
		if err != nil {
			return nil, err
		}
		return tried(ctx, d)
	}
	d, err := process.New(process.Config{Dir: dir, Log: log})
	if err != nil {
		return nil, err
	}
	if err := d.Sweep(ctx); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// tried is the driver, if it can make a sandbox; else it is closed.
func tried(ctx context.Context, d interface {
	sandbox.Driver
	Probe(context.Context) error
}) (sandbox.Driver, error) {
	if err := errors.Join(d.Sweep(ctx), d.Probe(ctx)); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}
