package daemon

import (
	"context"
	"log/slog"
	"path/filepath"

	"kiln/internal/bootstrap"
	"kiln/internal/config"
	"kiln/internal/front/certificate"
	"kiln/internal/front/operator"
	"kiln/internal/state/datadir"
)

// Findings are what `kiln doctor` shows of a machine.
type Findings struct {
	Driver   string   `json:"driver"`
	Isolates bool     `json:"isolates"`
	Summary  string   `json:"summary"`
	Reason   string   `json:"linux_unavailable,omitempty"` // why not linux, where that was wanted
	Missing  []string `json:"missing,omitempty"`
	// MasterKey is where it comes from; it is not read.
	MasterKey string             `json:"master_key"`
	TLS       string             `json:"tls"` // what the one port shows; "" for plain HTTP
	Runtimes  []operator.Runtime `json:"runtimes"`
	Problems  []string           `json:"problems,omitempty"`
}

// Examine looks at this machine as Run would, in a folder of its own.
func Examine(ctx context.Context, c config.Config, dir string) (Findings, error) {
	log := slog.New(slog.DiscardHandler)
	driver, reason, err := Driver(ctx, c, filepath.Join(dir, "sandboxes"), log)
	if err != nil {
		return Findings{}, err
	}
	defer driver.Close()
	description := driver.Describe()
	f := Findings{Driver: driver.Name(), Isolates: description.Isolates, Summary: description.Summary, Reason: reason, Missing: description.Missing, MasterKey: MasterKey(c).String()}
	switch {
	case c.TLSCertFile != "":
		f.TLS = c.TLSCertFile
		if _, err := certificate.OpenFiles(c.TLSCertFile, c.TLSKeyFile, log); err != nil {
			f.Problems = append(f.Problems, err.Error())
		}
	case c.TLS != "":
		f.TLS = c.TLS
	}
	additions, err := bootstrap.OpenAdditions(datadir.Runtimes(c.Data))
	if err != nil { // another user's, perhaps
		f.Problems = append(f.Problems, err.Error())
	}
	list, err := Catalog(c, driver, additions, nil, filepath.Join(dir, "clients"), log).List(ctx)
	if err != nil {
		return f, err
	}
	for _, e := range list.Entries {
		f.Runtimes = append(f.Runtimes, operator.RuntimeOf(e))
	}
	for _, p := range list.Problems {
		f.Problems = append(f.Problems, p.Program+": "+p.Reason)
	}
	return f, nil
}
