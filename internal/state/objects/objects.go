// Package objects keeps objects in buckets, by account and region. Those of an account
// in a region are served, in S3's protocol, by a process of its own (the folder inside, in cmd/kiln-objects),
// which is started when it is first asked and ended when nobody has asked for a while.
//
// It trusts whoever calls it: who may do what is decided by the door, front/storage.
// The bucket package reads deployment packages from it.
package objects

import (
	"bufio"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"kiln/internal/lambda"
	"kiln/internal/state/objects/program"
)

const (
	// startTimeout is how long a process may take to serve. It waits for the one before.
	startTimeout = 20 * time.Second
	// stopTimeout is how long it may take to end once its input has.
	stopTimeout = 5 * time.Second
	// DefaultIdle is how long a process is kept that nobody asks.
	DefaultIdle = 5 * time.Minute
	// maxIdleConnections are kept to each process.
	maxIdleConnections = 64
	// memory is what a process gives back above, in bytes. Bodies pass through it.
	memory = 128 << 20
	// socketDir begins the names of folders with a socket.
	socketDir = "objects-"
	// ready is what a process says once it serves.
	ready = "ready"
	// maxLine bounds what is kept of a line that a process writes, in bytes.
	maxLine = 4 << 10
)

// UnsignedPayload is X-Amz-Content-Sha256 of a body that is not checked.
const UnsignedPayload = "UNSIGNED-PAYLOAD"

// Config of a Store. Dir, Run and Log are required.
type Config struct {
	Dir string // that everything is kept in
	Run string // folder for sockets, and for the program
	// Program is what to start, and with which first arguments. Nil: what is embedded.
	Program []string
	// Idle is how long a process is kept that nobody asks. 0 means DefaultIdle.
	Idle time.Duration
	Log  *slog.Logger
}

// Store is safe for concurrent use.
type Store struct {
	config  Config
	program func() ([]string, error)

	mu      sync.Mutex
	closed  bool                         // guarded by mu
	servers map[lambda.Scope]*server     // guarded by mu
	turns   map[lambda.Scope]*sync.Mutex // guarded by mu; held while one of the scope is started
}

// server is a process.
type server struct {
	transport *http.Transport
	secret    string
	input     io.Closer // ends it
	process   *os.Process
	gone      chan struct{} // closed when it has ended

	// guarded by Store.mu
	users int
	used  time.Time
}

// New starts nothing.
func New(c Config) *Store {
	c.Idle = cmp.Or(c.Idle, DefaultIdle)
	program := func() ([]string, error) {
		left, _ := filepath.Glob(filepath.Join(c.Run, socketDir+"*")) // the pattern is right
		for _, dir := range left {
			_ = os.RemoveAll(dir) // of a daemon that was killed
		}
		if c.Program != nil {
			return c.Program, nil
		}
		path, err := program.Write(c.Run)
		return []string{path}, err
	}
	return &Store{config: c, program: sync.OnceValues(program), servers: map[lambda.Scope]*server{}, turns: map[lambda.Scope]*sync.Mutex{}}
}

// Run ends processes that nobody asks, until ctx ends.
func (s *Store) Run(ctx context.Context) {
	tick := time.NewTicker(s.config.Idle / 4)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.end(func(v *server) bool { return v.users == 0 && time.Since(v.used) >= s.config.Idle })
		}
	}
}

// Close ends all processes. Nobody may ask meanwhile, or later.
func (s *Store) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.end(func(*server) bool { return true })
	return nil
}

// end ends the processes that which says.
func (s *Store) end(which func(*server) bool) {
	var list []*server
	s.mu.Lock()
	for scope, v := range s.servers {
		if which(v) {
			list = append(list, v)
			delete(s.servers, scope)
		}
	}
	s.mu.Unlock()
	for _, v := range list {
		v.end()
	}
}

func (v *server) end() {
	_ = v.input.Close()
	v.transport.CloseIdleConnections()
	select {
	case <-v.gone:
	case <-time.After(stopTimeout):
		_ = v.process.Kill()
		<-v.gone
	}
}

