// Package config is what `kiln up` can be told: one Config, from kiln.toml, KILN_
// variables and flags, in that order of rising precedence. It checks what can be
// checked without touching the machine beyond the secret's file; it opens and
// starts nothing. The cli package loads it and applies its flags; the daemon
// package reads it.
package config

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// Config is everything that `kiln up` can be told. A field's key in kiln.toml is
// its toml tag, its variable KILN_ and the key in capitals; its help tag is what
// Write prints above it.
type Config struct {
	Listen  string   `toml:"listen" help:"Address of the one port. localhost means 127.0.0.1 and [::1], an empty host every address. An address that is not a loopback one needs access_key, or a key made by kiln keys create."`
	Data    string   `toml:"data" help:"Folder for everything that Kiln keeps; relative to where it is started."`
	Account string   `toml:"account" help:"Account id that functions belong to: twelve digits."`
	Region  string   `toml:"region" help:"Region of requests that name none."`
	Hosts   []string `toml:"hosts" help:"Host names besides loopback ones that requests may be for, without port; *.name allows everything below name. Others are refused, so that no web page can reach Kiln through a name of its own."`

	AdminListen string `toml:"admin_listen" help:"Address of a second listener for /metrics and /_kiln/health, which then leave the one port. Both are open to whoever reaches it. Empty: they are on the one port, and need a signature there unless it is a loopback address."`
	TLS         string `toml:"tls" help:"self-signed serves the one port over TLS with a certificate of Kiln's own, for development; AWS clients must be told to trust it."`
	TLSCertFile string `toml:"tls_cert_file" help:"PEM file with the certificate, and the chain to its issuer, that the one port is served over TLS with. Taken anew when it changes."`
	TLSKeyFile  string `toml:"tls_key_file" help:"PEM file with the key of tls_cert_file, not readable by everybody."`

	AccessKey     string `toml:"access_key" help:"Id of the root key: it may do anything in the account, and manage the keys of all. Empty: there is none; until kiln keys create makes the first key, any key is taken, which only a loopback address allows."`
	SecretKeyFile string `toml:"secret_key_file" help:"File with the secret of access_key, readable by its owner only. The secret itself is never part of this configuration."`

	MasterKeyFile       string   `toml:"master_key_file" help:"File with the key that secrets on the disk are sealed under: 64 hexadecimal digits (openssl rand -hex 32), readable by its owner only. Without this and the next two, a key in the data folder itself is used. To change it: kiln reseal."`
	MasterKeyCredential string   `toml:"master_key_credential" help:"Name of the systemd credential (LoadCredential=, LoadCredentialEncrypted=) with that key, in place of a file."`
	MasterKeyCommand    []string `toml:"master_key_command" help:"Program and arguments, run without a shell, that print that key, in place of a file. It has 30 seconds."`

	Driver         string   `toml:"driver" help:"Where functions run: linux (sealed sandboxes on this machine's kernel, for teams that trust each other that far), gvisor (a kernel of their own for each, for tenants that do not; needs runsc), process (plain processes that isolate nothing), or auto (linux where the machine can, else process)."`
	Runsc          string   `toml:"runsc" help:"gVisor's runsc program, for driver = gvisor: a path, or a name to look for on PATH."`
	Network        string   `toml:"network" help:"What functions in linux sandboxes reach besides Kiln: none, nat (whatever egress_allow lists, through this machine, and nothing of the machine itself; needs root), host (shares the machine's network), or auto (nat where listen is not a loopback address and nat is possible, else none)."`
	EgressAllow    []string `toml:"egress_allow" help:"With nat, all that functions may connect to: names, addresses and prefixes, each with a port or a range of ports or without, such as api.example.com:443, *.example.com, 10.0.0.0/8:5432. Only names on the list can be looked up. Empty: everything, but this machine, other sandboxes and the metadata services of clouds."`
	NetworkRange   string   `toml:"network_range" help:"Addresses that sandboxes get with nat; never seen outside this machine."`
	DNS            []string `toml:"dns" help:"Name servers for functions with nat, as addresses with or without port. Empty: those of this machine."`
	Proxy          string   `toml:"proxy" help:"URL of a proxy that functions shall use: they get it as HTTP_PROXY and HTTPS_PROXY. Functions must be able to reach it."`
	NoProxy        []string `toml:"no_proxy" help:"Hosts that functions reach without the proxy, besides their own loopback interface."`
	CACertificates string   `toml:"ca_certificates" help:"PEM file with certificate authorities that functions shall trust besides the usual ones."`
	CPULimit       bool     `toml:"cpu_limit" help:"Hold a function to the processor time that its memory buys, one processor for 1,769 MB, once its init phase is over, as AWS does. Without it, memory decides only where functions want more than there is."`
	AnyRuntime     bool     `toml:"any_runtime" help:"Run a function on another version of its language's interpreter when its own is not installed, such as nodejs20.x on Node 22."`
	RuntimePaths   []string `toml:"runtime_paths" help:"Interpreters, or folders with them, to look at before the usual places."`
	ImageFolders   []string `toml:"image_folders" help:"Folders whose OCI layouts and docker archives callers may name as an ImageUri (oci:/folder:tag, docker-archive:/file.tar). Images of registries need none."`

	Concurrency         int      `toml:"concurrency" help:"Concurrent executions of an account in a region; above it, requests are throttled."`
	ScalingRate         int      `toml:"scaling_rate" help:"Environments that a function may add in ten seconds, as on AWS; invocations that need more are throttled."`
	MemoryBudget        Size     `toml:"memory_budget" help:"Bytes of memory that all environments may hold together, by what they were measured to hold. For one more, idle ones are closed; where that is not enough, the invocation is throttled. 0: four fifths of the machine's memory, or of the limit of the control group that Kiln runs in. Whatever it is, idle environments are closed when the machine runs short of memory."`
	AsyncRetryDelay     Duration `toml:"async_retry_delay" help:"How long after a function error an asynchronous event is tried again; the second time, twice as long. Shorten it for tests."`
	AsyncDeliveries     int      `toml:"async_deliveries" help:"Asynchronous events that are delivered at once, of all functions. One function has at most four fifths of them."`
	AsyncFunctionEvents int      `toml:"async_function_events" help:"Asynchronous events that may wait for one function; above it, callers are throttled."`
	AsyncFunctionBytes  Size     `toml:"async_function_bytes" help:"Bytes of asynchronous events that may wait for one function; above it, callers are throttled."`
	AsyncAccountEvents  int      `toml:"async_account_events" help:"Asynchronous events that may wait for all functions of an account in a region; above it, callers are throttled."`
	AsyncAccountBytes   Size     `toml:"async_account_bytes" help:"Bytes of asynchronous events that may wait for all functions of an account in a region; above it, callers are throttled."`

	IdleTimeout      Duration `toml:"idle_timeout" help:"How long an environment is kept without work."`
	SpareBytes       Size     `toml:"spare_bytes" help:"Memory for runtimes that are started before anybody asks for them, so that the first request of a new environment need not wait for its Node.js or Python. They follow what functions are invoked, and go when nothing is. 0 starts none. Needs the linux driver, as root, without network = host."`
	MaxInflightBytes Size     `toml:"max_inflight_bytes" help:"Bytes of events and answers held in memory at once; requests beyond it wait."`
	ShutdownTimeout  Duration `toml:"shutdown_timeout" help:"How long invocations under way may take to end when Kiln is told to stop."`

	ArtifactCacheBytes Size `toml:"artifact_cache_bytes" help:"Bytes of unpacked code kept on disk; what is used by no function goes first."`
	CodeStorageBytes   Size `toml:"code_storage_bytes" help:"Bytes of packages, of all versions of functions and layers, that an account may have in a region."`
	FreeSpaceFloor     Size `toml:"free_space_floor" help:"Free space that Kiln leaves on the data folder's disk: below it, deployments and asynchronous events are refused and logs are dropped."`
	LogsGroupBytes     Size `toml:"logs_group_bytes" help:"Bytes of compressed function logs kept per log group; the oldest go first."`
	LogsTotalBytes     Size `toml:"logs_total_bytes" help:"Bytes of compressed function logs kept in all; the largest group gives first."`

	S3EventsSecretFile string `toml:"s3_events_secret_file" help:"File with the secret that other stores, such as MinIO or Ceph, send with the events of their buckets to /_kiln/events/s3, readable by its owner only. Empty: such events are refused."`

	PassCredentials bool `toml:"pass_credentials" help:"Give functions the AWS credentials that Kiln itself was started with (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN) in place of ones that only Kiln knows, and AWS in place of Kiln as their endpoint: what their SDKs do happens there. Services under endpoints stay where they are. Functions must be able to reach AWS, and endpoints, see network."`

	LogLevel  string `toml:"log_level" help:"Least level of Kiln's own log: debug, info, warn or error."`
	LogFormat string `toml:"log_format" help:"Format of Kiln's own log: text, or json."`
	AuditLog  string `toml:"audit_log" help:"File for the audit log, a line of JSON for each call that changes something or is refused; reopened at SIGHUP. Empty: such lines are part of Kiln's own log, at level info."`

	Accounts map[string]Account `toml:"accounts" help:"What is different for single accounts, as a table each: [accounts.123456789012] with driver = \"gvisor\" runs that account's functions in a stronger driver than the others'. A driver weaker than the one above is refused. network and egress_allow are its own as well. As a variable: 123456789012.driver=gvisor."`

	Endpoints       map[string]string `toml:"endpoints" help:"Where services are that Kiln does not serve, as service = \"URL\", such as sqs = \"http://127.0.0.1:9324\", and * = \"URL\" for all others. The service is named as in signatures; dynamodbstreams is that part of dynamodb. Kiln forwards requests for them there, of functions and of others, as they were signed. From s3 Kiln itself also fetches the packages that are deployed with S3Bucket and S3Key, with the credentials that any AWS client would find where Kiln runs (AWS_ACCESS_KEY_ID, AWS_PROFILE and so on), or unsigned where there are none. With the same credentials it sends what became of asynchronous invocations to sqs, sns, events (EventBridge) and s3. What is not set here is taken from AWS_ENDPOINT_URL_SQS and so on, where Kiln starts, and from AWS_ENDPOINT_URL, unless they lead to AWS or to Kiln itself."`
	SourceEndpoints map[string]string `toml:"source_endpoints" help:"Where single event sources are, if not at their service's endpoint, as \"ARN\" = \"URL\": event source mappings read them there."`
	Resign          map[string]string `toml:"resign" help:"Services under endpoints whose requests are signed anew with the credentials that any AWS client would find where Kiln runs, as service = \"actions\": the only ones that are, for all functions and callers, such as sqs = \"SendMessage GetQueue*\". Empty: every request keeps the signature of its client."`

	// Origins tells where each value came from, by key: "kiln.toml line 3",
	// "KILN_LISTEN", "--listen". Keys that are not in it have their default.
	Origins map[string]string `toml:"-"`
}

