package config_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"kiln/internal/config"
)

func none(string) string { return "" }

func env(vars map[string]string) func(string) string {
	return func(name string) string { return vars[name] }
}

func write(t testing.TB, text string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "kiln.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDefaultIsValid(t *testing.T) {
	t.Parallel()
	c, err := config.Load("", none)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(config.Default(), c); diff != "" {
		t.Error(diff)
	}
	for _, key := range config.Keys() {
		if !strings.HasSuffix(config.Help(key), ".") {
			t.Errorf("%s has no sentence of help", key)
		}
	}
}

func TestPrecedence(t *testing.T) {
	t.Parallel()
	path := write(t, `
# comment
listen = "127.0.0.1:1"
concurrency = 7
idle_timeout = "90s"
max_inflight_bytes = "1GiB"
hosts = ["kiln.example.com"]

[endpoints]
sqs = "http://127.0.0.1:9324"

[accounts.123456789012]
driver = "gvisor"
`)
	c, err := config.Load(path, env(map[string]string{
		"KILN_CONCURRENCY": "8", "KILN_ANY_RUNTIME": "true", "KILN_RUNTIME_PATHS": "/opt/node22, /opt/python",
		"KILN_ENDPOINTS": "sqs=http://10.0.0.1:1,kinesis = http://10.0.0.1:2", "KILN_IDLE_TIMEOUT": "2m",
	}))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Set("concurrency", "9", "--concurrency"); err != nil {
		t.Fatal(err)
	}
	want := config.Default()
	want.Listen, want.Concurrency, want.IdleTimeout, want.MaxInflightBytes = "127.0.0.1:1", 9, config.Duration(2*time.Minute), 1<<30
	want.Hosts, want.AnyRuntime, want.RuntimePaths = []string{"kiln.example.com"}, true, []string{"/opt/node22", "/opt/python"}
	want.Endpoints = map[string]string{"sqs": "http://10.0.0.1:1", "kinesis": "http://10.0.0.1:2"}
	want.Accounts = map[string]config.Account{"123456789012": {Driver: "gvisor"}}
	want.Origins = map[string]string{
		"listen": "kiln.toml line 3", "concurrency": "--concurrency", "idle_timeout": "KILN_IDLE_TIMEOUT", "max_inflight_bytes": "kiln.toml line 6",
		"hosts": "kiln.toml line 7", "any_runtime": "KILN_ANY_RUNTIME", "runtime_paths": "KILN_RUNTIME_PATHS", "endpoints": "KILN_ENDPOINTS", "accounts": "kiln.toml line 12",
	}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Error(diff)
	}
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	if again, err := config.Load("", env(map[string]string{"KILN_CONFIG": path})); err != nil || again.Listen != "127.0.0.1:1" {
		t.Errorf("KILN_CONFIG: %q, %v", again.Listen, err)
	}
}