// Region finds where the account has a bucket: in the region of the scope, if there.
func (s *Store) Region(scope lambda.Scope, bucket string) (lambda.Region, bool) {
	at := func(region string) bool {
		info, err := os.Stat(filepath.Join(s.config.Dir, string(scope.Account), region, "buckets", bucket))
		return err == nil && info.IsDir()
	}
	if strings.ContainsAny(bucket, `/\`) || strings.HasPrefix(bucket, ".") {
		return "", false
	}
	if at(string(scope.Region)) {
		return scope.Region, true
	}
	regions, _ := os.ReadDir(filepath.Join(s.config.Dir, string(scope.Account))) // none: no bucket
	for _, r := range regions {
		if at(r.Name()) {
			return lambda.Region(r.Name()), true
		}
	}
	return "", false
}

// Do makes a request of S3, of the buckets of a scope. Of its URL, path and query
// count; it is signed here, over the header X-Amz-Content-Sha256 if there is one. An
// error says that there is no answer: what came of the request is not known.
func (s *Store) Do(scope lambda.Scope, r *http.Request) (*http.Response, error) {
	v, err := s.server(r.Context(), scope)
	if err != nil {
		return nil, err
	}
	r.URL.Scheme, r.URL.Host, r.Host = "http", "objects", "objects"
	hash := r.Header.Get("X-Amz-Content-Sha256")
	if hash == "" {
		hash = UnsignedPayload
		r.Header.Set("X-Amz-Content-Sha256", hash)
	}
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
	err = signer.SignHTTP(r.Context(), aws.Credentials{AccessKeyID: string(scope.Account), SecretAccessKey: v.secret}, r, hash, "s3", string(scope.Region), time.Now())
	if err != nil {
		s.leave(v)
		return nil, err
	}
	answer, err := v.transport.RoundTrip(r)
	if err != nil {
		s.leave(v)
		return nil, err
	}
	answer.Body = &body{answer.Body, sync.OnceFunc(func() { s.leave(v) })}
	return answer, nil
}

// body tells when an answer is over.
type body struct {
	io.ReadCloser
	over func()
}

func (b *body) Close() error {
	defer b.over()
	return b.ReadCloser.Close()
}

func (s *Store) leave(v *server) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v.users--
	v.used = time.Now()
}

// server returns the process of a scope, for one more user.
func (s *Store) server(ctx context.Context, scope lambda.Scope) (*server, error) {
	s.mu.Lock()
	turn := s.turns[scope]
	if turn == nil {
		turn = new(sync.Mutex)
		s.turns[scope] = turn
	}
	v, err := s.enter(scope)
	s.mu.Unlock()
	if v != nil || err != nil {
		return v, err
	}
	turn.Lock()
	defer turn.Unlock()
	s.mu.Lock()
	v, err = s.enter(scope)
	s.mu.Unlock()
	if v != nil || err != nil {
		return v, err
	}
	if v, err = s.start(context.WithoutCancel(ctx), scope); err != nil {
		return nil, fmt.Errorf("start the process of the buckets of %s in %s: %w", scope.Account, scope.Region, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		go v.end() // it ends with this process at the latest
		return nil, errClosed
	}
	s.servers[scope] = v
	return s.enter(scope)
}

var errClosed = errors.New("kiln is stopping")

// enter returns the process that is there, if any. s.mu is held.
func (s *Store) enter(scope lambda.Scope) (*server, error) {
	if s.closed {
		return nil, errClosed
	}
	v := s.servers[scope]
	if v == nil {
		return nil, nil
	}
	select {
	case <-v.gone:
		delete(s.servers, scope)
		return nil, nil
	default:
		v.users++
		return v, nil
	}
}

// start starts a process and waits until it serves.
func (s *Store) start(ctx context.Context, scope lambda.Scope) (_ *server, err error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	root := filepath.Join(s.config.Dir, string(scope.Account), string(scope.Region))
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, err
	}
	command, err := s.program()
	if err != nil {
		return nil, err
	}
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // never fails
	v := &server{secret: hex.EncodeToString(secret), gone: make(chan struct{})}
	reach, err := s.socket()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(command[0], slices.Concat(command[1:], []string{root, reach.inside, string(scope.Region), string(scope.Account)})...)
	cmd.Env = []string{fmt.Sprintf("GOMEMLIMIT=%d", memory)}
	cmd.ExtraFiles = reach.files
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt is for the daemon, which ends it last
	input, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	output, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	said := &lines{log: s.config.Log, scope: scope}
	cmd.Stderr = said
	if err := cmd.Start(); err != nil {
		reach.close()
		return nil, err
	}
	v.input, v.process = input, cmd.Process
	v.transport = &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", reach.outside)
		},
		DisableCompression: true, MaxIdleConnsPerHost: maxIdleConnections, MaxIdleConns: maxIdleConnections,
	}
	serves := make(chan error, 1)
	go func() { // ends with the process
		line, err := bufio.NewReader(output).ReadString('\n')
		if err == nil && strings.TrimSpace(line) != ready {
			err = fmt.Errorf("it says %q", line)
		}
		serves <- err
		_, _ = io.Copy(io.Discard, output)
		if err := cmd.Wait(); err != nil {
			s.config.Log.Error("the process of buckets has failed", "account", scope.Account, "region", scope.Region, "error", err)
		}
		reach.close()
		close(v.gone)
	}()
	if _, err := io.WriteString(input, v.secret+"\n"); err != nil {
		v.end()
		return nil, err
	}
	select {
	case err = <-serves:
	case <-ctx.Done():
		err = errors.New("it does not serve in time")
	}
	if err != nil {
		v.end()
		return nil, fmt.Errorf("%w %s", err, said.last())
	}
	return v, nil
}

// lines logs what a process writes.
type lines struct {
	log   *slog.Logger
	scope lambda.Scope

	mu   sync.Mutex
	rest []byte // guarded by mu; the last line
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.SplitSeq(strings.TrimSpace(string(p)), "\n") {
		line = line[:min(len(line), maxLine)]
		l.rest = []byte(line)
		l.log.Debug("the process of buckets says", "account", l.scope.Account, "region", l.scope.Region, "line", line)
	}
	return len(p), nil
}

func (l *lines) last() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.rest)
}
