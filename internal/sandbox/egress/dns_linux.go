package egress

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	dnsPort = 53
	// answerTimeout bounds the wait for each name server, as resolvers have it.
	answerTimeout = 5 * time.Second
	// questions bounds what is asked at a time; more wait in the socket's buffer.
	questions = 512
	// connections bounds those over TCP.
	connections = 128
	// maxServers is how many name servers are asked in turn, as resolvers do.
	maxServers = 3
	// leastOpen is how long an address that a name led to can be reached at least:
	// programs keep it longer than they were told.
	leastOpen, mostOpen = 5 * time.Minute, 24 * time.Hour
	maxUDP              = 4096 // a question or an answer; longer ones come by TCP
)

// resolver asks the host's name servers for the sandboxes, and lets each reach what the names
// lead to that it may reach. A name that it may not reach is refused: a question can carry
// a secret out.
type resolver struct {
	e    *Egress
	udp  *net.UDPConn
	tcp  *net.TCPListener
	free chan struct{} // a token for each question under way
	open chan struct{} // a token for each connection

	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu      sync.Mutex
	changed time.Time        // guarded by mu; when the host's file did
	servers []netip.AddrPort // guarded by mu
}

// newResolver listens; serve answers.
func newResolver(at netip.AddrPort, e *Egress) (*resolver, error) {
	udp, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at))
	if err != nil {
		return nil, fmt.Errorf("listen for questions for names: %w", err)
	}
	tcp, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(at))
	if err != nil {
		_ = udp.Close()
		return nil, fmt.Errorf("listen for questions for names: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &resolver{
		e: e, udp: udp, tcp: tcp, ctx: ctx, cancel: cancel,
		free: make(chan struct{}, questions), open: make(chan struct{}, connections),
	}, nil
}

func (r *resolver) serve() {
	r.work.Go(r.serveUDP)
	r.work.Go(r.serveTCP)
}

func (r *resolver) close() {
	r.cancel()
	_ = r.udp.Close()
	_ = r.tcp.Close()
	r.work.Wait()
}

func (r *resolver) serveUDP() {
	for {
		buf := make([]byte, maxUDP)
		n, from, err := r.udp.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // of an answer that was refused
		}
		select {
		case r.free <- struct{}{}:
		case <-r.ctx.Done():
			return
		}
		r.work.Go(func() {
			defer func() { <-r.free }()
			if answer := r.answer("udp", from.Addr().Unmap(), buf[:n]); answer != nil {
				_, _ = r.udp.WriteToUDPAddrPort(answer, from)
			}
		})
	}
}

func (r *resolver) serveTCP() {
	for {
		conn, err := r.tcp.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		select {
		case r.open <- struct{}{}:
		case <-r.ctx.Done():
			_ = conn.Close()
			return
		}
		r.work.Go(func() {
			defer func() { <-r.open }()
			defer conn.Close()
			stop := context.AfterFunc(r.ctx, func() { _ = conn.Close() })
			defer stop()
			from := conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
			for {
				_ = conn.SetDeadline(time.Now().Add(maxServers * answerTimeout))
				question, err := readFrame(conn)
				if err != nil {
					return
				}
				answer := r.answer("tcp", from, question)
				if answer == nil || writeFrame(conn, answer) != nil {
					return
				}
			}
		})
	}
}

// readFrame reads a message as TCP carries it, behind its length.
func readFrame(r io.Reader) ([]byte, error) {
	var length [2]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint16(length[:]))
	_, err := io.ReadFull(r, b)
	return b, err
}

func writeFrame(w io.Writer, b []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
	return err
}

