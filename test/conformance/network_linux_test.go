package conformance

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"kiln/test/kiln"
)

// The network of TestNetwork: a machine beside this one.
const (
	thisMachine  = "198.51.100.1"
	otherMachine = "198.51.100.2"
	otherName    = "other.machine.test"
)

// TestNetwork runs functions of accounts that reach different things, in each driver.
func TestNetwork(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes network interfaces")
	}
	beside(t)
	t.Run("linux", func(t *testing.T) { testNetwork(t, "linux") })
	t.Run("gvisor", func(t *testing.T) {
		runsc := os.Getenv("KILN_RUNSC")
		if runsc == "" {
			t.Skip("KILN_RUNSC names no runsc")
		}
		testNetwork(t, "gvisor", "--runsc", runsc)
	})
}

func testNetwork(t *testing.T, driver string, args ...string) {
	const all, some, none, host = "000000000000", "111122223333", "222233334444", "333344445555"
	file := filepath.Join(t.TempDir(), "kiln.toml")
	if err := os.WriteFile(file, []byte(`
network = "nat"
dns = ["`+otherMachine+`"]
[accounts.`+some+`]
egress_allow = ["`+otherName+`:80"]
[accounts.`+none+`]
network = "none"
[accounts.`+host+`]
network = "host"
`), 0o600); err != nil {
		t.Fatal(err)
	}
	d, root := keyed(t, append(args, "--driver", driver, "--config", file)...)
	here, err := net.Listen("tcp4", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	go func() { _ = http.Serve(here, http.NotFoundHandler()) }()
	_, port, _ := net.SplitHostPort(here.Addr().String())
	_, daemonPort, _ := net.SplitHostPort(strings.TrimPrefix(d.URL, "http://"))

	keys := map[string]*key{}
	for _, c := range []struct{ account, address, want string }{
		{all, otherMachine + " 80", "reached"},
		{all, otherMachine + " 443", "reached"},
		{all, otherName + " 80", "reached"},
		{all, "unknown.test 80", "unknown"},
		{all, thisMachine + " " + port, "refused"},
		{all, "127.0.0.1 " + port, "refused"},
		{all, thisMachine + " " + daemonPort, "refused"},
		{all, "169.254.169.254 80", "refused"},
		{all, "127.0.0.1 4566", "reached"}, // Kiln itself
		{some, otherMachine + " 80", "refused"},
		{some, otherName + " 80", "reached"},
		{some, otherName + " 443", "refused"},
		{some, "unknown.test 80", "unknown"},
		{none, otherMachine + " 80", "unreachable"},
		{none, otherName + " 80", "unknown"},
		{none, "127.0.0.1 " + port, "refused"},
		{host, otherMachine + " 80", "reached"},
		{host, "127.0.0.1 " + port, "reached"},
	} {
		k := keys[c.account]
		if k == nil {
			k = root.newKey(t, d, c.account, "admin", "")
			keys[c.account] = k
		}
		code := base64.StdEncoding.EncodeToString(kiln.Bash(`
			read -r host port <<<"${event//\"/ }"
			if said=$( (exec 3<>/dev/tcp/$host/$port) 2>&1 ); then answer='"reached"'
			else case "$said" in
				*"not known"*|*"resolution"*) answer='"unknown"';;
				*refused*) answer='"refused"';;
				*unreachable*) answer='"unreachable"';;
				*) answer='"?"'; echo "$said";;
			esac; fi`))
		status, text, _ := k.as(t, "lambda", "POST", d.URL+functionsPath, `{"FunctionName":"reach","Runtime":"provided.al2023","Handler":"x","Role":"arn:aws:iam::`+c.account+`:role/r","Timeout":60,"Code":{"ZipFile":"`+code+`"}}`)
		if status != 201 && status != 409 {
			t.Fatalf("create: %d %s", status, text)
		}
		event, _ := json.Marshal(c.address)
		status, got, _ := k.as(t, "lambda", "POST", d.URL+functionsPath+"/reach/invocations", string(event))
		if status != 200 || got != `"`+c.want+`"` {
			t.Errorf("%s connects to %s: %d %s, want %s", c.account, c.address, status, got, c.want)
		}
	}
}

// TestNetworkOfReadyRuntimes has functions that take over a runtime which waited, and that look for
// what the configuration gives them besides.
func TestNetworkOfReadyRuntimes(t *testing.T) {
	t.Parallel()
	authority := filepath.Join(kiln.Root(), "test", "conformance", "testdata", "authority.pem")
	key := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(key, []byte("-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, output := kiln.Run(t, "up", "--listen", "127.0.0.1:0", "--data", t.TempDir(), "--ca-certificates", key); code != 1 || !strings.Contains(output, "which functions would see") {
		t.Errorf("a private key is shown to functions: %d %s", code, output)
	}
	d := kiln.Start(t, "--any-runtime", "--driver", "linux", "--proxy", "http://10.0.0.3:3128", "--no-proxy", "internal.test", "--ca-certificates", authority)
	code := `
import os, ssl
def handler(event, context):
    ssl.create_default_context()
    return [os.environ.get(n) for n in ("HTTPS_PROXY", "no_proxy", "AWS_CA_BUNDLE")] + [
        any("Kiln Test Authority" in str(c) for c in ssl.create_default_context().get_ca_certs()),
        open(os.environ["NODE_EXTRA_CA_CERTS"]).read() == event["pem"]]
`
	pem, err := os.ReadFile(authority)
	if err != nil {
		t.Fatal(err)
	}
	s := session{goSDK{}, t, anyKey(d)}
	event, _ := json.Marshal(map[string]string{"pem": string(pem)})
	for _, name := range []string{"first", "second"} {
		s.create(name, values{"Runtime": "python3.13", "Handler": "index.handler", "Code": values{"ZipFile": kiln.Zip(map[string]string{"index.py": code})}})
		_, payload := s.invoke(values{"FunctionName": name, "Payload": event})
		if want := `["http://10.0.0.3:3128", "localhost,127.0.0.1,internal.test", "/etc/ssl/kiln/bundle.pem", true, true]`; string(payload) != want {
			t.Errorf("%s answers %s, want %s", name, payload, want)
		}
	}
}

// beside makes the machine beside this one: a network namespace with web servers and
// a name server, joined to this one by a cable.
func beside(t *testing.T) {
	t.Helper()
	var ns *os.File
	var err error
	thread(func() {
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			ns, err = os.Open("/proc/thread-self/ns/net")
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ns.Close() })
	cable := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: "besidekiln", Flags: net.FlagUp}, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(ns.Fd())),
	}
	if err := netlink.LinkAdd(cable); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netlink.LinkDel(cable); err != nil {
			t.Error(err)
		}
	})
	here, _ := netlink.ParseAddr(thisMachine + "/30")
	if err := netlink.AddrAdd(cable, here); err != nil {
		t.Fatal(err)
	}
	thread(func() {
		if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return
		}
		eth, lerr := netlink.LinkByName("eth0")
		there, _ := netlink.ParseAddr(otherMachine + "/30")
		if err = errors.Join(lerr, netlink.AddrAdd(eth, there), netlink.LinkSetUp(eth)); err != nil {
			return
		}
		for _, port := range []string{"80", "443"} {
			var l net.Listener
			if l, err = net.Listen("tcp4", otherMachine+":"+port); err != nil {
				return
			}
			t.Cleanup(func() { _ = l.Close() })
			go func() { _ = http.Serve(l, http.NotFoundHandler()) }()
		}
		var names net.PacketConn
		if names, err = net.ListenPacket("udp4", otherMachine+":53"); err == nil {
			t.Cleanup(func() { _ = names.Close() })
			go answerNames(names)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

// thread runs f on a thread that ends with it.
func thread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		f()
	}()
	<-done
}

// answerNames knows one name.
func answerNames(conn net.PacketConn) {
	for buf := make([]byte, 1024); ; {
		n, from, err := conn.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF) {
			return
		}
		var m dnsmessage.Message
		if err != nil || m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
			continue
		}
		m.Response, m.Additionals = true, nil
		switch q := m.Questions[0]; {
		case q.Name.String() != otherName+".":
			m.RCode = dnsmessage.RCodeNameError
		case q.Type == dnsmessage.TypeA:
			m.Answers = []dnsmessage.Resource{{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 60},
				Body:   &dnsmessage.AResource{A: [4]byte(net.ParseIP(otherMachine).To4())},
			}}
		}
		b, _ := m.Pack()
		_, _ = conn.WriteTo(b, from)
	}
}