// Endpoint is where a service is, by the name that is signed for; "" for nowhere else.
// Without one of its own, s3 is Kiln's.
func (c Config) Endpoint(service string) string {
	if service == "s3" {
		return c.Endpoints[service]
	}
	return cmp.Or(c.Endpoints[service], c.Endpoints[OtherServices])
}

// OtherServices is the endpoint of all services that have none of their own.
const OtherServices = "*"

// Account is what an account may have of its own; zero values mean what holds for all.
type Account struct {
	Driver      string   `toml:"driver,omitempty"`
	Network     string   `toml:"network,omitempty"`
	EgressAllow []string `toml:"egress_allow,omitempty"`
}

// DefaultFile is read when no file is named and it is there.
const DefaultFile = "kiln.toml"

// DefaultPort is the port that emulators of AWS are expected at.
const DefaultPort = "4566"

// Default returns the configuration of a Kiln that is told nothing.
func Default() Config {
	return Config{
		Listen:              "localhost:" + DefaultPort,
		Data:                "kiln-data",
		Account:             "000000000000",
		Region:              "us-east-1",
		Driver:              "auto",
		Runsc:               "runsc",
		Network:             "auto",
		NetworkRange:        "198.18.0.0/15",
		Concurrency:         1000,
		ScalingRate:         1000,
		AsyncRetryDelay:     Duration(time.Minute),
		AsyncDeliveries:     256,
		AsyncFunctionEvents: 1_000_000,
		AsyncFunctionBytes:  4 << 30,
		AsyncAccountEvents:  4_000_000,
		AsyncAccountBytes:   16 << 30,
		IdleTimeout:         Duration(10 * time.Minute),
		SpareBytes:          64 << 20,
		MaxInflightBytes:    512 << 20,
		ShutdownTimeout:     Duration(30 * time.Second),
		ArtifactCacheBytes:  4 << 30,
		CodeStorageBytes:    75 << 30,
		FreeSpaceFloor:      1 << 30,
		LogsGroupBytes:      256 << 20,
		LogsTotalBytes:      4 << 30,
		LogLevel:            "info",
		LogFormat:           "text",
		Origins:             map[string]string{},
	}
}

// Secret reads the secret of AccessKey from its file; "" when none is configured.
func (c Config) Secret() (string, error) { return secretIn("secret_key_file", c.SecretKeyFile) }

// S3EventsSecret is Secret for the events of other stores.
func (c Config) S3EventsSecret() (string, error) {
	return secretIn("s3_events_secret_file", c.S3EventsSecretFile)
}

// secretIn reads the secret in the file that a key names; "" where it names none.
func secretIn(key, file string) (string, error) {
	if file == "" {
		return "", nil
	}
	info, err := os.Stat(file)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", key, err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("others than its owner may read %s %s: run chmod 600 %s", key, file, file)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", key, err)
	}
	secret := strings.TrimSpace(string(b))
	if len(secret) < minSecret {
		return "", fmt.Errorf("the secret in %s has %d characters; use at least %d, such as the output of: openssl rand -base64 30", file, len(secret), minSecret)
	}
	return secret, nil
}

// minSecret bounds a secret from below, in characters; AWS's have 40.
const minSecret = 16

var errUnknownKey = errors.New("there is no such setting")