func TestLoadRejects(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, file string
		env        map[string]string
		want       []string
	}{
		{"unknown key", "account = \"1\"\nlisen = \"x\"\n", nil, []string{"line 2: lisen: there is no such setting; did you mean listen?"}},
		{"several unknown keys", "idle_time = \"1m\"\nconcurency = 1\n", nil, []string{"did you mean idle_timeout?", "line 2: concurency", "did you mean concurrency?"}},
		{"nothing near", "zzzzzzzzzzzzzzzz = 1\n", nil, []string{"line 1: zzzzzzzzzzzzzzzz", "the settings are listen, data,"}},
		{"unknown table", "[tables]\nx = 1\n", nil, []string{"tables"}},
		{"not for a file", "Origins = {}\n", nil, []string{"Origins: there is no such setting"}},
		{"size", "\nmax_inflight_bytes = \"12 apples\"\n", nil, []string{"line 2", "max_inflight_bytes", "12 apples"}},
		{"duration", "idle_timeout = \"soon\"\n", nil, []string{"line 1", "idle_timeout", "soon"}},
		{"type", "concurrency = \"many\"\n", nil, []string{"line 1", "concurrency"}},
		{"syntax", "listen = \n", nil, []string{"line 1"}},
		{"variable", "", map[string]string{"KILN_CONCURRENCY": "many", "KILN_ANY_RUNTIME": "perhaps", "KILN_IDLE_TIMEOUT": "soon", "KILN_ENDPOINTS": "sqs"},
			[]string{`KILN_CONCURRENCY: "many" is not a whole number`, `KILN_ANY_RUNTIME: "perhaps" is neither`, "KILN_IDLE_TIMEOUT: ", `KILN_ENDPOINTS: "sqs" is not name=value`}},
		{"account in a variable", "", map[string]string{"KILN_ACCOUNTS": "123456789012.drivr=gvisor"}, []string{"KILN_ACCOUNTS: 123456789012.drivr: there is no such setting; the settings of each are driver"}},
		{"account in a file", "[accounts.123456789012]\ndrivr = \"gvisor\"\n", nil, []string{"line 2: accounts.123456789012.drivr: there is no such setting"}},
	} {
		_, err := config.Load(write(t, test.file), env(test.env))
		if err == nil {
			t.Errorf("%s: no error", test.name)
			continue
		}
		for _, want := range test.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q is missing in:\n%v", test.name, want, err)
			}
		}
	}
	if _, err := config.Load(filepath.Join(t.TempDir(), "none.toml"), none); err == nil {
		t.Error("a named file that is not there")
	}
	c := config.Default()
	if err := c.Set("lissen", "x", "--lissen"); err == nil || !strings.Contains(err.Error(), "did you mean listen?") {
		t.Error(err)
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := file("good", "0123456789012345678901234567890123456789\n", 0o600)
	short := file("short", "secret", 0o600)
	open := file("open", "0123456789012345678901234567890123456789\n", 0o644)

	for _, test := range []struct {
		name string
		set  map[string]string
		want string // "" is valid
	}{
		{"keys", map[string]string{"listen": "0.0.0.0:4566", "access_key": "AKIAEXAMPLE", "secret_key_file": good}, ""},
		{"any port", map[string]string{"listen": "localhost:0"}, ""},
		{"IPv6 loopback", map[string]string{"listen": "[::1]:80"}, ""},
		{"mapped loopback", map[string]string{"listen": "[::ffff:127.0.0.1]:80"}, ""},
		{"all addresses", map[string]string{"listen": ":4566"}, ""}, // whether there is a key, the daemon sees
		{"a name", map[string]string{"listen": "kiln.example.com:4566"}, "is not an IP address"},
		{"no port", map[string]string{"listen": "localhost"}, "is not host:port"},
		{"a bad port", map[string]string{"listen": "localhost:http"}, "is not a port"},
		{"admin", map[string]string{"admin_listen": "localhost:9466"}, ""},
		{"admin without port", map[string]string{"admin_listen": "localhost"}, "is not host:port"},
		{"admin on the one port", map[string]string{"admin_listen": "localhost:4566"}, "use another port"},
		{"self-signed", map[string]string{"tls": "self-signed"}, ""},
		{"TLS of another kind", map[string]string{"tls": "yes"}, "is not self-signed"},
		{"TLS twice", map[string]string{"tls": "self-signed", "tls_cert_file": "a", "tls_key_file": "b"}, "leave one or the other out"},
		{"TLS without key", map[string]string{"tls_cert_file": "a"}, "set tls_key_file"},
		{"TLS without certificate", map[string]string{"tls_key_file": "a"}, "set tls_cert_file"},
		{"two master keys", map[string]string{"master_key_file": "a", "master_key_command": "cat,b"}, "there is one master key"},
		{"a credential's path", map[string]string{"master_key_credential": "../key"}, "is a path"},
		{"data", map[string]string{"data": ""}, "name a folder"},
		{"account", map[string]string{"account": "123"}, "twelve digits"},
		{"region", map[string]string{"region": "europe"}, "such as us-east-1"},
		{"regions", map[string]string{"region": "us-gov-west-1"}, ""},
		{"hosts", map[string]string{"hosts": "*.example.com,http://x"}, `"http://x" is not a host name`},
		{"key without secret", map[string]string{"access_key": "AKIA"}, "its secret is missing"},
		{"secret without key", map[string]string{"secret_key_file": good}, "there is no access_key"},
		{"short secret", map[string]string{"access_key": "AKIA", "secret_key_file": short}, "has 6 characters"},
		{"readable secret", map[string]string{"access_key": "AKIA", "secret_key_file": open}, "chmod 600"},
		{"missing secret", map[string]string{"access_key": "AKIA", "secret_key_file": dir + "/none"}, "no such file"},
		{"driver", map[string]string{"driver": "docker"}, `"docker" is none of auto, linux, gvisor, process`},
		{"account", map[string]string{"driver": "linux", "accounts": "123456789012.driver=gvisor,000000000000.driver=linux"}, ""},
		{"account id", map[string]string{"accounts": "12.driver=gvisor"}, `"12" is not twelve digits`},
		{"account driver", map[string]string{"accounts": "123456789012.driver=auto"}, `the driver "auto" of 123456789012 is none of`},
		{"account network", map[string]string{"accounts": "123456789012.network=nat"}, ""},
		{"account network unknown", map[string]string{"accounts": "123456789012.network=auto"}, `the network "auto" of 123456789012 is none of`},
		{"account network of processes", map[string]string{"driver": "process", "accounts": "123456789012.network=none"}, "cannot keep the functions of 123456789012"},
		{"network of gVisor", map[string]string{"driver": "gvisor", "network": "nat"}, ""},
		{"network of processes", map[string]string{"driver": "process", "network": "nat"}, "cannot keep functions from the network"},
		{"proxy", map[string]string{"proxy": "http://10.0.0.3:3128"}, ""},
		{"proxy without scheme", map[string]string{"proxy": "10.0.0.3:3128"}, "not a URL such as"},
		{"authorities", map[string]string{"ca_certificates": "ca.pem"}, "not an absolute path"},
		{"network range", map[string]string{"network_range": "198.18.0.1/15"}, "such as 198.18.0.0/15"},
		{"weaker driver", map[string]string{"driver": "gvisor", "accounts": "123456789012.driver=linux"}, "keeps functions apart less than driver = \"gvisor\""},
		{"weakest driver", map[string]string{"driver": "linux", "accounts": "123456789012.driver=process"}, "keeps functions apart less"},
		{"no runsc", map[string]string{"runsc": ""}, "name the program"},
		{"network", map[string]string{"network": "bridge"}, "none of auto, none, nat, host"},
		{"process network", map[string]string{"driver": "process", "network": "none"}, "cannot keep functions from the network"},
		{"concurrency", map[string]string{"concurrency": "0"}, "not between 1 and"},
		{"idle", map[string]string{"idle_timeout": "0s"}, "not above zero"},
		{"rate", map[string]string{"scaling_rate": "0"}, "not between 1 and"},
		{"memory", map[string]string{"memory_budget": "1MiB"}, "less than 128MiB"},
		{"shutdown", map[string]string{"shutdown_timeout": "2h"}, "not between 0s and 1h"},
		{"inflight", map[string]string{"max_inflight_bytes": "1MiB"}, "1MiB is less than 16MiB"},
		{"logs", map[string]string{"logs_total_bytes": "1MiB"}, "less than logs_group_bytes, 256MiB"},
		{"level", map[string]string{"log_level": "loud"}, "none of debug"},
		{"format", map[string]string{"log_format": "xml"}, "none of text, json"},
		{"endpoints", map[string]string{"endpoints": "sqs=http://127.0.0.1:9324,s3=https://s3.example.com/path"}, ""},
		{"endpoint", map[string]string{"endpoints": "sqs=127.0.0.1:9324"}, "the URL of sqs is not one such as"},
		{"endpoint name", map[string]string{"endpoints": "SQS queue=http://x"}, "not the name of a service"},
		{"source", map[string]string{"source_endpoints": "arn:aws:sqs:us-east-1:123456789012:orders=https://sqs.example.com"}, ""},
		{"source by name", map[string]string{"source_endpoints": "orders=http://x"}, "not the ARN of an event source"},
		{"source anywhere", map[string]string{"source_endpoints": "arn:aws:sqs:us-east-1:123456789012:orders=x"}, "the URL of arn:aws:sqs:us-east-1:123456789012:orders is not one such as"},
		{"password", map[string]string{"endpoints": "sqs=http://me:hunter2@x"}, "holds a password"},
		{"lambda", map[string]string{"endpoints": "lambda=http://x"}, "Kiln serves lambda itself"},
		{"sts", map[string]string{"endpoints": "sts=http://x"}, "Kiln serves sts itself"},
		{"all others", map[string]string{"endpoints": "*=http://x", "resign": "sqs=SendMessage Get*"}, ""},
		{"signed anew and nowhere", map[string]string{"endpoints": "sns=http://x", "resign": "sqs=SendMessage"}, "sqs has no endpoint; set endpoints.sqs"},
		{"signed anew and unnamed", map[string]string{"endpoints": "s3=http://x", "resign": "s3=GetObject"}, "requests to s3 do not name their action"},
		{"signed anew, any action", map[string]string{"endpoints": "*=http://x", "resign": "sqs=*"}, `"*" of sqs is neither`},
		{"signed anew, no action", map[string]string{"endpoints": "*=http://x", "resign": "sqs="}, "sqs has no actions"},
	} {
		c := config.Default()
		for key, value := range test.set {
			if err := c.Set(key, value, "--"+key); err != nil {
				t.Fatal(err)
			}
		}
		err := c.Validate()
		switch {
		case test.want == "" && err != nil:
			t.Errorf("%s: %v", test.name, err)
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "(from --")):
			t.Errorf("%s: %q is missing in: %v", test.name, test.want, err)
		case err != nil && strings.Contains(err.Error(), "hunter2"):
			t.Errorf("%s: the error tells a password: %v", test.name, err)
		}
	}

	c := config.Default()
	c.Listen, c.Account, c.LogLevel, c.Concurrency = "x", "y", "z", -1
	if err := c.Validate(); err == nil || strings.Count(err.Error(), "\n") != 3 {
		t.Errorf("not all problems at once: %v", err)
	}
}

