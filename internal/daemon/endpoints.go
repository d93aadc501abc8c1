package daemon

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"kiln/internal/aws/sdk"
	"kiln/internal/aws/sigv4"
	"kiln/internal/aws/wire"
	"kiln/internal/config"
	"kiln/internal/front"
	"kiln/internal/front/forward"
)

// lookupTimeout bounds the look-up of an endpoint's name at start.
const lookupTimeout = 5 * time.Second

// adoptEndpoints adds to the configured endpoints those that the SDK's own variables
// name. They may be meant for others, so that what would harm is left out: Kiln itself,
// what it serves, and AWS, which nothing here may reach by accident.
func (d *Daemon) adoptEndpoints(ctx context.Context, getenv func(string) string) error {
	listens, err := d.config.Addresses()
	if err != nil {
		return err
	}
	all := maps.Clone(d.config.Endpoints)
	if all == nil {
		all = map[string]string{}
	}
	urls, variables := sigv4.Endpoints(getenv)
	for _, service := range slices.Sorted(maps.Keys(urls)) {
		u, err := url.Parse(urls[service])
		if err != nil || all[service] != "" || config.Served(service) || strings.HasSuffix(strings.ToLower(u.Hostname()), ".amazonaws.com") || leadsTo(ctx, u, listens) {
			continue
		}
		all[service] = urls[service]
		d.log.Info("an endpoint is taken from the environment", "service", service, "endpoint", urls[service], "variable", variables[service])
	}
	d.config.Endpoints = all
	return d.config.Validate()
}

// checkEndpoints refuses endpoints that lead to Kiln itself, where requests would go
// round in circles.
func (d *Daemon) checkEndpoints(ctx context.Context, p *ports) error {
	var listens []string
	for _, l := range slices.Concat(p.main, p.admin) {
		listens = append(listens, l.Addr().String())
	}
	for key, urls := range map[string]map[string]string{"endpoints": d.config.Endpoints, "source_endpoints": d.config.SourceEndpoints} {
		for _, of := range slices.Sorted(maps.Keys(urls)) {
			u, err := url.Parse(urls[of])
			if err != nil {
				return fmt.Errorf("%s: %s: %w", key, of, err)
			}
			if leadsTo(ctx, u, listens) {
				return fmt.Errorf("%s: the URL of %s, %s, leads to Kiln itself; name where the service is, or remove it", key, of, u)
			}
		}
	}
	return nil
}

// forwarder makes the door of the services that others serve.
func (d *Daemon) forwarder(ctx context.Context, access *front.Access, audit *front.Audit, admit wire.Admit) (*forward.Door, error) {
	c := forward.Config{Access: access, Audit: audit, Admit: admit, Log: d.log, Endpoints: d.config.Endpoints, Resign: map[string][]string{}}
	for service, actions := range d.config.Resign {
		c.Resign[service] = strings.Fields(actions)
		if c.Credentials == nil {
			connection, err := sdk.Connect(ctx, sdk.Config{Endpoint: d.config.Endpoint(service), Region: d.config.Region})
			if err != nil {
				return nil, err
			}
			if connection.Unsigned != nil {
				return nil, fmt.Errorf("resign: there are no credentials to sign with: %w", connection.Unsigned)
			}
			c.Credentials = connection.Credentials
		}
	}
	return forward.New(c)
}

// leadsTo tells whether a URL leads to one of the addresses, which are this machine's. A
// name that cannot be looked up leads nowhere yet.
func leadsTo(ctx context.Context, u *url.URL, addresses []string) bool {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	var here []netip.Addr // that are listened on
	for _, a := range addresses {
		if host, p, err := net.SplitHostPort(a); err == nil && p == port {
			ip, err := netip.ParseAddr(host)
			if err != nil { // an empty host is every address
				ip = netip.IPv6Unspecified()
			}
			here = append(here, ip.Unmap())
		}
	}
	if len(here) == 0 {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	name := strings.TrimSuffix(u.Hostname(), ".")
	if strings.HasSuffix(name, ".localhost") {
		name = "localhost"
	}
	targets, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(targets, func(target netip.Addr) bool {
		target = target.Unmap().WithZone("")
		return slices.ContainsFunc(here, func(ip netip.Addr) bool {
			return ip == target || (ip.IsUnspecified() || target.IsUnspecified()) && ours(target)
		})
	})
}

// ours tells whether the address is one of this machine's.
func ours(ip netip.Addr) bool {
	if ip.IsLoopback() || ip.IsUnspecified() {
		return true
	}
	all, err := net.InterfaceAddrs()
	return err == nil && slices.ContainsFunc(all, func(a net.Addr) bool {
		p, err := netip.ParsePrefix(a.String())
		return err == nil && p.Addr().Unmap() == ip
	})
}
