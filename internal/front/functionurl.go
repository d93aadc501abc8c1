package front

import (
	"net"
	"net/netip"
	"strings"

	"kiln/internal/lambda"
)

// FunctionURLPath is where function URLs are for clients that do not resolve the names
// below localhost: their ids follow.
const FunctionURLPath = "/_kiln/url/"

// FunctionURL is the address of a function URL for a client that calls Kiln at base:
// below the name in it, for every name below localhost leads to this machine, and by
// path at an address of another machine, which has no names below it.
func FunctionURL(base, id string, region lambda.Region) string {
	scheme, host, _ := strings.Cut(base, "://")
	name, port, err := net.SplitHostPort(host)
	if err != nil { // it has no port
		name, port = strings.Trim(host, "[]"), ""
	}
	switch ip, err := netip.ParseAddr(name); {
	case err == nil && !ip.IsLoopback():
		return base + FunctionURLPath + id + "/"
	case err == nil, strings.HasSuffix(name, ".localhost"):
		name = "localhost"
	}
	if port != "" {
		name += ":" + port
	}
	return scheme + "://" + FunctionURLHost(id, region, name) + "/"
}

// FunctionURLHost is the host of a function URL, below a name of Kiln's.
func FunctionURLHost(id string, region lambda.Region, name string) string {
	return id + functionURLInfix + string(region) + "." + name
}

// functionURLInfix follows the id in a host name; the region follows it.
const functionURLInfix = ".lambda-url."

// FunctionURLTarget is which function URL a request is for.
type FunctionURLTarget struct {
	ID     string
	Region lambda.Region // "" by path
	Prefix string        // what of the path is not the function's
}

// FunctionURL tells whether a request is for a function URL, by its host or by its path.
// What a host of function URLs asks for is never anything else. The host is one that
// Kiln is called by, or below one.
func (a *Access) FunctionURL(host, path string) (t FunctionURLTarget, ok bool) {
	host = hostname(host)
	if id, rest, found := strings.Cut(host, functionURLInfix); found && !strings.Contains(id, ".") {
		region, name, _ := strings.Cut(rest, ".")
		return FunctionURLTarget{ID: id, Region: lambda.Region(region)}, a.allowedHost(name) || a.allowedHost(host)
	}
	rest, found := strings.CutPrefix(path, FunctionURLPath) // the path is escaped, as the prefix is cut off again
	id, _, _ := strings.Cut(rest, "/")
	return FunctionURLTarget{ID: id, Prefix: FunctionURLPath + id}, found && a.allowedHost(host)
}
