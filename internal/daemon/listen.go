package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"kiln/internal/config"
	"kiln/internal/front"
	"kiln/internal/front/certificate"
	"kiln/internal/front/operator"
	"kiln/internal/lambda"
	"kiln/internal/state/datadir"
)

// ports are what Kiln listens on.
type ports struct {
	main, admin []net.Listener
	urls        []string // of main
	adminURL    string   // "" without admin
	authority   string   // file that clients must trust; "" where they do, or speak plain HTTP
	servers     []*http.Server
}

// listen opens the ports. What it has opened when it fails is closed.
func (d *Daemon) listen(ctx context.Context, dir *datadir.Dir) (_ *ports, err error) {
	p := &ports{}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	secure, err := d.secure(dir, p)
	if err != nil {
		return nil, err
	}
	addresses, err := d.config.Addresses()
	if err != nil {
		return nil, err
	}
	if p.main, err = open(ctx, addresses, d.config.Loopback(), "listen"); err != nil {
		return nil, err
	}
	for i, l := range p.main {
		scheme := "http://"
		if secure != nil {
			p.main[i], scheme = tls.NewListener(l, secure), "https://"
		}
		p.urls = append(p.urls, scheme+l.Addr().String())
	}
	if addresses, err = d.config.AdminAddresses(); err != nil || len(addresses) == 0 {
		return p, err
	}
	local := config.Loopback(d.config.AdminListen)
	if p.admin, err = open(ctx, addresses, local, "admin-listen"); err != nil {
		return nil, err
	}
	p.adminURL = "http://" + p.admin[0].Addr().String()
	if !local {
		d.log.Warn("whoever reaches admin_listen can read health and metrics without a key", "address", d.config.AdminListen)
		if secure != nil {
			p.adminURL = "https://" + p.admin[0].Addr().String()
			for i, l := range p.admin {
				p.admin[i] = tls.NewListener(l, secure)
			}
		}
	}
	return p, nil
}

// secure is the TLS of the one port; nil for none.
func (d *Daemon) secure(dir *datadir.Dir, p *ports) (*tls.Config, error) {
	switch {
	case d.config.TLSCertFile != "":
		files, err := certificate.OpenFiles(d.config.TLSCertFile, d.config.TLSKeyFile, d.log)
		if err != nil {
			return nil, err
		}
		return certificate.Config(files.Get), nil
	case d.config.TLS != "":
		hosts := slices.Clone(d.config.Hosts)
		for _, name := range append([]string{"localhost"}, d.config.Hosts...) {
			if net.ParseIP(name) == nil && !strings.HasPrefix(name, "*") { // no name is below those
				hosts = append(hosts, front.FunctionURLHost("*", lambda.Region(d.config.Region), name))
			}
		}
		if host, _, err := net.SplitHostPort(d.config.Listen); err == nil {
			if ip := net.ParseIP(host); ip != nil && !ip.IsUnspecified() {
				hosts = append(hosts, host)
			}
		}
		signed, err := certificate.OpenSelfSigned(filepath.Join(dir.Path(), "tls"), hosts)
		if err != nil {
			return nil, err
		}
		p.authority = signed.Authority()
		return certificate.Config(signed.Get), nil
	}
	return nil, nil
}

// watched says where the operator's door shows health and metrics.
func (d *Daemon) watched(p *ports) string {
	switch {
	case p.adminURL != "":
		return p.adminURL
	case d.config.Loopback():
		return operator.Anybody
	default:
		return operator.Signed
	}
}

// serve serves listeners until the ports are shut down.
func (p *ports) serve(work *errgroup.Group, listeners []net.Listener, server *http.Server) {
	p.servers = append(p.servers, server)
	for _, l := range listeners {
		work.Go(func() error {
			if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serve %s: %w", l.Addr(), err)
			}
			return nil
		})
	}
}

// shutdown waits for the requests under way.
func (p *ports) shutdown(ctx context.Context) (err error) {
	for _, s := range p.servers {
		err = errors.Join(err, s.Shutdown(ctx))
	}
	return err
}

// close drops what shutdown has left, and listeners that were never served.
func (p *ports) close() {
	for _, s := range p.servers {
		_ = s.Close()
	}
	for _, l := range slices.Concat(p.main, p.admin) {
		_ = l.Close() // an error says that it is closed
	}
}

// open listens on addresses. Of the two loopback ones, one may be missing.
func open(ctx context.Context, addresses []string, loopback bool, flag string) (list []net.Listener, err error) {
	defer func() {
		if err != nil {
			for _, l := range list {
				_ = l.Close() // the first error says more
			}
		}
	}()
	var lc net.ListenConfig
	for i, a := range addresses {
		l, err := lc.Listen(ctx, "tcp", a)
		if err != nil {
			if i > 0 && loopback {
				continue // a machine without IPv6
			}
			return list, fmt.Errorf("listen on %s: %w (is another Kiln or emulator running? use --%s for another port)", a, err, flag)
		}
		list = append(list, l)
	}
	return list, nil
}
