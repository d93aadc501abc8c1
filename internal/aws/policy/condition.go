package policy

import (
	"encoding/base64"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// condition is one key under one operator.
type condition struct {
	key      string // in lower case
	values   []pattern
	test     test
	negated  bool // no value may fit
	ifExists bool
	set      set
	null     bool // the operator Null: the values say whether the key is missing
}

// set says how the several values of a key count.
type set int

const (
	single set = iota
	forAny
	forAll
)

// test compares a value of the request with one of the policy.
type test func(want pattern, keys Keys, have string) bool

// tests are the operators, without those that are the negation of another.
var tests = map[string]test{
	"StringEquals":             plainly(func(want, have string) bool { return want == have }),
	"StringEqualsIgnoreCase":   plainly(strings.EqualFold),
	"StringLike":               wildly(glob),
	"ArnEquals":                wildly(matchARN), // AWS's two are the same
	"ArnLike":                  wildly(matchARN),
	"Bool":                     plainly(strings.EqualFold),
	"BinaryEquals":             plainly(binaryEquals),
	"IpAddress":                plainly(ipAddress),
	"NumericEquals":            plainly(numeric(func(have, want float64) bool { return have == want })),
	"NumericLessThan":          plainly(numeric(func(have, want float64) bool { return have < want })),
	"NumericLessThanEquals":    plainly(numeric(func(have, want float64) bool { return have <= want })),
	"NumericGreaterThan":       plainly(numeric(func(have, want float64) bool { return have > want })),
	"NumericGreaterThanEquals": plainly(numeric(func(have, want float64) bool { return have >= want })),
	"DateEquals":               plainly(date(func(order int) bool { return order == 0 })),
	"DateLessThan":             plainly(date(func(order int) bool { return order < 0 })),
	"DateLessThanEquals":       plainly(date(func(order int) bool { return order <= 0 })),
	"DateGreaterThan":          plainly(date(func(order int) bool { return order > 0 })),
	"DateGreaterThanEquals":    plainly(date(func(order int) bool { return order >= 0 })),
}

var negations = map[string]string{
	"StringNotEquals":           "StringEquals",
	"StringNotEqualsIgnoreCase": "StringEqualsIgnoreCase",
	"StringNotLike":             "StringLike",
	"ArnNotEquals":              "ArnEquals",
	"ArnNotLike":                "ArnLike",
	"NotIpAddress":              "IpAddress",
	"NumericNotEquals":          "NumericEquals",
	"DateNotEquals":             "DateEquals",
}

// newCondition reads an operator; ok is false for one that IAM does not have.
func newCondition(operator string) (c condition, ok bool) {
	if rest, found := strings.CutPrefix(operator, "ForAnyValue:"); found {
		operator, c.set = rest, forAny
	} else if rest, found := strings.CutPrefix(operator, "ForAllValues:"); found {
		operator, c.set = rest, forAll
	}
	if operator == "Null" {
		c.null = true
		return c, c.set == single
	}
	operator, c.ifExists = strings.CutSuffix(operator, "IfExists")
	if positive := negations[operator]; positive != "" {
		operator, c.negated = positive, true
	}
	c.test, ok = tests[operator]
	return c, ok
}

func (c *condition) match(keys Keys) bool {
	values := keys.get(c.key)
	if c.null {
		missing := strconv.FormatBool(len(values) == 0)
		return slices.ContainsFunc(c.values, func(want pattern) bool { return strings.EqualFold(want.text, missing) })
	}
	fits := func(have string) bool {
		return c.negated != slices.ContainsFunc(c.values, func(want pattern) bool { return c.test(want, keys, have) })
	}
	switch {
	case len(values) == 0 && c.set == forAny:
		return c.ifExists
	case len(values) == 0:
		return c.ifExists || c.negated || c.set == forAll
	case c.set == forAny:
		return slices.ContainsFunc(values, fits)
	case c.negated || c.set == forAll:
		return !slices.ContainsFunc(values, func(have string) bool { return !fits(have) })
	}
	return slices.ContainsFunc(values, fits)
}

func plainly(compare func(want, have string) bool) test {
	return func(want pattern, keys Keys, have string) bool {
		text, ok := want.plain(keys)
		return ok && compare(text, have)
	}
}

func wildly(compare func(expanded, have string) bool) test {
	return func(want pattern, keys Keys, have string) bool {
		expanded, ok := want.expand(keys)
		return ok && compare(expanded, have)
	}
}

func binaryEquals(want, have string) bool {
	a, err := base64.StdEncoding.DecodeString(want)
	b, err2 := base64.StdEncoding.DecodeString(have)
	return err == nil && err2 == nil && string(a) == string(b)
}

// ipAddress wants an address or a range of them.
func ipAddress(want, have string) bool {
	ip, err := netip.ParseAddr(have)
	if err != nil {
		return false
	}
	network, err := netip.ParsePrefix(want)
	if err != nil {
		one, err := netip.ParseAddr(want)
		return err == nil && one.Unmap() == ip.Unmap()
	}
	return network.Contains(ip.Unmap())
}

func numeric(compare func(have, want float64) bool) func(want, have string) bool {
	return func(want, have string) bool {
		w, err := strconv.ParseFloat(want, 64)
		h, err2 := strconv.ParseFloat(have, 64)
		return err == nil && err2 == nil && compare(h, w)
	}
}

func date(holds func(order int) bool) func(want, have string) bool {
	return func(want, have string) bool {
		w, ok := parseDate(want)
		h, ok2 := parseDate(have)
		return ok && ok2 && holds(h.Compare(w))
	}
}

// parseDate reads a date of ISO 8601 or seconds since 1970.
func parseDate(s string) (time.Time, bool) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && len(s) > len("2006") {
		return time.Unix(n, 0), true
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04Z07:00", "2006-01-02T15:04:05", time.DateOnly, "2006-01", "2006"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}
