package functionurl

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
)

const corsPrefix = "Access-Control-"

// ownCORS tells whether the URL's settings say what pages of other origins may read. Then
// nothing that the function says of it counts.
func (c *call) ownCORS() bool { return c.url.CORS != nil && c.r.Header.Get("Origin") != "" }

// cors puts what the URL's CORS settings say into the answer, and answers a browser that
// asks before it calls: the function is not asked.
func (c *call) cors() (answered bool) {
	if !c.ownCORS() {
		return false
	}
	s, h := c.url.CORS, c.w.Header()
	set := func(name string, values ...string) {
		if len(values) > 0 {
			h.Set(corsPrefix+name, strings.Join(values, ","))
		}
	}
	origin := c.r.Header.Get("Origin")
	everybody := slices.Contains(s.Origins, "*")
	if !everybody {
		h.Add("Vary", "Origin")
	}
	asks := c.r.Method == http.MethodOptions && c.r.Header.Get(corsPrefix+"Request-Method") != ""
	if everybody || slices.ContainsFunc(s.Origins, func(o string) bool { return strings.EqualFold(o, origin) }) {
		if everybody {
			origin = "*"
		}
		set("Allow-Origin", origin)
		if s.Credentials != nil && *s.Credentials {
			set("Allow-Credentials", "true")
		}
		set("Expose-Headers", s.ExposeHeaders...)
		if asks {
			set("Allow-Methods", s.Methods...)
			set("Allow-Headers", s.Headers...)
			if s.MaxAge != nil {
				set("Max-Age", strconv.Itoa(*s.MaxAge))
			}
		}
	}
	if asks {
		c.status = http.StatusOK
		h.Set("Content-Type", "application/json")
		h.Set("Content-Length", "0")
		c.w.WriteHeader(c.status)
	}
	return asks
}
