// Package cli is the kiln command. `kiln up` starts a daemon in this process,
// `restore` and `reseal` work on the files of one that is stopped; every other
// command reaches one over HTTP, as any AWS client does.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"reflect"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
	"golang.org/x/term"

	"kiln/internal/config"
)

// Exit codes: 1 the command failed, 2 it was called wrongly.
const (
	failed = 1
	misuse = 2
)

type commands struct {
	Up        up        `cmd:"" help:"Start Kiln and serve until interrupted."`
	Functions functions `cmd:"" help:"List the functions."`
	Invoke    invoke    `cmd:"" help:"Invoke a function and print its answer."`
	Event     event     `cmd:"" help:"Print a sample event of a source, for kiln invoke to read."`
	Logs      logs      `cmd:"" help:"Show what a function logged."`
	Top       top       `cmd:"" help:"Show what runs: a live table of functions and their environments."`
	Queue     queue     `cmd:"" help:"Show, drop and redrive events that wait for functions."`
	Keys      keys      `cmd:"" help:"Make, list and revoke access keys."`
	Runtime   runtime   `cmd:"" help:"Show runtimes, and add to them what AWS bundles with them."`
	Backup    backup    `cmd:"" help:"Save one moment of everything to a file, while Kiln serves."`
	Restore   restore   `cmd:"" help:"Make a data directory of a backup."`
	Reseal    reseal    `cmd:"" help:"Seal the secrets of a data directory under another master key; its Kiln must be stopped."`
	Doctor    doctor    `cmd:"" help:"Say which driver and runtimes will be used here, and why."`
	Config    show      `cmd:"" help:"Print the effective configuration of kiln up."`
	Version   version   `cmd:"" help:"Print the version."`
}

// streams are what a command reads and writes.
type streams struct {
	in          io.Reader
	out, err    io.Writer
	getenv      func(string) string
	interactive bool // out is a terminal
}

