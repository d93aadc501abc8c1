package certificate_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"kiln/internal/front/certificate"
)

// write makes a certificate of that name in the two files.
func write(t *testing.T, cert, key, name string, until time.Time) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotBefore: until.Add(-48 * time.Hour), NotAfter: until}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	put(t, cert, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	put(t, key, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})))
}

func put(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestFilesAreTakenAnew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
		later := time.Now().Add(24 * time.Hour)
		var log bytes.Buffer
		write(t, cert, key, "first", later)
		files, err := certificate.OpenFiles(cert, key, slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		shows := func(what, name string, errors int) {
			t.Helper()
			time.Sleep(2 * time.Second) // of the test's own clock
			for range 2 {
				c, err := files.Get(nil)
				if err != nil || c.Leaf.Subject.CommonName != name {
					t.Errorf("%s: shows %v, %v, want %s", what, c.Leaf.Subject, err, name)
				}
				time.Sleep(2 * time.Second)
			}
			if got := strings.Count(log.String(), "level=ERROR"); got != errors {
				t.Errorf("%s: %d errors are logged, want %d:\n%s", what, got, errors, &log)
			}
		}
		shows("at first", "first", 0)
		write(t, cert, key, "the second", later)
		shows("replaced", "the second", 0)
		put(t, cert, "no certificate")
		shows("broken", "the second", 1)
		if err := os.Remove(key); err != nil {
			t.Fatal(err)
		}
		shows("gone", "the second", 2)
		write(t, cert, key, "a third", time.Now().Add(-time.Hour))
		shows("ended", "the second", 3)
		write(t, cert, key, "the fourth of them", later)
		shows("mended", "the fourth of them", 3)
	})
}

func TestFilesRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key, other := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "other.pem")
	write(t, other, key, "other", time.Now().Add(time.Hour))
	write(t, cert, key, "name", time.Now().Add(time.Hour))
	open := filepath.Join(dir, "open.pem")
	put(t, open, "")
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ cert, key, want string }{
		{filepath.Join(dir, "none"), key, "no such file"},
		{cert, open, "chmod 600"},
		{other, key, "private key does not match"},
		{key, key, "tls_cert_file"},
	} {
		if _, err := certificate.OpenFiles(c.cert, c.key, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s, %s: %v, want it to say %q", c.cert, c.key, err, c.want)
		}
	}
}

func TestSelfSigned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "tls")
		s, err := certificate.OpenSelfSigned(dir, []string{"kiln.example.com", "*.lambda.example.com", "10.1.2.3"})
		if err != nil {
			t.Fatal(err)
		}
		authority, err := os.ReadFile(s.Authority())
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(authority)
		trusted := func(name string) error {
			c, err := s.Get(nil)
			if err != nil {
				t.Fatal(err)
			}
			_, err = c.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots, CurrentTime: time.Now()})
			return err
		}
		for range 3 {
			for _, name := range []string{"localhost", "127.0.0.1", "::1", "kiln.example.com", "f.lambda.example.com", "10.1.2.3"} {
				if err := trusted(name); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			if trusted("example.com") == nil {
				t.Error("it is for any name")
			}
			time.Sleep(25 * 24 * time.Hour) // of the test's own clock: the leaf would end soon
			if c, _ := s.Get(nil); time.Until(c.Leaf.NotAfter) < 20*24*time.Hour {
				t.Error("it was not renewed")
			}
			if s, err = certificate.OpenSelfSigned(dir, []string{"kiln.example.com", "*.lambda.example.com", "10.1.2.3"}); err != nil {
				t.Fatal(err)
			}
		}
		if info, err := os.Stat(filepath.Join(dir, "ca.key")); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the authority's key: %v, %v", info, err)
		}
	})
}

func TestConfig(t *testing.T) {
	t.Parallel()
	s, err := certificate.OpenSelfSigned(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what   string
		client *tls.Config
		ok     bool
	}{
		{"TLS 1.3", &tls.Config{MinVersion: tls.VersionTLS13}, true},
		{"TLS 1.2", &tls.Config{MaxVersion: tls.VersionTLS12}, true},
		{"TLS 1.1", &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, false},
	} {
		a, b := net.Pipe()
		server := tls.Server(a, certificate.Config(s.Get))
		done := make(chan error, 1)
		go func() { err := server.Handshake(); a.Close(); done <- err }()
		c.client.InsecureSkipVerify = true
		err := tls.Client(b, c.client).Handshake()
		b.Close()
		if serr := <-done; (err == nil && serr == nil) != c.ok {
			t.Errorf("%s: %v, %v", c.what, err, serr)
		}
	}
}
