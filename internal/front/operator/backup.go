package operator

import (
	"context"
	"io"
	"net/http"
)

// Backups makes backups.
type Backups interface {
	// Backup calls begin once, right before it writes: an error that comes
	// without is the answer, a later one is in what was written.
	Backup(ctx context.Context, begin func() io.Writer) error
}

// backup answers with a backup. It holds what every account has, so that it is
// for those who run Kiln.
func (d *door) backup(w http.ResponseWriter, r *http.Request) {
	c, err := d.begin(w, r, "Backup", true, nil)
	if err == nil {
		err = c.may(c.machine("backup"))
	}
	if err != nil {
		c.refuse(w, r, err)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(d.Stopping, cancel)()
	began := false
	err = d.Backups.Backup(ctx, func() io.Writer {
		began = true
		w.Header().Set("Content-Type", "application/x-tar")
		return w
	})
	switch {
	case err == nil:
		c.over(nil)
	case !began:
		c.refuse(w, r, err)
	default:
		c.over(d.fault(r, err))
	}
}