// Run executes a command line and returns the exit code.
func Run(args []string, in io.Reader, out, errs io.Writer, getenv func(string) string) int {
	var c commands
	exit := -1
	parser, err := kong.New(&c,
		kong.Name("kiln"),
		kong.Description("AWS Lambda on your own machine.\n\nStart it with `kiln up`, then point any AWS client at it: AWS_ENDPOINT_URL=http://localhost:4566."),
		kong.UsageOnError(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.Writers(out, errs),
		kong.Exit(func(code int) { exit = code }),
	)
	if err != nil {
		panic(err) // the commands above do not fit together
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	parsed, err := parser.Parse(args)
	if exit >= 0 { // help was asked for
		return exit
	}
	if err != nil {
		fmt.Fprintf(errs, "kiln: %v\nTry: kiln --help\n", err)
		return misuse
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	parsed.BindTo(ctx, (*context.Context)(nil))
	s := &streams{in: in, out: out, err: errs, getenv: getenv}
	if f, ok := out.(*os.File); ok {
		s.interactive = term.IsTerminal(int(f.Fd())) && getenv("NO_COLOR") == ""
	}
	err = parsed.Run(s)
	var status exitStatus
	switch {
	case err == nil:
		return 0
	case errors.As(err, &status):
		return int(status)
	default:
		fmt.Fprintf(errs, "kiln: %v\n", err)
		return failed
	}
}

// exitStatus ends the program with a code, when all has been said.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

type version struct{}

func (version) Run(s *streams) error {
	fmt.Fprintln(s.out, "kiln", programVersion())
	return nil
}

// programVersion is what `go build` knows of the program.
func programVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && v == "(devel)" {
			v += " " + s.Value[:min(12, len(s.Value))]
		}
	}
	return v
}

// settings are the flags of the commands that need a daemon's configuration.
// Each overrides the setting of its name.
type settings struct {
	ConfigFile         string `name:"config" placeholder:"FILE" help:"Configuration file; default kiln.toml, if there."`
	Listen             string `placeholder:"HOST:PORT" help:"Address of the one port."`
	Data               string `placeholder:"DIR" help:"Folder for everything that Kiln keeps."`
	Account            string `placeholder:"ID" help:"Account id that functions belong to."`
	Region             string `placeholder:"REGION" help:"Region of requests that name none."`
	Hosts              string `placeholder:"NAMES" help:"Further host names that requests may be for."`
	AccessKey          string `placeholder:"ID" help:"Root access key; every request must then be signed with a key."`
	SecretKeyFile      string `placeholder:"FILE" help:"File with the root key's secret."`
	Driver             string `placeholder:"NAME" help:"Where functions run: auto, linux, gvisor or process."`
	Runsc              string `placeholder:"PROGRAM" help:"gVisor's runsc, for the gvisor driver."`
	Network            string `placeholder:"NAME" help:"What functions reach: auto, none, nat or host."`
	EgressAllow        string `placeholder:"DESTINATIONS" help:"All that functions may connect to with nat."`
	NetworkRange       string `placeholder:"PREFIX" help:"Addresses that sandboxes get with nat."`
	DNS                string `name:"dns" placeholder:"ADDRESSES" help:"Name servers for functions with nat."`
	Proxy              string `placeholder:"URL" help:"Proxy that functions shall use."`
	NoProxy            string `placeholder:"HOSTS" help:"What functions reach without the proxy."`
	CACertificates     string `name:"ca-certificates" placeholder:"FILE" help:"Authorities that functions shall trust as well."`
	CPULimit           bool   `name:"cpu-limit" help:"Hold functions to the processor time that their memory buys."`
	AnyRuntime         bool   `help:"Let the nearest installed version serve a runtime that is missing."`
	ImageFolders       string `placeholder:"PATHS" help:"Folders whose OCI layouts and docker archives functions may be made from."`
	RuntimePaths       string `placeholder:"PATHS" help:"Interpreters, or folders of them, to look at first."`
	Concurrency        string `placeholder:"N" help:"Concurrent executions of an account in a region."`
	ScalingRate        string `placeholder:"N" help:"Environments that a function may add in ten seconds."`
	AsyncRetryDelay    string `placeholder:"TIME" help:"How long after a function error an asynchronous event is tried again."`
	MemoryBudget       string `placeholder:"SIZE" help:"Memory that all environments may hold together."`
	IdleTimeout        string `placeholder:"TIME" help:"How long an idle environment is kept."`
	SpareBytes         string `placeholder:"SIZE" help:"Memory for runtimes that are started ahead of time."`
	MaxInflightBytes   string `placeholder:"SIZE" help:"Bytes of requests held in memory at once."`
	ShutdownTimeout    string `placeholder:"TIME" help:"How long running invocations may take to end at shutdown."`
	ArtifactCacheBytes string `placeholder:"SIZE" help:"Bytes of unpacked code kept on disk."`
	CodeStorageBytes   string `placeholder:"SIZE" help:"Bytes of packages that an account may have in a region."`
	FreeSpaceFloor     string `placeholder:"SIZE" help:"Free disk space that Kiln leaves."`
	LogsGroupBytes     string `placeholder:"SIZE" help:"Bytes of logs kept per log group."`
	LogsTotalBytes     string `placeholder:"SIZE" help:"Bytes of logs kept in all."`
	PassCredentials    bool   `help:"Give functions Kiln's own AWS credentials, and AWS itself as their endpoint."`
	LogLevel           string `placeholder:"LEVEL" help:"Least level of Kiln's own log."`
	LogFormat          string `placeholder:"FORMAT" help:"Format of Kiln's own log: text or json."`
	AuditLog           string `placeholder:"FILE" help:"File of its own for the audit log."`

	MasterKeyFile       string `placeholder:"FILE" help:"File with the key that secrets on the disk are sealed under."`
	MasterKeyCredential string `placeholder:"NAME" help:"systemd's credential with that key."`
	MasterKeyCommand    string `placeholder:"PROGRAM,ARGS" help:"Program that prints that key."`
	AdminListen         string `placeholder:"HOST:PORT" help:"Address of its own for metrics and health."`
	TLS                 string `name:"tls" placeholder:"self-signed" help:"Serve TLS with a certificate of Kiln's own, for development."`
	TLSCertFile         string `name:"tls-cert-file" placeholder:"FILE" help:"Serve TLS with the certificate in this file."`
	TLSKeyFile          string `name:"tls-key-file" placeholder:"FILE" help:"File with the certificate's key."`
}

// load returns the effective configuration, checked.
func (f settings) load(getenv func(string) string) (config.Config, error) {
	c, err := config.Load(f.ConfigFile, getenv)
	if err != nil {
		return c, err
	}
	var problems []error
	flags := reflect.ValueOf(f)
	for _, key := range config.Keys() {
		flag := flags.FieldByNameFunc(func(name string) bool { return isField(name, key) })
		if flag.IsValid() && !flag.IsZero() {
			problems = append(problems, c.Set(key, fmt.Sprint(flag.Interface()), "--"+strings.ReplaceAll(key, "_", "-")))
		}
	}
	if err := errors.Join(problems...); err != nil {
		return c, err
	}
	return c, c.Validate()
}

// isField reports whether the field is the key's: idle_timeout is IdleTimeout.
func isField(name, key string) bool {
	return strings.EqualFold(name, strings.ReplaceAll(key, "_", ""))
}

type show struct{ settings }

func (c show) Run(s *streams) error {
	effective, err := c.load(s.getenv)
	if err != nil {
		return err
	}
	return effective.Write(s.out)
}
