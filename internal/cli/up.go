package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"

	"kiln/internal/config"
	"kiln/internal/daemon"
)

type up struct{ settings }

func (u up) Run(ctx context.Context, s *streams) error {
	c, err := u.load(s.getenv)
	if err != nil {
		return err
	}
	log := newLog(c, s.err)
	return daemon.New(c, programVersion(), log).Run(ctx, func(r daemon.Ready) { announce(s.out, r) })
}

// announce tells whoever started Kiln, and whatever waits for it, that it serves.
func announce(w io.Writer, r daemon.Ready) {
	fmt.Fprintf(w, "Kiln is ready at %s (driver %s, %d ms)\n", strings.Join(r.Addresses, " and "), r.Driver, r.Took.Milliseconds())
	fmt.Fprintf(w, "  %s\n", r.Isolation.Summary)
	for _, m := range r.Isolation.Missing {
		fmt.Fprintf(w, "  missing: %s\n", m)
	}
	for _, account := range slices.Sorted(maps.Keys(r.Accounts)) {
		fmt.Fprintf(w, "  account %s: driver %s\n", account, r.Accounts[account])
	}
	if r.Admin != "" {
		fmt.Fprintf(w, "  Health and metrics are at %s.\n", r.Admin)
	}
	if r.Authority != "" {
		fmt.Fprintf(w, "  Its certificate is self-signed. Trust it with: export AWS_CA_BUNDLE=%[1]s NODE_EXTRA_CA_CERTS=%[1]s\n", r.Authority)
	}
	fmt.Fprintf(w, "  Secrets are sealed under %s.\n", r.MasterKey)
	if !r.Keyed {
		fmt.Fprintln(w, "  Any access key is taken, from this machine only. Use it with: export AWS_ENDPOINT_URL="+r.Addresses[0])
	}
}

func newLog(c config.Config, w io.Writer) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.LogLevel)) // Validate accepted it
	options := &slog.HandlerOptions{Level: level}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

type doctor struct {
	settings
	JSON bool `help:"Print JSON."`
}

func (d doctor) Run(ctx context.Context, s *streams) error {
	c, err := d.load(s.getenv)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "kiln-doctor-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	found, err := daemon.Examine(ctx, c, dir)
	if err != nil {
		return err
	}
	if d.JSON {
		return writeJSON(s.out, found)
	}
	fmt.Fprintf(s.out, "Driver: %s\n  %s\n", found.Driver, found.Summary)
	if found.Reason != "" {
		fmt.Fprintf(s.out, "  linux cannot be used: %s\n", found.Reason)
	}
	for _, m := range found.Missing {
		fmt.Fprintf(s.out, "  missing: %s\n", m)
	}
	fmt.Fprintf(s.out, "Master key: %s\n", found.MasterKey)
	fmt.Fprintf(s.out, "TLS: %s\n", first(found.TLS, "none, plain HTTP"))
	fmt.Fprintln(s.out, "Runtimes:")
	for _, r := range found.Runtimes {
		text := servedBy(r)
		if text == ownExecutable {
			text = "ready: functions bring their own executable"
		}
		fmt.Fprintf(s.out, "  %-16s %s\n", r.ID, text)
	}
	for _, p := range found.Problems {
		fmt.Fprintf(s.out, "  not usable: %s\n", p)
	}
	return nil
}
