package filterpattern_test

import (
	"strings"
	"testing"

	"kiln/internal/aws/filterpattern"
)

func TestMatch(t *testing.T) {
	t.Parallel()
	const (
		trail = `{"eventType":"UpdateTrail","sourceIPAddress":"111.111.111.111","arrayKey":["value","another value"],"number":1.5,
			"objectList":[{"name":"a","id":1},{"name":"b","id":2}],"SomeObject":null,"cluster":{"name":"c"},"detail-type":"x","on":true,"off":false,"neg":-2e3,"empty":""}`
		access = `127.0.0.1 Prod frank [10/Oct/2000:13:25:15 -0700] "GET /index.html HTTP/1.0" 404 1534`
	)
	for _, c := range []struct {
		pattern string
		yes, no []string
	}{
		{"", []string{"", "anything"}, nil},
		{"  ", []string{"anything"}, nil},
		// Terms.
		{"ERROR", []string{"[ERROR 400] BAD REQUEST", "MY_ERRORS"}, []string{"error", ""}},
		{"ERROR ARGUMENTS", []string{"[ERROR] ARGUMENTS", "ARGUMENTS ERROR"}, []string{"ERROR", "ARGUMENTS"}},
		{"?ERROR ?ARGUMENTS", []string{"ERROR", "ARGUMENTS"}, []string{"WARN"}},
		{"ERROR -ARGUMENTS", []string{"ERROR"}, []string{"ERROR ARGUMENTS", "ARGUMENTS", ""}},
		{"-ERROR", []string{"", "fine"}, []string{"ERROR"}},
		{"?ERROR ?REQUEST INFO", []string{"INFO"}, []string{"ERROR REQUEST"}},
		{`"INTERNAL SERVER ERROR"`, []string{"x INTERNAL SERVER ERROR x"}, []string{"INTERNAL ERROR SERVER"}},
		{`-"a b" ?c`, []string{"b a", "c"}, []string{"a b c"}},
		{`"a \"b\" \\ c"`, []string{`a "b" \ c`}, []string{`a b \ c`}},
		{"größe", []string{"die größe"}, []string{"grosse"}},
		{"\tA\n B ", []string{"AB"}, []string{"A"}},
		// Regular expressions.
		{"%AUTHORIZED%", []string{"[ERROR 401] UNAUTHORIZED REQUEST", "AUTHORIZED"}, []string{"authorized"}},
		{"%^[hc]at%", []string{"hat", "cats"}, []string{"that"}},
		{"%[hc]at$%", []string{"that"}, []string{"hats"}},
		{"%colou?r%", []string{"color", "colour"}, []string{"colouur"}},
		{"%^a{3,5}$%", []string{"aaa", "aaaaa"}, []string{"aa", "aaaaaa"}},
		{"%gra|ey%", []string{"gra", "hey"}, []string{"gr"}},
		{`%\d\D\w\x28\.%`, []string{"1-a(."}, []string{"1-a(x"}},
		{"-%x+% y", []string{"y"}, []string{"xy"}},
		{"?%a% ?b", []string{"a", "b"}, []string{"c"}},
		// JSON.
		{`{ $.eventType = "UpdateTrail" }`, []string{trail, trail + "\n"}, []string{"UpdateTrail", trail + trail, `{"eventType":"updateTrail"}`, `{"x":{"eventType":"UpdateTrail"}}`, `{"eventType":"UpdateTrail"`, ""}},
		{`{$.eventType=UpdateTrail}`, []string{trail}, nil},
		{`{ $.sourceIPAddress != 123.123.* }`, []string{trail}, []string{`{"sourceIPAddress":"123.123.1.1"}`, `{}`}},
		{`{ $.arrayKey[0] = "value" }`, []string{trail}, []string{`{"arrayKey":["x","value"]}`, `{"arrayKey":"value"}`}},
		{`{ $.objectList[1].id = 2 }`, []string{trail}, []string{`{"objectList":[{"id":2}]}`}},
		{`{ $.objectList[*].name = b }`, []string{trail}, []string{`{"objectList":[]}`}},
		{`{ $[0].a = 1 }`, []string{`[{"a":1}]`}, []string{trail}},
		{`{ $.eventType = *Trail }`, []string{trail}, nil},
		{`{ $.eventType = "*" }`, []string{trail, `{"eventType":{}}`, `{"eventType":null}`, `{"eventType":1}`}, []string{`{}`}},
		{`{ $.eventType = %Trail$% }`, []string{trail}, []string{`{"eventType":"Trails"}`}},
		{`{ $.eventType != %Trail$% }`, []string{`{"eventType":"Trails"}`}, []string{trail}},
		{`{ $.number > 1 && $.number<1.6 && $.number >= 1.5 && $.number <= 1.50 }`, []string{trail}, []string{`{"number":1}`, `{"number":"1.5"}`}},
		{`{ $.number = 15e-1 && $.neg = -2000 && $.neg != 2000 }`, []string{trail}, nil},
		{`{ $.objectList[0].id = 1* }`, []string{trail}, nil},
		{`{ $.SomeObject IS NULL }`, []string{trail}, []string{`{"SomeObject":0}`, `{}`}},
		{`{ $.SomeOtherObject NOT EXISTS }`, []string{trail}, []string{`{"SomeOtherObject":null}`, "text"}},
		{`{ $.on IS TRUE && $.off is false }`, []string{trail}, []string{`{"on":"true","off":false}`, `{"on":false,"off":false}`}},
		{`{ $.on = true }`, []string{trail}, nil},
		{`{ $.detail-type = "x" }`, []string{trail}, nil},
		{`{ ($.a = 1 || $.b = 2) && $.c = 3 }`, []string{`{"a":1,"c":3}`, `{"b":2,"c":3}`}, []string{`{"a":1}`, `{"c":3}`}},
		{`{ $.a = 1 || $.b = 2 && $.c = 3 }`, []string{`{"a":1}`, `{"b":2,"c":3}`}, []string{`{"b":2}`, `{"c":3}`}},
		{`{ $.cluster = "c" }`, nil, []string{trail}},
		{`{ $.cluster != "c" }`, []string{trail}, nil},
		{`{ $.cluster.name.x = * }`, nil, []string{trail}},
		// Fields between spaces.
		{`[ip, user, username, timestamp, request, status_code, bytes]`, []string{access}, []string{"a b c", access + " more", ""}},
		{`[ip, user, username, timestamp, request, status_code = 4*, bytes]`, []string{access}, nil},
		{`[ip, user, username, timestamp, request =*.html*, status_code = 404 || status_code = 410, bytes]`, []string{access}, nil},
		{`[ip, user, username, timestamp, request, status_code >= 400 && status_code < 404, bytes]`, nil, []string{access}},
		{`[ip, user, username, timestamp = "10/Oct*", request = "GET /index.html HTTP/1.0", ...]`, []string{access, access + " more"}, nil},
		{`[..., status_code=4*, bytes]`, []string{access, "404 1"}, []string{"404", "500 1"}},
		{`[..., size > 1000]`, []string{access}, []string{"1", "x 1000"}},
		{`[ip=%127\.0\.0\.[1-9]%, ...]`, []string{access, "127.0.0.1"}, []string{"127.0.0.x"}},
		{`[w1=ERROR, w2]`, []string{"ERROR x"}, []string{"ERROR", "x ERROR"}},
		{`[w1!=ERROR&&w1!=%WARN%,w2]`, []string{"INFO x"}, []string{"ERROR x", "WARNING x"}},
		{`[..., a = x, ..., b = y, ...]`, []string{"x y", "1 x 2 3 y 4"}, []string{"y x", "x"}},
		{`[...]`, []string{"", "a b"}, nil},
		{`[a, b]`, []string{`[x y] "z"`, `"" x`, `[x y`}, []string{"x"}},
		{`[(a = 1 || a = 3) && a != 2]`, []string{"1", "3"}, []string{"2", "1 3"}},
	} {
		p, err := filterpattern.Parse(c.pattern)
		if err != nil {
			t.Errorf("%s: %v", c.pattern, err)
			continue
		}
		for want, messages := range map[bool][]string{true: c.yes, false: c.no} {
			for _, m := range messages {
				if p.Match([]byte(m)) != want {
					t.Errorf("%s: matches %q: %t", c.pattern, m, !want)
				}
			}
		}
	}
}

