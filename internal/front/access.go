// Package front holds what all doors share: who may come in. Its folders are the
// doors themselves: gateway (the one port, and where a request goes), api (the
// Lambda API), logs (CloudWatch Logs), iam and sts, functionurl (plain HTTP to functions), forward (services
// that others serve), and operator (health, metrics, and what Kiln's own commands need).
package front

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base32"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"kiln/internal/aws/policy"
	"kiln/internal/aws/sigv4"
	"kiln/internal/environment"
	"kiln/internal/identity"
	"kiln/internal/lambda"
)

// Caller is who made a request, and where it counts.
type Caller struct {
	Principal lambda.Principal
	Scope     lambda.Scope // the caller's account, and the region that was signed for
	Service   string       // that was signed for
	// Unregioned says that no region was signed for, as in old presigned URLs of S3: it
	// is the configured one.
	Unregioned bool
	// Verify checks the signature over the whole body; nil where no key is required.
	Verify func(body []byte) error
	// Chunks is in place of Verify for bodies that nobody holds whole: it checks the
	// signature over all else, and returns what verifies chunks as they pass by, nil
	// where the body does not come in any. That a body has the hash that was signed is
	// the door's to check.
	Chunks func() (*sigv4.Reader, error)
}

// Config of an Access.
type Config struct {
	Account lambda.AccountID
	Region  lambda.Region
	// AccessKey and Secret of the root key, which is the account's; "" for none.
	AccessKey, Secret string
	// Hosts are names, beyond the loopback ones, by which clients may call Kiln.
	Hosts []string
	// Identities have the other keys, and the roles. While there is no key at all,
	// every well-formed signature is the root's. nil: there are none.
	Identities Identities
	// Policy is the resource-based policy of what the ARN names, and Tags are its
	// tags; nil where nothing has any.
	Policy func(lambda.ARN) lambda.Policy
	Tags   func(lambda.ARN) map[string]string
}

// Identities is what an Access asks of the identity package.
type Identities interface {
	Keyed() bool
	Credential(accessKey string) (identity.Credential, bool)
	Rights(accessKey string) (identity.Rights, bool)
	// Session is Credential for what has a token, such as a session of a role.
	Session(accessKey, token string) (identity.Credential, bool)
	// RoleByARN, RoleRights and RoleTrusts are about roles; the first is nil and the
	// second not ok of one that nobody made here.
	RoleByARN(arn string) *identity.Role
	RoleRights(arn string) (identity.Rights, bool)
	RoleTrusts(r *identity.Role, request *policy.Request) policy.Decision
}

// Access decides which requests come in, and what their callers may do. It is safe
// for concurrent use.
type Access struct {
	config Config
	local  string // secret of the links that Kiln makes

	mu           sync.RWMutex
	environments map[string]identity.Credential // guarded by mu; by access key
}

// nobody has no identities.
type nobody struct{}

func (nobody) Keyed() bool                                   { return false }
func (nobody) Credential(string) (identity.Credential, bool) { return identity.Credential{}, false }
func (nobody) Rights(string) (identity.Rights, bool)         { return identity.Rights{}, false }
func (nobody) RoleByARN(string) *identity.Role               { return nil }
func (nobody) RoleRights(string) (identity.Rights, bool)     { return identity.Rights{}, false }
func (nobody) Session(string, string) (identity.Credential, bool) {
	return identity.Credential{}, false
}
func (nobody) RoleTrusts(*identity.Role, *policy.Request) policy.Decision { return policy.Silent }

// linkKey begins the keys that sign the links which Kiln makes, such as
// Code.Location. The account whose link it is follows.
const linkKey = "KILNLINK"

// NewAccess returns an Access without environments.
func NewAccess(config Config) *Access {
	if config.Identities == nil {
		config.Identities = nobody{}
	}
	return &Access{config: config, local: random(40), environments: map[string]identity.Credential{}}
}

// Keyed reports whether a key is required: one is configured, or was made.
func (a *Access) Keyed() bool { return a.config.AccessKey != "" || a.config.Identities.Keyed() }

// Operator is the account that Kiln is run by: the configured one.
func (a *Access) Operator() lambda.AccountID { return a.config.Account }

