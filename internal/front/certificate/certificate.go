// Package certificate is what the one port shows of itself over TLS: a
// certificate from files, taken anew when they change, or one that Kiln signs
// itself, for development. It listens on nothing; the daemon package builds it and
// hands its Config to the listeners.
package certificate

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// lookInterval is how often, at most, the files are looked at.
const lookInterval = time.Second

// Config is how every listener speaks TLS with the certificate that get returns.
//
// HTTP/2 is left out. A client that stalls is found by the deadlines of its
// connection (see the gateway's pace), which there carries the requests of others
// too, and no client of AWS asks for it.
func Config(get func(*tls.ClientHelloInfo) (*tls.Certificate, error)) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, GetCertificate: get}
}

// Files is a certificate that lies in files. It is safe for concurrent use.
type Files struct {
	cert, key string
	log       *slog.Logger

	mu      sync.Mutex
	looked  time.Time // guarded by mu; when the files were looked at
	seen    [2]stamp  // guarded by mu; of the files that were last tried
	current *tls.Certificate
}

// stamp tells whether a file was changed. A file that was renamed into place may
// be older than the one before.
type stamp struct {
	modified time.Time
	size     int64
}

// OpenFiles reads the certificate, with the chain that leads to its issuer, and its key.
func OpenFiles(cert, key string, log *slog.Logger) (*Files, error) {
	f := &Files{cert: cert, key: key, log: log}
	seen, err := f.stamps()
	if err != nil {
		return nil, err
	}
	f.seen, f.looked = seen, time.Now()
	f.current, err = f.load()
	return f, err
}

// Get is for tls.Config.GetCertificate. Files that are broken, or half replaced,
// leave the certificate as it was.
func (f *Files) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.looked) < lookInterval {
		return f.current, nil
	}
	f.looked = time.Now()
	seen, err := f.stamps()
	if err == nil && seen == f.seen {
		return f.current, nil
	}
	var next *tls.Certificate
	if err == nil {
		next, err = f.load()
	}
	if err != nil {
		if seen != f.seen {
			f.log.Error("the changed TLS certificate cannot be used; the one before stays", "error", err)
		}
		f.seen = seen
		return f.current, nil
	}
	f.seen, f.current = seen, next
	f.log.Info("TLS certificate taken anew", "file", f.cert, "until", next.Leaf.NotAfter)
	return f.current, nil
}

func (f *Files) stamps() (list [2]stamp, err error) {
	for i, name := range []string{f.cert, f.key} {
		info, serr := os.Stat(name)
		if serr != nil {
			err = errors.Join(err, serr)
			continue
		}
		list[i] = stamp{info.ModTime(), info.Size()}
	}
	return list, err
}

func (f *Files) load() (*tls.Certificate, error) {
	info, err := os.Stat(f.key)
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&0o007 != 0 {
		return nil, fmt.Errorf("tls_key_file %s can be read by everybody (mode %04o): run chmod 600 on it", f.key, mode)
	}
	pair, err := tls.LoadX509KeyPair(f.cert, f.key)
	if err != nil {
		return nil, fmt.Errorf("tls_cert_file %s with tls_key_file %s: %w", f.cert, f.key, err)
	}
	if now := time.Now(); now.After(pair.Leaf.NotAfter) {
		return nil, fmt.Errorf("tls_cert_file %s: the certificate ended on %s", f.cert, pair.Leaf.NotAfter.Format(time.DateOnly))
	}
	return &pair, nil
}
