// Package front holds what all doors share: who may come in. Its folders are the
// doors themselves: gateway (the one port, and where a request goes), api (the
// Lambda API), logs (CloudWatch Logs) and operator (health, metrics, and what
// Kiln's own commands need).
package front

import (
	"crypto/rand"
	"encoding/base32"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"kiln/internal/aws/sigv4"
	"kiln/internal/environment"
	"kiln/internal/lambda"
)

// Caller is who made a request, and where it counts.
type Caller struct {
	Principal lambda.Principal
	Scope     lambda.Scope // the caller's account, and the region that was signed for
	Service   string       // that was signed for
	// Verify checks the signature over the whole body; nil where no key is required.
	Verify func(body []byte) error
}

// Config of an Access.
type Config struct {
	Account lambda.AccountID
	Region  lambda.Region
	// AccessKey and Secret of the root key; "" lets every well-formed signature in.
	AccessKey, Secret string
	// Hosts are names, beyond the loopback ones, by which clients may call Kiln.
	Hosts []string
}

// Access decides which requests come in. It is safe for concurrent use.
type Access struct {
	config Config
	local  string // secret of the links that Kiln makes

	mu           sync.RWMutex
	environments map[string]identity // guarded by mu; by access key
}

type identity struct {
	principal lambda.Principal
	secret    string
	token     string
}

// linkKey signs the links that Kiln makes, such as Code.Location.
const linkKey = "KILNLINK"

// NewAccess returns an Access without environments.
func NewAccess(config Config) *Access {
	return &Access{config: config, local: random(40), environments: map[string]identity{}}
}

// Keyed reports whether a key is required.
func (a *Access) Keyed() bool { return a.config.AccessKey != "" }

// CheckBrowser refuses what a web page could send: a page must never reach an
// operation, even of a Kiln without keys. A page cannot set Host; a browser sets
// Origin on every request that could do harm, and Sec-Fetch-Site on all.
func (a *Access) CheckBrowser(r *http.Request) error {
	host := r.Host
	if h, _, err := net.SplitHostPort(r.Host); err == nil {
		host = h
	}
	if !a.allowedHost(host) {
		return lambda.AccessDenied("Kiln is called here as %q, which is neither a loopback name nor configured. Add it to hosts in kiln.toml (or KILN_HOSTS) if that is intended.", host)
	}
	if origin := r.Header.Get("Origin"); origin != "" {
		u, err := url.Parse(origin)
		if err != nil || u.Host != r.Host {
			return lambda.AccessDenied("Kiln does not answer web pages of another origin (%s).", origin)
		}
	}
	switch site := r.Header.Get("Sec-Fetch-Site"); site {
	case "", "same-origin", "none":
		return nil
	default:
		return lambda.AccessDenied("Kiln does not answer web pages of another origin (Sec-Fetch-Site: %s).", site)
	}
}

func (a *Access) allowedHost(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsLoopback() {
		return true
	}
	for _, h := range a.config.Hosts {
		h = strings.ToLower(h)
		if below, wild := strings.CutPrefix(h, "*"); h == host || wild && strings.HasSuffix(host, below) {
			return true
		}
	}
	return false
}

// Authenticate finds out who signed the request. inside says that it came from
// within an execution environment: only that environment's credentials, or the
// root key's, count there, and both are always verified.
func (a *Access) Authenticate(r *http.Request, inside bool) (Caller, error) {
	s, err := sigv4.Parse(r)
	if err != nil {
		return Caller{}, err
	}
	caller := Caller{Service: s.Service, Scope: lambda.Scope{Account: a.config.Account, Region: lambda.Region(s.Region)}}
	var secret string
	a.mu.RLock()
	environment, ours := a.environments[s.AccessKey]
	a.mu.RUnlock()
	switch {
	case ours:
		if s.SessionToken != environment.token {
			return Caller{}, sigv4.UnknownKey()
		}
		caller.Principal, caller.Scope.Account, secret = environment.principal, environment.principal.Account, environment.secret
	case s.AccessKey == linkKey:
		caller.Principal, secret = lambda.Principal{Account: a.config.Account, AccessKey: linkKey, ARN: "arn:aws:iam::" + string(a.config.Account) + ":root"}, a.local
	case a.Keyed() && s.AccessKey == a.config.AccessKey:
		caller.Principal, secret = a.root(s.AccessKey), a.config.Secret
	case a.Keyed() || inside:
		return Caller{}, sigv4.UnknownKey()
	default:
		caller.Principal = a.root(s.AccessKey)
		return caller, nil
	}
	if err := s.CheckTime(time.Now()); err != nil {
		return Caller{}, err
	}
	caller.Verify = func(body []byte) error {
		return sigv4.Verify(r, s, secret, sigv4.BodyHash(body), time.Now())
	}
	return caller, nil
}

func (a *Access) root(key string) lambda.Principal {
	return lambda.Principal{Account: a.config.Account, AccessKey: key, ARN: "arn:aws:iam::" + string(a.config.Account) + ":root"}
}

// Authorise decides whether a caller may do the action on the resource: anything
// in its own account, nothing in another.
func (a *Access) Authorise(who lambda.Principal, action string, resource lambda.ARN) error {
	if who.Account == resource.Owner() {
		return nil
	}
	return lambda.AccessDenied("User: %s is not authorized to perform: %s on resource: %s because no identity-based policy allows the %s action", who.ARN, action, resource, action)
}

// Link returns a URL that lets anyone GET the path for a while.
func (a *Access) Link(base, path string, region lambda.Region, valid time.Duration) (string, error) {
	return sigv4.Presign(base+path, linkKey, a.local, string(region), "kiln", valid, time.Now())
}

// Issue makes an environment's credentials.
func (a *Access) Issue(fn *lambda.Function, id string) environment.Credentials {
	c := environment.Credentials{
		AccessKeyID:     "ASIA" + random(16),
		SecretAccessKey: random(40),
		SessionToken:    random(64),
	}
	role := fn.Settings.Role
	if i := strings.LastIndexByte(role, '/'); i >= 0 {
		role = role[i+1:]
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.environments[c.AccessKeyID] = identity{
		principal: lambda.Principal{
			Account:     fn.ARN.Account,
			AccessKey:   c.AccessKeyID,
			ARN:         "arn:aws:sts::" + string(fn.ARN.Account) + ":assumed-role/" + role + "/" + string(fn.ARN.Name),
			Environment: id,
		},
		secret: c.SecretAccessKey, token: c.SessionToken,
	}
	return c
}

// Revoke ends an environment's credentials.
func (a *Access) Revoke(c environment.Credentials) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.environments, c.AccessKeyID)
}

// random returns n characters of [A-Z2-7].
func random(n int) string {
	b := make([]byte, (n*5+7)/8)
	_, _ = rand.Read(b) // never fails
	return base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b)[:n]
}