func TestAddresses(t *testing.T) {
	t.Parallel()
	for listen, want := range map[string]struct {
		addresses []string
		loopback  bool
	}{
		"localhost:4566": {[]string{"127.0.0.1:4566", "[::1]:4566"}, true},
		"localhost:0":    {[]string{"127.0.0.1:0"}, true},
		"127.0.0.1:1":    {[]string{"127.0.0.1:1"}, true},
		"[::1]:1":        {[]string{"[::1]:1"}, true},
		":1":             {[]string{":1"}, false},
		"[::]:1":         {[]string{"[::]:1"}, false},
		"192.168.0.1:1":  {[]string{"192.168.0.1:1"}, false},
	} {
		c := config.Config{Listen: listen}
		got, err := c.Addresses()
		if err != nil || !cmp.Equal(got, want.addresses) || c.Loopback() != want.loopback {
			t.Errorf("%s: %v, loopback %v, %v", listen, got, c.Loopback(), err)
		}
	}
}

func TestWriteLoadsBack(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	text := rapid.String()
	texts := rapid.SliceOfN(text, 0, 4)
	rapid.Check(t, func(rt *rapid.T) {
		c := config.Config{
			Listen: text.Draw(rt, "listen"), Data: text.Draw(rt, "data"), Account: text.Draw(rt, "account"), Region: text.Draw(rt, "region"),
			Hosts: texts.Draw(rt, "hosts"), AccessKey: text.Draw(rt, "key"), SecretKeyFile: text.Draw(rt, "secret"),
			Driver: text.Draw(rt, "driver"), Network: text.Draw(rt, "network"), EgressAllow: texts.Draw(rt, "allow"), NetworkRange: text.Draw(rt, "range"), DNS: texts.Draw(rt, "dns"), Proxy: text.Draw(rt, "proxy"), NoProxy: texts.Draw(rt, "no proxy"), CACertificates: text.Draw(rt, "ca"), AnyRuntime: rapid.Bool().Draw(rt, "any"), RuntimePaths: texts.Draw(rt, "paths"),
			Concurrency: rapid.Int().Draw(rt, "concurrency"), ScalingRate: rapid.Int().Draw(rt, "rate"), MemoryBudget: config.Size(rapid.Int64Min(0).Draw(rt, "memory")), IdleTimeout: config.Duration(rapid.Int64().Draw(rt, "idle")),
			SpareBytes:       config.Size(rapid.Int64Min(0).Draw(rt, "spare")),
			MaxInflightBytes: config.Size(rapid.Int64Min(0).Draw(rt, "inflight")), ShutdownTimeout: config.Duration(rapid.Int64().Draw(rt, "shutdown")),
			ArtifactCacheBytes: config.Size(rapid.Int64Min(0).Draw(rt, "cache")), CodeStorageBytes: config.Size(rapid.Int64Min(0).Draw(rt, "storage")), FreeSpaceFloor: config.Size(rapid.Int64Min(0).Draw(rt, "floor")),
			LogsGroupBytes: config.Size(rapid.Int64Min(0).Draw(rt, "group")), LogsTotalBytes: config.Size(rapid.Int64Min(0).Draw(rt, "total")),
			LogLevel: text.Draw(rt, "level"), LogFormat: text.Draw(rt, "format"),
			Runsc: text.Draw(rt, "runsc"), Accounts: rapid.MapOfN(text, rapid.Custom(func(rt *rapid.T) config.Account {
				return config.Account{Driver: text.Draw(rt, "driver"), Network: text.Draw(rt, "network"), EgressAllow: texts.Draw(rt, "allow")}
			}), 0, 4).Draw(rt, "accounts"),
			Endpoints: rapid.MapOfN(text, text, 0, 4).Draw(rt, "endpoints"), Resign: rapid.MapOfN(text, text, 0, 4).Draw(rt, "resign"),
			Origins: map[string]string{"listen": "kiln.toml line 1"},
		}
		var b bytes.Buffer
		if err := c.Write(&b); err != nil {
			rt.Fatal(err)
		}
		path := filepath.Join(dir, "kiln.toml")
		if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
			rt.Fatal(err)
		}
		got, err := config.Load(path, none)
		if err != nil {
			rt.Fatalf("%v\n%s", err, b.String())
		}
		if diff := cmp.Diff(c, got, cmpopts.EquateEmpty(), cmpopts.IgnoreFields(config.Config{}, "Origins")); diff != "" {
			rt.Fatalf("%s\n%s", diff, b.String())
		}
	})
}