func TestSyntaxErrors(t *testing.T) {
	t.Parallel()
	for pattern, want := range map[string]string{
		`Status: timeout`:                   `Invalid character(s) in term ':'`,
		`!(info)`:                           `Invalid character(s) in term '!('`,
		`""`:                                `Invalid character(s) in term '""'`,
		`a-b`:                               `Invalid character(s) in term '-'`,
		`email@domain.com`:                  `Invalid character(s) in term '@'`,
		`"open`:                             `Invalid filter pattern`,
		`?`:                                 `Invalid filter pattern`,
		`- a`:                               `Invalid filter pattern`,
		`{ $."sc-status" = 5* }`:            `Invalid character(s) in term '"'`,
		`{ $.a = 1`:                         `Invalid filter pattern`,
		`{ $.a = 1 } x`:                     `Invalid filter pattern`,
		`{ $.a }`:                           `Invalid character(s) in term '}'`,
		`{ a = 1 }`:                         `Invalid filter pattern`,
		`{ $ = 1 }`:                         `Invalid filter pattern`,
		`{ $.a[-1] = 1 }`:                   `Invalid character(s) in term '[-'`,
		`{ $.a > x }`:                       `Invalid filter pattern`,
		`{ $.a > "1" }`:                     `Invalid filter pattern`,
		`{ $.a > infinity }`:                `Invalid filter pattern`,
		`{ $.a = }`:                         `Invalid character(s) in term '}'`,
		`{ $.a = "" }`:                      `Invalid character(s) in term '""'`,
		`{ ($.a = 1 }`:                      `Invalid character(s) in term '}'`,
		`{ $.a IS 1 }`:                      `Invalid filter pattern`,
		`{ }`:                               `Invalid character(s) in term '}'`,
		`{}`:                                `Invalid character(s) in term '}'`,
		`[a, b`:                             `Invalid filter pattern`,
		`[a b]`:                             `Invalid filter pattern`,
		`[]`:                                `Invalid character(s) in term ']'`,
		`[a = 1 || b = 2]`:                  `Invalid filter pattern`,
		`%a(b)%`:                            `Invalid character(s) in term '('`,
		`%a b%`:                             `Invalid character(s) in term ' '`,
		`%something!%`:                      `Invalid character(s) in term '!'`,
		`%\bword%`:                          `Invalid character(s) in term '\bword'`,
		`%größe%`:                           `Invalid character(s) in term 'ö'`,
		`%a`:                                `Invalid filter pattern`,
		`%%`:                                `Invalid filter pattern`,
		`%[a%`:                              `Invalid filter pattern`,
		`%a{9999}%`:                         `Invalid filter pattern`,
		`{ $.a=%a% || $.b=%b% || $.c=%c% }`: `Invalid filter pattern`,
		`[a=%a%, b=%b%, c=%c%]`:             `Invalid filter pattern`,
	} {
		if p, err := filterpattern.Parse(pattern); err == nil || err.Error() != want || p != nil {
			t.Errorf("%s:\n got  %v\n want %s", pattern, err, want)
		}
	}
}

// Whatever is asked of whatever, parsing and matching end, soon and without panic.
func FuzzParse(f *testing.F) {
	for _, s := range []string{`a "b" -c ?d`, `{ ($.a.b[0] = "x*" || $.c NOT EXISTS) && $.d >= 1e3 }`, `[a, b=%x+%, ..., c!=4* && c<3]`, `%^[a-z]{2,3}\d$%`, `{ $.a IS NULL }`} {
		f.Add(s, `{"a":{"b":["x"]},"c":null}`)
		f.Add(s, `127.0.0.1 [a b] "c" 404`)
	}
	f.Fuzz(func(t *testing.T, pattern, message string) {
		if len(pattern) > 1024 { // the API takes no more
			return
		}
		p, err := filterpattern.Parse(pattern)
		if err != nil {
			return
		}
		first := p.Match([]byte(message))
		if again := p.Match([]byte(message)); again != first {
			t.Errorf("%q matches %q %t, then %t", pattern, message, first, again)
		}
		if strings.TrimSpace(pattern) == "" && !first {
			t.Error("an empty pattern does not match")
		}
	})
}
