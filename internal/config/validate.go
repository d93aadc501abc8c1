package config

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// minInflight holds one event and one answer of 6 MiB, in bytes.
	minInflight = 16 << 20
	// minMemory is what a function of the smallest size may need, in bytes.
	minMemory = 128 << 20
	// minLogs is what a log group needs to be of use, in bytes.
	minLogs = 1 << 20
	// minEvents holds one asynchronous event and what is said of it, in bytes.
	minEvents = 2 << 20
	// maxDeliveries bounds what the queue hands out at once.
	maxDeliveries = 10_000
	// maxConcurrency is far above what a machine can run, and keeps sums in range.
	maxConcurrency = 1_000_000
)

var (
	accountPattern   = regexp.MustCompile(`^\d{12}$`)
	regionPattern    = regexp.MustCompile(`^[a-z]{2}(-gov|-iso[a-z]?)?-[a-z]+-\d$`)
	accessKeyPattern = regexp.MustCompile(`^\w{3,128}$`)
	hostPattern      = regexp.MustCompile(`^(\*\.)?[a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?$`)
	servicePattern   = regexp.MustCompile(`^[a-z0-9-]+$`)
	actionPattern    = regexp.MustCompile(`^[A-Z][A-Za-z0-9]*\*?$`)
)

// Addresses returns what to listen on, as host:port. "localhost" gives both
// loopback addresses, of which one may be missing on the machine.
func (c Config) Addresses() ([]string, error) { return addresses(c.Listen) }

// AdminAddresses is Addresses of AdminListen; none where it is empty.
func (c Config) AdminAddresses() ([]string, error) {
	if c.AdminListen == "" {
		return nil, nil
	}
	return addresses(c.AdminListen)
}

func addresses(listen string) ([]string, error) {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return nil, fmt.Errorf("%q is not host:port, such as localhost:%s", listen, DefaultPort)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil {
		return nil, fmt.Errorf("%q is not a port; use a number from 1 to 65535, or 0 for any free one", port)
	} else if host == "localhost" && n == 0 {
		// Two free ports would not be the same.
		return []string{"127.0.0.1:0"}, nil
	}
	if host == "localhost" {
		return []string{net.JoinHostPort("127.0.0.1", port), net.JoinHostPort("::1", port)}, nil
	}
	if host != "" {
		if _, err := netip.ParseAddr(host); err != nil {
			return nil, fmt.Errorf("%q is not an IP address; use localhost, an address of this machine, or nothing for all of them", host)
		}
	}
	return []string{listen}, nil
}

// Loopback tells whether only this machine can reach Listen.
func (c Config) Loopback() bool { return Loopback(c.Listen) }

