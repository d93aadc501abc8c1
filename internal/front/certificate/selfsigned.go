package certificate

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const (
	// authorityLife is how long clients may trust what they were told to, and
	// authorityMargin what must be left of it at a start.
	authorityLife   = 10 * 365 * 24 * time.Hour
	authorityMargin = 365 * 24 * time.Hour
	// leafLife is short, because nobody keeps the leaf; it is made anew with leafMargin left.
	leafLife   = 30 * 24 * time.Hour
	leafMargin = 10 * 24 * time.Hour
	// backdate is for clients whose clocks are behind.
	backdate = time.Hour
)

// SelfSigned signs its own certificates, with an authority that is kept on the
// disk, so that clients need to be told of it once. It is safe for concurrent use.
type SelfSigned struct {
	path  string
	hosts []string
	ca    *x509.Certificate
	key   *ecdsa.PrivateKey

	mu      sync.Mutex
	current *tls.Certificate // guarded by mu
}

// OpenSelfSigned reads the authority in a folder, or makes one. Its certificates
// are for loopback names and for hosts: names, *.names and addresses.
func OpenSelfSigned(dir string, hosts []string) (*SelfSigned, error) {
	s := &SelfSigned{path: filepath.Join(dir, "ca.pem"), hosts: hosts}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make a folder for the self-signed certificate: %w", err)
	}
	err := s.read()
	if errors.Is(err, fs.ErrNotExist) || err == nil && time.Until(s.ca.NotAfter) < authorityMargin {
		err = s.create()
	}
	if err != nil {
		return nil, fmt.Errorf("self-signed certificate: %w", err)
	}
	_, err = s.Get(nil)
	return s, err
}

// Authority is the file that clients must be told to trust.
func (s *SelfSigned) Authority() string { return s.path }

// Get is for tls.Config.GetCertificate.
func (s *SelfSigned) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current != nil && time.Until(s.current.Leaf.NotAfter) > leafMargin {
		return s.current, nil
	}
	leaf, err := s.sign()
	if err != nil {
		return nil, err
	}
	s.current = leaf
	return leaf, nil
}

// read loads the authority: certificate and key in one file for its owner, so that
// they are replaced together, and the certificate alone for the clients.
func (s *SelfSigned) read() error {
	pair, err := tls.LoadX509KeyPair(s.secret(), s.secret())
	if err != nil {
		return err
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return fmt.Errorf("%s has another kind of key than Kiln makes; remove the file to have it made anew", s.secret())
	}
	s.ca, s.key = pair.Leaf, key
	return s.publish()
}

func (s *SelfSigned) secret() string { return strings.TrimSuffix(s.path, ".pem") + ".key" }

func (s *SelfSigned) publish() error {
	return replace(s.path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.ca.Raw}), 0o644)
}

func (s *SelfSigned) create() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "Kiln, for development"}, SerialNumber: serial(),
		NotBefore: time.Now().Add(-backdate), NotAfter: time.Now().Add(authorityLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	content := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})...)
	if err := replace(s.secret(), content, 0o600); err != nil {
		return err
	}
	return s.read()
}

func (s *SelfSigned) sign() (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "localhost"}, SerialNumber: serial(),
		NotBefore: time.Now().Add(-backdate), NotAfter: time.Now().Add(leafLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: []string{"localhost", "*.localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	for _, host := range s.hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, s.ca, key.Public(), s.key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
}

// serial is a number that no other certificate has.
func serial() *big.Int {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	return new(big.Int).SetBytes(b)
}

// replace writes a file whole or not at all.
func replace(name string, content []byte, mode os.FileMode) error {
	part := name + ".tmp"
	if err := os.WriteFile(part, content, mode); err != nil {
		return err
	}
	return os.Rename(part, name)
}
