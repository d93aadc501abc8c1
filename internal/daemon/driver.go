package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"kiln/internal/config"
	"kiln/internal/lambda"
	"kiln/internal/sandbox"
	"kiln/internal/sandbox/linux"
	"kiln/internal/sandbox/process"
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

// firstProcesses is how many first processes of linux sandboxes wait ready, about 1.5 MB
// each: starting one is most of what making a sandbox costs.
const firstProcesses = 2

// Driver makes the driver that the configuration asks for, and removes what an
// earlier run left. With driver = auto it is linux where that works; else reason
// says why it does not.
func Driver(ctx context.Context, c config.Config, dir string, log *slog.Logger) (driver sandbox.Driver, reason string, err error) {
	if c.Driver == "gvisor" || len(c.Accounts) > 0 {
		return nil, "", errors.New("driver gvisor and drivers of single accounts are not built yet: use driver = linux")
	}
	if c.Driver != "process" {
		l, err := linux.New(linux.Config{
			Dir: filepath.Join(dir, "linux"), Network: c.Network, Log: log,
			Spares: firstProcesses, SpareTmpBytes: lambda.DefaultEphemeralStorage << 20,
		})
		if err == nil {
			if err = errors.Join(l.Sweep(ctx), l.Probe(ctx)); err == nil {
				return l, "", nil
			}
			err = errors.Join(err, l.Close())
		}
		if c.Driver == "linux" {
			return nil, "", fmt.Errorf("driver linux cannot be used here: %w", err)
		}
		reason = err.Error()
	}
	p, err := process.New(process.Config{Dir: filepath.Join(dir, "process"), Log: log})
	if err != nil {
		return nil, "", fmt.Errorf("driver process cannot be used here: %w", err)
	}
	if err := p.Sweep(ctx); err != nil {
		return nil, "", errors.Join(err, p.Close())
	}
	return p, reason, nil
}