// CheckBrowser refuses what a web page could send: a page must never reach an
// operation, even of a Kiln without keys. A page cannot set Host; a browser sets
// Origin on every request that could do harm, and Sec-Fetch-Site on all.
func (a *Access) CheckBrowser(r *http.Request) error {
	host := hostname(r.Host)
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

// hostname is the host of a request without its port, in lower case.
func hostname(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
}

func (a *Access) allowedHost(host string) bool {
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
// within an execution environment: only credentials that Kiln knows count there,
// and they are always verified. Of a refused request the caller has what the
// request says of itself.
func (a *Access) Authenticate(r *http.Request, inside bool) (Caller, error) {
	s, err := sigv4.Parse(r)
	if err != nil {
		return Caller{Principal: Anybody(r)}, err
	}
	unproven := Caller{Principal: cameFrom(lambda.Principal{AccessKey: s.AccessKey}, r)}
	region := lambda.Region(s.Region)
	unregioned := s.Region == ""
	if unregioned {
		region = a.config.Region
	} else if !validRegion(s.Region) {
		return unproven, sigv4.BadRegion()
	}
	credential, known := a.credential(s.AccessKey)
	if !known && s.SessionToken != "" {
		credential, known = a.config.Identities.Session(s.AccessKey, s.SessionToken)
	}
	switch {
	case known && subtle.ConstantTimeCompare([]byte(s.SessionToken), []byte(credential.Token)) != 1:
		return unproven, sigv4.UnknownKey()
	case known && !credential.Expires.IsZero() && !time.Now().Before(credential.Expires):
		return unproven, sigv4.ExpiredToken()
	case !known && (a.Keyed() || inside):
		return unproven, sigv4.UnknownKey()
	case !known: // anybody is the root
		credential.Principal = a.root(s.AccessKey)
	}
	caller := Caller{
		Principal: cameFrom(credential.Principal, r), Service: s.Service, Unregioned: unregioned,
		Scope: lambda.Scope{Account: credential.Principal.Account, Region: region},
		Chunks: func() (*sigv4.Reader, error) {
			var signature *sigv4.Signature // none is verified of a key that is not known
			if known {
				if err := sigv4.Verify(r, s, credential.Secret, "", time.Now()); err != nil {
					return nil, err
				}
				signature = s
			}
			if !sigv4.Chunked(r) {
				return nil, nil
			}
			return sigv4.NewReader(r, signature, credential.Secret)
		},
	}
	if !known {
		return caller, nil
	}
	if err := s.CheckTime(time.Now()); err != nil {
		return unproven, err
	}
	caller.Verify = func(body []byte) error {
		return sigv4.Verify(r, s, credential.Secret, sigv4.BodyHash(body), time.Now())
	}
	return caller, nil
}

// credential finds what an access key id stands for.
func (a *Access) credential(accessKey string) (identity.Credential, bool) {
	if accessKey == a.config.AccessKey && a.config.AccessKey != "" {
		return identity.Credential{Principal: a.root(accessKey), Secret: a.config.Secret}, true
	}
	if account, found := strings.CutPrefix(accessKey, linkKey); found {
		return identity.Credential{Principal: lambda.Principal{Account: lambda.AccountID(account), AccessKey: accessKey, ARN: lambda.RootARN(lambda.AccountID(account))}, Secret: a.local}, true
	}
	a.mu.RLock()
	c, ok := a.environments[accessKey]
	a.mu.RUnlock()
	if ok {
		return c, true
	}
	return a.config.Identities.Credential(accessKey)
}

func (a *Access) root(key string) lambda.Principal {
	return lambda.Principal{Account: a.config.Account, AccessKey: key, ARN: lambda.RootARN(a.config.Account), UserID: string(a.config.Account)}
}

// Anybody is who made a request that is not signed, or whose signature is not asked for.
func Anybody(r *http.Request) lambda.Principal { return cameFrom(lambda.Principal{}, r) }

// cameFrom adds where a request came from.
func cameFrom(who lambda.Principal, r *http.Request) lambda.Principal {
	if from, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		who.From = from.Addr().Unmap().WithZone("")
	}
	who.Secure = r.TLS != nil
	return who
}

// maxRegion bounds a region's name, in characters.
const maxRegion = 32

// Account finds whose an access key is.
func (a *Access) Account(accessKey string) (lambda.AccountID, bool) {
	c, ok := a.credential(accessKey)
	return c.Principal.Account, ok
}

// validRegion tells whether a region can be part of names.
func validRegion(s string) bool {
	return len(s) <= maxRegion && !strings.ContainsFunc(s, func(c rune) bool { return c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') })
}

// Link returns a URL that lets anyone GET the path for a while, as the root of the
// account whose it is.
func (a *Access) Link(base, path string, scope lambda.Scope, valid time.Duration) (string, error) {
	return sigv4.Presign(base+path, linkKey+string(scope.Account), a.local, string(scope.Region), "kiln", valid, time.Now())
}

// Issue makes an environment's credentials: a session of the function's role.
func (a *Access) Issue(fn *lambda.Function, id string) environment.Credentials {
	c := environment.Credentials{
		AccessKeyID:     "ASIA" + random(16),
		SecretAccessKey: random(40),
		SessionToken:    random(64),
	}
	who := a.Acting(fn)
	who.AccessKey, who.Environment = c.AccessKeyID, id
	a.mu.Lock()
	defer a.mu.Unlock()
	a.environments[c.AccessKeyID] = identity.Credential{Principal: who, Secret: c.SecretAccessKey, Token: c.SessionToken}
	return c
}

// Acting is the function's role, in whose name its environments call, and Kiln on its
// behalf.
func (a *Access) Acting(fn *lambda.Function) lambda.Principal {
	role := fn.Settings.Role
	name := role[strings.LastIndexByte(role, '/')+1:]
	roleID := "AROA" + random(16)
	if r := a.config.Identities.RoleByARN(role); r != nil {
		roleID = r.ID
	}
	return lambda.Principal{
		Account:     fn.ARN.Account,
		ARN:         "arn:aws:sts::" + string(fn.ARN.Account) + ":assumed-role/" + name + "/" + string(fn.ARN.Name),
		UserID:      roleID + ":" + string(fn.ARN.Name),
		Role:        role,
		Environment: "kiln", // itself
	}
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
