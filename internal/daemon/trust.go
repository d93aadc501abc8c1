package daemon

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"kiln/internal/config"
)

// Where functions find the authorities of ca_certificates, alone and with the host's.
const (
	ownAuthorities = "/etc/ssl/kiln/authorities.pem"
	allAuthorities = "/etc/ssl/kiln/bundle.pem"
)

// hostBundles are where Linux distributions keep the authorities that the host trusts.
var hostBundles = []string{"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"}

// authorities are the files with what functions trust; none where nothing is configured.
func authorities(c config.Config) (files map[string][]byte, err error) {
	if c.CACertificates == "" {
		return nil, nil
	}
	own, err := os.ReadFile(c.CACertificates)
	if err != nil {
		return nil, fmt.Errorf("read ca_certificates: %w", err)
	}
	if err := checkAuthorities(own); err != nil {
		return nil, fmt.Errorf("ca_certificates: %s %w", c.CACertificates, err)
	}
	var all []byte
	for _, path := range hostBundles {
		if all, err = os.ReadFile(path); err == nil {
			break
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("read the authorities that this machine trusts: %w", err)
		}
	}
	all = append(append(all, '\n'), own...)
	return map[string][]byte{ownAuthorities: own, allAuthorities: all}, nil
}

// trust are the variables by which languages and SDKs find the authorities.
func trust(c config.Config) map[string]string {
	if c.CACertificates == "" {
		return nil
	}
	variables := map[string]string{"NODE_EXTRA_CA_CERTS": ownAuthorities}
	for _, name := range []string{"AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"} {
		variables[name] = allAuthorities
	}
	return variables
}

// checkAuthorities wants certificates and nothing else: a key would be shown to every function.
func checkAuthorities(text []byte) error {
	found := false
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return fmt.Errorf("has a %s, which functions would see; leave only certificates in it", block.Type)
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return fmt.Errorf("has a certificate that cannot be read: %w", err)
		}
		found = true
	}
	if !found {
		return errors.New("has no certificate in PEM form (-----BEGIN CERTIFICATE-----)")
	}
	return nil
}

// proxy are the variables by which programs find their proxy.
func proxy(c config.Config) map[string]string {
	if c.Proxy == "" {
		return nil
	}
	without := strings.Join(append([]string{"localhost", "127.0.0.1"}, c.NoProxy...), ",")
	variables := map[string]string{}
	for name, value := range map[string]string{"HTTP_PROXY": c.Proxy, "HTTPS_PROXY": c.Proxy, "NO_PROXY": without} {
		variables[name], variables[strings.ToLower(name)] = value, value
	}
	return variables
}
