package operator

import (
	"context"
	"errors"
	"io"
	"net/http"

	"kiln/internal/aws/lambdaapi"
	"kiln/internal/state"
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
	case !began && errors.Is(err, state.ErrFull):
		d.Log.Warn("no backup is made on a full disk", "error", err)
		fault := &lambdaapi.Fault{Code: "ServiceException", Status: http.StatusInsufficientStorage, Message: "Kiln's disk has not enough free space for a copy of the logs, which a backup needs. Make room, or lower free_space_floor."}
		c.over(fault)
		lambdaapi.WriteFault(w, fault)
	case !began:
		c.refuse(w, r, err)
	default:
		c.over(d.fault(r, err))
	}
}
