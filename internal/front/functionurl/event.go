package functionurl

import (
	"crypto/tls"
	"encoding/base64"
	"mime"
	"net"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"kiln/internal/aws/wire"
	"kiln/internal/front"
	"kiln/internal/lambda"
)

// maxRequest is lambda.MaxRequestPayload for messages.
var maxRequest = strconv.Itoa(lambda.MaxRequestPayload)

// request is the event of a function URL: payload format 2.0.
// https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html
type request struct {
	Version         string            `json:"version"`
	RouteKey        string            `json:"routeKey"`
	RawPath         string            `json:"rawPath"`
	RawQueryString  string            `json:"rawQueryString"`
	Cookies         []string          `json:"cookies,omitempty"`
	Headers         map[string]string `json:"headers"`
	Query           map[string]string `json:"queryStringParameters,omitempty"`
	RequestContext  requestContext    `json:"requestContext"`
	Body            *string           `json:"body,omitempty"`
	IsBase64Encoded bool              `json:"isBase64Encoded"`
}

type requestContext struct {
	AccountID      string           `json:"accountId"`
	APIID          string           `json:"apiId"`
	Authentication *struct{}        `json:"authentication"` // always null
	Authorizer     *authorizer      `json:"authorizer,omitempty"`
	DomainName     string           `json:"domainName"`
	DomainPrefix   string           `json:"domainPrefix"`
	HTTP           requestHTTP      `json:"http"`
	RequestID      lambda.RequestID `json:"requestId"`
	RouteKey       string           `json:"routeKey"`
	Stage          string           `json:"stage"`
	Time           string           `json:"time"`
	TimeEpoch      int64            `json:"timeEpoch"`
}

type authorizer struct {
	IAM iam `json:"iam"`
}

type iam struct {
	AccessKey       string  `json:"accessKey"`
	AccountID       string  `json:"accountId"`
	CallerID        string  `json:"callerId"`
	CognitoIdentity *string `json:"cognitoIdentity"` // always null, as is the next
	PrincipalOrgID  *string `json:"principalOrgId"`
	UserARN         string  `json:"userArn"`
	UserID          string  `json:"userId"`
}

type requestHTTP struct {
	Method    string `json:"method"`
	Path      string `json:"path"`
	Protocol  string `json:"protocol"`
	SourceIP  string `json:"sourceIp"`
	UserAgent string `json:"userAgent"`
}

// event is the request as the function gets it.
func (c *call) event(body []byte) ([]byte, error) {
	r := c.r
	path := strings.TrimPrefix(r.URL.EscapedPath(), c.target.Prefix)
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	domain := r.Host
	if c.target.Prefix != "" {
		domain = front.FunctionURLHost(c.url.ID, c.arn.Region, "localhost")
	}
	if name, _, err := net.SplitHostPort(domain); err == nil {
		domain = name
	}
	e := request{
		Version: "2.0", RouteKey: "$default", RawPath: path, RawQueryString: r.URL.RawQuery,
		Headers: c.headers(), Query: parameters(r.URL),
		RequestContext: requestContext{
			AccountID: "anonymous", APIID: c.url.ID, DomainName: domain, DomainPrefix: c.url.ID,
			HTTP:      requestHTTP{Method: r.Method, Path: path, Protocol: r.Proto, SourceIP: c.source(), UserAgent: r.UserAgent()},
			RequestID: c.id, RouteKey: "$default", Stage: "$default",
			Time: c.began.UTC().Format("02/Jan/2006:15:04:05 -0700"), TimeEpoch: c.began.UnixMilli(),
		},
	}
	for _, line := range r.Header.Values("Cookie") {
		for cookie := range strings.SplitSeq(line, ";") {
			if cookie = strings.TrimSpace(cookie); cookie != "" {
				e.Cookies = append(e.Cookies, cookie)
			}
		}
	}
	if c.url.AuthType != "NONE" {
		e.RequestContext.AccountID = string(c.arn.Account)
		e.RequestContext.Authorizer = &authorizer{iam{
			AccessKey: c.who.AccessKey, AccountID: string(c.who.Account), CallerID: c.who.UserID, UserARN: c.who.ARN, UserID: c.who.UserID,
		}}
	}
	if len(body) > 0 {
		text := string(body)
		if !isText(r.Header.Get("Content-Type")) || !utf8.Valid(body) {
			text, e.IsBase64Encoded = base64.StdEncoding.EncodeToString(body), true
		}
		e.Body = &text
	}
	event, err := wire.Marshal(e)
	if err == nil && len(event) > lambda.MaxRequestPayload {
		return nil, tooLarge()
	}
	return event, err
}

// hopByHop are the headers that are about a connection.
var hopByHop = map[string]bool{
	"Connection": true, "Keep-Alive": true, "Proxy-Connection": true, "Te": true, "Trailer": true, "Transfer-Encoding": true, "Upgrade": true,
}

// headers are those of the request, and what the platform adds.
func (c *call) headers() map[string]string {
	r := c.r
	all := map[string]string{}
	for name, values := range r.Header {
		if !hopByHop[name] && name != "Cookie" {
			all[strings.ToLower(name)] = strings.Join(values, ",")
		}
	}
	for _, name := range strings.Split(strings.Join(r.Header.Values("Connection"), ","), ",") {
		delete(all, strings.ToLower(textproto.TrimString(name)))
	}
	if r.ContentLength > 0 {
		all["content-length"] = strconv.FormatInt(r.ContentLength, 10)
	}
	all["host"] = r.Host
	all["x-amzn-trace-id"] = c.trace
	all["x-forwarded-for"] = strings.TrimPrefix(all["x-forwarded-for"]+","+c.source(), ",")
	scheme, port := "http", "80"
	if r.TLS != nil {
		scheme, port = "https", "443"
		all["x-amzn-tls-version"] = strings.ReplaceAll(tls.VersionName(r.TLS.Version), "TLS ", "TLSv")
		all["x-amzn-tls-cipher-suite"] = tls.CipherSuiteName(r.TLS.CipherSuite)
	}
	if _, p, err := net.SplitHostPort(r.Host); err == nil {
		port = p
	}
	all["x-forwarded-proto"], all["x-forwarded-port"] = scheme, port
	return all
}

// source is where the request came from. One from within an environment has no address
// but the one of all such.
func (c *call) source() string {
	if from := front.Anybody(c.r).From; from.IsValid() {
		return from.String()
	}
	return "127.0.0.1"
}

// parameters are those of the query; what cannot be read is in the raw query alone.
func parameters(u *url.URL) map[string]string {
	all := map[string]string{}
	for name, values := range u.Query() {
		all[name] = strings.Join(values, ",")
	}
	return all
}

// isText tells whether a body of the type is passed as it is.
func isText(contentType string) bool {
	t, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		t, _, _ = strings.Cut(strings.ToLower(contentType), ";")
	}
	return strings.HasPrefix(t, "text/") || strings.HasSuffix(t, "+json") || strings.HasSuffix(t, "+xml") ||
		slices.Contains([]string{"application/json", "application/javascript", "application/xml"}, strings.TrimSpace(t))
}
