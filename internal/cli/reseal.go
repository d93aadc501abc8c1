package cli

import (
	"fmt"
	"path/filepath"
	"strings"

	"kiln/internal/daemon"
	"kiln/internal/state/datadir"
)

// reseal works on the files themselves: a daemon that has lost its key cannot start.
type reseal struct {
	settings
	OldMasterKeyFile       string `placeholder:"FILE" help:"Where the key is that secrets are sealed under now, unless it is the data directory's own."`
	OldMasterKeyCredential string `placeholder:"NAME" help:"The same, as systemd's credential."`
	OldMasterKeyCommand    string `placeholder:"PROGRAM,ARGS" help:"The same, as a program that prints it."`
}

func (r reseal) Run(s *streams) error {
	c, err := r.load(s.getenv)
	if err != nil {
		return err
	}
	from := datadir.MasterKey{File: r.OldMasterKeyFile, Credential: r.OldMasterKeyCredential}
	if r.OldMasterKeyCommand != "" {
		from.Command = strings.Split(r.OldMasterKeyCommand, ",")
	}
	to := daemon.MasterKey(c)
	if err := datadir.Reseal(c.Data, from, to); err != nil {
		return err
	}
	fmt.Fprintf(s.out, "The secrets in %s are sealed under %s.\n", c.Data, to)
	if old, _ := filepath.Glob(filepath.Join(c.Data, "snapshots", "*", "master.key")); len(old) > 0 && !to.Own() {
		fmt.Fprintf(s.out, "An earlier key is still in %s, with the snapshot that an upgrade made; remove that folder when you no longer need it.\n", filepath.Dir(old[0]))
	}
	return nil
}