// answer is what the sandbox at the address is told; nil for nothing.
func (r *resolver) answer(network string, from netip.Addr, question []byte) []byte {
	r.e.mu.Lock()
	p := r.e.links[from]
	r.e.mu.Unlock()
	var parser dnsmessage.Parser
	header, err := parser.Start(question)
	if p == nil || err != nil || header.Response {
		return nil
	}
	asked, err := parser.Question()
	if err != nil || header.OpCode != 0 {
		return reply(header, nil, dnsmessage.RCodeFormatError)
	}
	name := strings.TrimSuffix(strings.ToLower(asked.Name.String()), ".")
	var matching []int
	for i, d := range p.allow {
		if d.Matches(name) {
			matching = append(matching, i)
		}
	}
	if len(p.allow) > 0 && len(matching) == 0 {
		return reply(header, &asked, dnsmessage.RCodeRefused)
	}
	for _, server := range r.ask() {
		answer, err := r.forward(network, server, question)
		if err != nil {
			continue
		}
		if err := r.reach(p, matching, answer); err != nil && r.e.cfg.Log != nil {
			r.e.cfg.Log.Warn("what a name leads to cannot be reached by a function", "error", err)
		}
		return answer
	}
	return reply(header, &asked, dnsmessage.RCodeServerFailure)
}

// reach lets the addresses in the answer be reached.
func (r *resolver) reach(p *policy, matching []int, answer []byte) error {
	if len(matching) == 0 {
		return nil
	}
	var parser dnsmessage.Parser
	if _, err := parser.Start(answer); err != nil {
		return nil
	}
	if err := parser.SkipAllQuestions(); err != nil {
		return nil
	}
	var addrs []netip.Addr
	during := leastOpen
	for {
		h, err := parser.AnswerHeader()
		if err != nil {
			break
		}
		if h.Type != dnsmessage.TypeA || h.Class != dnsmessage.ClassINET {
			if parser.SkipAnswer() != nil {
				break
			}
			continue
		}
		a, err := parser.AResource()
		if err != nil {
			break
		}
		addrs = append(addrs, netip.AddrFrom4(a.A))
		during = max(during, min(2*time.Duration(h.TTL)*time.Second, mostOpen))
	}
	if len(addrs) == 0 {
		return nil
	}
	var err error
	for _, i := range matching {
		err = errors.Join(err, r.e.rules.open(p, i, addrs, during))
	}
	return err
}

// forward asks one server. The question gets a number that its asker does not know.
func (r *resolver) forward(network string, server netip.AddrPort, question []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(r.ctx, answerTimeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, network, server.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	ours := append([]byte(nil), question...)
	number := uint16(rand.Uint32())
	binary.BigEndian.PutUint16(ours, number)
	if network == "tcp" {
		err = writeFrame(conn, ours)
	} else {
		_, err = conn.Write(ours)
	}
	for err == nil {
		var answer []byte
		if network == "tcp" {
			answer, err = readFrame(conn)
		} else {
			answer = make([]byte, maxUDP)
			var n int
			n, err = conn.Read(answer)
			answer = answer[:n]
		}
		if err == nil && len(answer) >= 12 && binary.BigEndian.Uint16(answer) == number {
			copy(answer, question[:2])
			return answer, nil
		}
	}
	return nil, err
}

// reply is an answer of our own.
func reply(to dnsmessage.Header, asked *dnsmessage.Question, code dnsmessage.RCode) []byte {
	m := dnsmessage.Message{Header: dnsmessage.Header{
		ID: to.ID, Response: true, OpCode: to.OpCode, RecursionDesired: to.RecursionDesired, RecursionAvailable: true, RCode: code,
	}}
	if asked != nil {
		m.Questions = []dnsmessage.Question{*asked}
	}
	b, err := m.Pack()
	if err != nil {
		return nil
	}
	return b
}

// ask returns the servers to ask.
func (r *resolver) ask() []netip.AddrPort {
	if len(r.e.cfg.Servers) > 0 {
		return r.e.cfg.Servers
	}
	const file = "/etc/resolv.conf"
	st, err := os.Stat(file)
	if err != nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if st.ModTime().Equal(r.changed) {
		return r.servers
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return r.servers
	}
	r.changed, r.servers = st.ModTime(), nil
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "nameserver" || len(r.servers) == maxServers {
			continue
		}
		if a, err := netip.ParseAddr(fields[1]); err == nil {
			r.servers = append(r.servers, netip.AddrPortFrom(a, dnsPort))
		}
	}
	return r.servers
}
