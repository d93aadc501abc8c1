package linux

import (
	"fmt"
	"net"
	"os"
	"time"

	"kiln/internal/sandbox"
	"kiln/internal/sandbox/control"
	"kiln/internal/sandbox/egress"
	"kiln/internal/sandbox/first"
	"kiln/internal/sandbox/linux/inside"
	"kiln/internal/sandbox/pid1"
	"kiln/internal/sandbox/scratch"
)

// spareDelay is how long after a spare was taken the next is started: starting
// one costs some ms of a processor, which the function that begins now needs more.
const spareDelay = 100 * time.Millisecond

// firstProcess is an init that runs in its new namespaces, and waits for its setup.
type firstProcess struct {
	conn *net.UnixConn
	p    *os.Process
	tmp  *scratch.FileSystem // of a spare's; nil for none
	link *egress.Link        // of a spare's, where sandboxes have a way out
}

func (d *Driver) startFirst(st *first.Starter, network string) (*firstProcess, error) {
	conn, theirs, err := control.Pair()
	if err != nil {
		return nil, err
	}
	p, err := st.Start(d.cfg.Program, []string{pid1.Name, inside.Arg}, d.initAttr(theirs, network))
	_ = theirs.Close() // or its end would never be seen
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("start its first process: %w", err)
	}
	return &firstProcess{conn: conn, p: p}, nil
}

// startSpare starts one with a file system for /tmp beside it, and a way out where
// sandboxes have one.
func (d *Driver) startSpare(st *first.Starter) (*firstProcess, error) {
	f, err := d.startFirst(st, d.network.Mode)
	if err != nil {
		return nil, err
	}
	if d.scratch != nil && d.cfg.SpareTmpBytes > 0 {
		f.tmp, err = d.scratch.Make(d.cfg.SpareTmpBytes)
	}
	if err == nil && d.network.Mode == sandbox.NetworkNAT {
		f.link, err = d.network.Attach(f.p)
	}
	if err != nil {
		f.end()
		return nil, err
	}
	return f, nil
}

// end kills one that was not used.
func (f *firstProcess) end() {
	_ = f.conn.Close()
	_ = f.p.Kill()
	_, _ = f.p.Wait()
	f.tmp.Close()
	_ = f.link.Close() // what is left of it Driver.Close removes
}