// Loopback tells whether only this machine can reach an address.
func Loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// Validate returns every problem at once, each with what would fix it and where
// the value came from.
func (c Config) Validate() error {
	var problems []error
	bad := func(key, format string, args ...any) {
		from := ""
		if origin := c.Origins[key]; origin != "" {
			from = " (from " + origin + ")"
		}
		problems = append(problems, fmt.Errorf("%s%s: %s", key, from, fmt.Sprintf(format, args...)))
	}
	oneOf := func(key, value string, choices ...string) {
		if !slices.Contains(choices, value) {
			bad(key, "%q is none of %s", value, strings.Join(choices, ", "))
		}
	}

	if _, err := c.Addresses(); err != nil {
		bad("listen", "%v", err)
	}
	if c.AdminListen != "" {
		if _, err := addresses(c.AdminListen); err != nil {
			bad("admin_listen", "%v", err)
		} else if _, port, _ := net.SplitHostPort(c.AdminListen); c.AdminListen == c.Listen && port != "0" {
			bad("admin_listen", "%s is the address of listen; use another port", c.AdminListen)
		}
	}
	switch {
	case c.TLS != "" && c.TLS != "self-signed":
		bad("tls", "%q is not self-signed; for a certificate of your own leave it out and set tls_cert_file and tls_key_file", c.TLS)
	case c.TLS != "" && (c.TLSCertFile != "" || c.TLSKeyFile != ""):
		bad("tls", "self-signed needs no tls_cert_file and tls_key_file; leave one or the other out")
	case c.TLSCertFile != "" && c.TLSKeyFile == "":
		bad("tls_cert_file", "its key is missing: set tls_key_file")
	case c.TLSCertFile == "" && c.TLSKeyFile != "":
		bad("tls_key_file", "its certificate is missing: set tls_cert_file")
	}
	if c.Data == "" {
		bad("data", "it is empty; name a folder, such as kiln-data")
	}
	if !accountPattern.MatchString(c.Account) {
		bad("account", "%q is not twelve digits, such as 000000000000", c.Account)
	}
	if !regionPattern.MatchString(c.Region) {
		bad("region", "%q does not look like a region, such as us-east-1", c.Region)
	}
	for _, host := range c.Hosts {
		if !hostPattern.MatchString(host) {
			bad("hosts", "%q is not a host name without port, such as kiln.example.com or *.lambda.example.com", host)
		}
	}
	switch {
	case c.AccessKey != "" && !accessKeyPattern.MatchString(c.AccessKey):
		bad("access_key", "use 3 to 128 letters, digits and underscores, such as AKIAEXAMPLE")
	case c.AccessKey != "" && c.SecretKeyFile == "":
		bad("access_key", "its secret is missing: put it into a file and name that in secret_key_file")
	}
	if c.SecretKeyFile != "" {
		if c.AccessKey == "" {
			bad("secret_key_file", "there is no access_key that the secret belongs to; set it")
		}
		if _, err := c.Secret(); err != nil {
			bad("secret_key_file", "%v", err)
		}
	}

	sources := 0
	for _, given := range []bool{c.MasterKeyFile != "", c.MasterKeyCredential != "", len(c.MasterKeyCommand) > 0} {
		if given {
			sources++
		}
	}
	if sources > 1 {
		bad("master_key_file", "there is one master key: set only one of master_key_file, master_key_credential and master_key_command")
	}
	if strings.ContainsAny(c.MasterKeyCredential, "/\\") || c.MasterKeyCredential == "." || c.MasterKeyCredential == ".." {
		bad("master_key_credential", "%q is a path; give the name that LoadCredential= has before its colon", c.MasterKeyCredential)
	}
	if len(c.MasterKeyCommand) > 0 && c.MasterKeyCommand[0] == "" {
		bad("master_key_command", "its program is empty")
	}

	oneOf("driver", c.Driver, "auto", "linux", "gvisor", "process")
	if c.Runsc == "" {
		bad("runsc", "it is empty; name the program, such as runsc or /usr/local/bin/runsc")
	}
	for _, id := range slices.Sorted(maps.Keys(c.Accounts)) {
		driver, network := c.Accounts[id].Driver, c.Accounts[id].Network
		switch {
		case !accountPattern.MatchString(id):
			bad("accounts", "%q is not twelve digits, such as 123456789012", id)
		case network != "" && network != "none" && network != "nat" && network != "host":
			bad("accounts", "the network %q of %s is none of none, nat, host", network, id)
		case network != "" && network != "host" && c.Driver == "process":
			bad("accounts", "the process driver cannot keep the functions of %s from the network; leave its network out", id)
		case driver != "" && strength(driver) == 0:
			bad("accounts", "the driver %q of %s is none of linux, gvisor, process", driver, id)
		case driver != "" && Weaker(driver, c.Driver):
			bad("accounts", "the driver %s of %s keeps functions apart less than driver = %q does for all; choose the same or a stronger one (process, linux, gvisor), or leave it out", driver, id, c.Driver)
		}
	}
	oneOf("network", c.Network, "auto", "none", "nat", "host")
	if c.Driver == "process" && (c.Network == "none" || c.Network == "nat") {
		bad("network", "the process driver cannot keep functions from the network; set driver = \"linux\" or leave network out")
	}
	if prefix, err := netip.ParsePrefix(c.NetworkRange); err != nil || !prefix.Addr().Is4() || prefix.Bits() < 8 || prefix.Bits() > 24 || prefix != prefix.Masked() {
		bad("network_range", "%q is not an IPv4 prefix of 8 to 24 bits, such as 198.18.0.0/15", c.NetworkRange)
	}
	if u, err := url.Parse(c.Proxy); c.Proxy != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
		bad("proxy", "it is not a URL such as http://10.0.0.3:3128")
	}
	if c.CACertificates != "" && !filepath.IsAbs(c.CACertificates) {
		bad("ca_certificates", "%q is not an absolute path, such as /etc/kiln/authorities.pem", c.CACertificates)
	}
	if c.CACertificates != "" && c.Driver == "process" {
		bad("ca_certificates", "the process driver has no files of its own to show; set driver = \"linux\" or leave it out")
	}
	if c.Driver == "process" && c.CPULimit {
		bad("cpu_limit", "the process driver limits nothing; set driver = \"linux\" or leave cpu_limit out")
	}
	for _, path := range c.RuntimePaths {
		if path == "" {
			bad("runtime_paths", "one path is empty; remove it")
		}
	}

	for _, path := range c.ImageFolders {
		if !filepath.IsAbs(path) {
			bad("image_folders", "%q is not an absolute path, such as /srv/images", path)
		}
	}

	if c.Concurrency < 1 || c.Concurrency > maxConcurrency {
		bad("concurrency", "%d is not between 1 and %d", c.Concurrency, maxConcurrency)
	}
	if c.AsyncRetryDelay < 0 || time.Duration(c.AsyncRetryDelay) > time.Hour {
		bad("async_retry_delay", "%s is not between 0s and 1h", time.Duration(c.AsyncRetryDelay))
	}
	if c.AsyncDeliveries < 1 || c.AsyncDeliveries > maxDeliveries {
		bad("async_deliveries", "%d is not between 1 and %d", c.AsyncDeliveries, maxDeliveries)
	}
	for _, most := range []struct {
		key   string
		value int64
		least int64
	}{
		{"async_function_events", int64(c.AsyncFunctionEvents), 1}, {"async_account_events", int64(c.AsyncAccountEvents), 1},
		{"async_function_bytes", int64(c.AsyncFunctionBytes), minEvents}, {"async_account_bytes", int64(c.AsyncAccountBytes), minEvents},
	} {
		if most.value < most.least {
			bad(most.key, "%d is less than %d, which one event may need", most.value, most.least)
		}
	}
	if c.ScalingRate < 1 || c.ScalingRate > maxConcurrency {
		bad("scaling_rate", "%d is not between 1 and %d", c.ScalingRate, maxConcurrency)
	}
	if c.MemoryBudget != 0 && c.MemoryBudget < minMemory {
		bad("memory_budget", "%s is less than %s, which one environment may need; 0 takes a share of the machine's memory", c.MemoryBudget, Size(minMemory))
	}
	if c.IdleTimeout <= 0 {
		bad("idle_timeout", "%s is not above zero; use at least a second, such as 10m", c.IdleTimeout)
	}
	if c.ShutdownTimeout < 0 || c.ShutdownTimeout > Duration(time.Hour) {
		bad("shutdown_timeout", "%s is not between 0s and 1h", c.ShutdownTimeout)
	}
	atLeast := func(key string, value, least Size) {
		if value < least {
			bad(key, "%s is less than %s, the least that works", value, least)
		}
	}
	atLeast("spare_bytes", c.SpareBytes, 0)
	atLeast("max_inflight_bytes", c.MaxInflightBytes, minInflight)
	atLeast("artifact_cache_bytes", c.ArtifactCacheBytes, 0)
	atLeast("code_storage_bytes", c.CodeStorageBytes, 0)
	atLeast("free_space_floor", c.FreeSpaceFloor, 0)
	atLeast("logs_group_bytes", c.LogsGroupBytes, minLogs)
	if c.LogsTotalBytes < c.LogsGroupBytes {
		bad("logs_total_bytes", "%s is less than logs_group_bytes, %s; raise it, or lower the other", c.LogsTotalBytes, c.LogsGroupBytes)
	}
	oneOf("log_level", c.LogLevel, "debug", "info", "warn", "error")
	oneOf("log_format", c.LogFormat, "text", "json")

	checkURL := func(key, of, endpoint string) {
		u, err := url.Parse(endpoint)
		switch {
		case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
			bad(key, "the URL of %s is not one such as http://127.0.0.1:9324", of)
		case u.User != nil:
			bad(key, "the URL of %s holds a password; requests carry their own signature, so remove it", of)
		case u.RawQuery != "" || u.Fragment != "":
			bad(key, "the URL of %s ends with ? or #; use only the scheme, the host and a path", of)
		}
	}
	for _, service := range slices.Sorted(maps.Keys(c.Endpoints)) {
		if service != OtherServices && !servicePattern.MatchString(service) {
			bad("endpoints", "%q is not the name of a service as it is in signatures, such as sqs", service)
		} else if slices.Contains(served, service) {
			bad("endpoints", "Kiln serves %s itself; remove it", service)
		}
		checkURL("endpoints", service, c.Endpoints[service])
	}
	for _, source := range slices.Sorted(maps.Keys(c.SourceEndpoints)) {
		if !strings.HasPrefix(source, "arn:") {
			bad("source_endpoints", "%q is not the ARN of an event source, such as arn:aws:sqs:us-east-1:123456789012:orders", source)
		}
		checkURL("source_endpoints", source, c.SourceEndpoints[source])
	}
	for _, service := range slices.Sorted(maps.Keys(c.Resign)) {
		actions := strings.Fields(c.Resign[service])
		switch {
		case c.Endpoint(service) == "":
			bad("resign", "%[1]s has no endpoint; set endpoints.%[1]s", service)
		case service == "s3":
			bad("resign", "requests to s3 do not name their action, so that they cannot be signed anew")
		case len(actions) == 0:
			bad("resign", "%s has no actions; name them, such as SendMessage, separated by spaces", service)
		}
		for _, a := range actions {
			if !actionPattern.MatchString(a) {
				bad("resign", "%q of %s is neither an action, such as SendMessage, nor the beginning of some and *", a, service)
			}
		}
	}
	return errors.Join(problems...)
}

// served are the services that Kiln has itself, and no endpoint can have.
var served = []string{"lambda", "logs", "iam", "sts"}

// Served tells whether Kiln serves the service itself, whatever is configured.
func Served(service string) bool { return slices.Contains(served, service) }

// drivers are those that can be named, the weakest first.
var drivers = []string{"process", "linux", "gvisor"}

// strength is 0 for what is no driver, as auto is none.
func strength(driver string) int { return slices.Index(drivers, driver) + 1 }

// Weaker reports whether a driver keeps functions apart less than another does.
func Weaker(driver, than string) bool { return strength(driver) < strength(than) }