func TestWrite(t *testing.T) {
	t.Parallel()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("0123456789-do-not-tell"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(write(t, "access_key = 'AKIA'\nidle_timeout = '600s'\n"), env(map[string]string{"KILN_SECRET_KEY_FILE": secret}))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.Secret(); err != nil || got != "0123456789-do-not-tell" {
		t.Fatalf("%q, %v", got, err)
	}
	var b bytes.Buffer
	if err := c.Write(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"# From kiln.toml line 1.\naccess_key = 'AKIA'\n", "idle_timeout = '10m'\n", "# From KILN_SECRET_KEY_FILE.\n", "max_inflight_bytes = '512MiB'\n", "hosts = []\n"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, b.String())
		}
	}
	if strings.Contains(b.String(), "do-not-tell") {
		t.Error("it tells the secret")
	}
}

func TestParseSize(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]config.Size{
		"0": 0, "1": 1, "1B": 1, "512MiB": 512 << 20, "512 MiB": 512 << 20, " 1GiB ": 1 << 30, "1.5GiB": 3 << 29, "0.5KiB": 512,
		"10MB": 10e6, "1kB": 1000, "1KB": 1000, "2TB": 2e12, "7TiB": 7 << 40, "9223372036854775807": 1<<63 - 1,
	} {
		if got, err := config.ParseSize(text); err != nil || got != want {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "MiB", "-1", "+1", "1.", ".5MiB", "1.5.5", "1e3", "1mb", "1 M", "0x10", "1_000", "9223372036854775808", "8388608TiB", "1.-5MiB"} {
		if got, err := config.ParseSize(text); err == nil {
			t.Errorf("%q is %d", text, got)
		}
	}
	for size, want := range map[config.Size]string{0: "0B", 1: "1B", 1023: "1023B", 1024: "1KiB", 1536: "1536B", 512 << 20: "512MiB", 5 << 40: "5TiB"} {
		if size.String() != want {
			t.Errorf("%d is %s", size, size)
		}
	}
	for d, want := range map[time.Duration]string{0: "0s", time.Minute: "1m", time.Hour: "1h", 90 * time.Minute: "1h30m", 90 * time.Second: "1m30s", 20 * time.Second: "20s", 10 * time.Hour: "10h"} {
		if got := config.Duration(d).String(); got != want {
			t.Errorf("%s is %s", d, got)
		}
	}
}

func FuzzParseSize(f *testing.F) {
	for _, s := range []string{"512MiB", "1.5GiB", "4096", "10 MB", "9223372036854775807", "0.0000001TiB", "1.9999999999999999999KiB"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		size, err := config.ParseSize(s)
		if err != nil {
			return
		}
		if size < 0 {
			t.Fatalf("%q is %d", s, size)
		}
		if again, err := config.ParseSize(size.String()); err != nil || again != size {
			t.Fatalf("%q is %d, written %s and read as %d, %v", s, size, size, again, err)
		}
	})
}

func TestEndpoint(t *testing.T) {
	t.Parallel()
	c := config.Config{Endpoints: map[string]string{"*": "others", "sqs": "queues"}}
	for service, want := range map[string]string{"sqs": "queues", "sns": "others", "s3": ""} {
		if got := c.Endpoint(service); got != want {
			t.Errorf("%s: %q, want %q", service, got, want)
		}
	}
}
