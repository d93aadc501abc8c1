package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"kiln/internal/front"
	"kiln/internal/telemetry/logfile"
)

// audit opens the audit log: the daemon's own, or a file. reopen goes on in a new
// file whenever the process gets SIGHUP, until its context ends.
func (d *Daemon) audit(open *cleanup) (a *front.Audit, reopen func(context.Context), err error) {
	if d.config.AuditLog == "" {
		return front.NewAudit(d.log), func(context.Context) {}, nil
	}
	file, err := logfile.Open(d.config.AuditLog)
	if err != nil {
		return nil, nil, fmt.Errorf("audit_log: %w", err)
	}
	open.add("the audit log", file.Close)
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	reopen = func(ctx context.Context) {
		defer signal.Stop(hangups)
		for {
			select {
			case <-ctx.Done():
				return
			case <-hangups:
				if err := file.Reopen(); err != nil {
					d.log.Error("the audit log goes on in the file it had", "error", err)
				}
			}
		}
	}
	return front.NewAudit(slog.New(slog.NewJSONHandler(told{file, d.log}, nil))), reopen, nil
}

// told is a file whose failures the daemon's own log tells of.
type told struct {
	*logfile.File
	log *slog.Logger
}

func (t told) Write(line []byte) (int, error) {
	n, err := t.File.Write(line)
	if err != nil {
		t.log.Error("a line of the audit log is lost", "error", err)
	}
	return n, err
}
