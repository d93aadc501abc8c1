package python_test

import (
	"strconv"
	"strings"
	"testing"

	"kiln/internal/bootstrap"
	"kiln/internal/environment/clienttest"
	"kiln/internal/lambda"
)

// prelude has one of everything that json and AWS's encoder see differently.
const prelude = `
import enum
from collections import OrderedDict, namedtuple
from decimal import Decimal

P = namedtuple("P", "x y")
class Text(str): pass
class Whole(int):
    def __repr__(self): return "weird"
class Half(float):
    def __repr__(self): return "weird"
class Name(str, enum.Enum): A = "q"
class Number(enum.IntEnum): A = 7
class AsDict:
    def _asdict(self): return {"as": 1}
def circle():
    a = []; a.append(a); return a
def deep(n):
    a = []
    for _ in range(n): a = [a]
    return a
def handler(event, context):
    return `

func minor(rt *bootstrap.Runtime) int {
	n, _ := strconv.Atoi(strings.TrimPrefix(string(rt.ID), "python3."))
	return n
}

func TestResults(t *testing.T) {
	unable := "Unable to marshal response: "
	cases := []struct{ expression, want, fails string }{
		{expression: `event`, want: `{"k": [1, 2.5, null, true]}`},
		{expression: `None`, want: `null`},
		{expression: `""`, want: `""`},
		{expression: `[]`, want: `[]`},
		{expression: `{}`, want: `{}`},
		{expression: `((), [{}])`, want: `[[], [{}]]`},
		{expression: `{"d": Decimal("1.10"), "e": Decimal("1E+400"), "n": Decimal("NaN")}`, want: `{"d": 1.10, "e": 1E+400, "n": NaN}`},
		{expression: `[float("nan"), float("inf"), -float("inf"), 1e16, 1e-7]`, want: `[NaN, Infinity, -Infinity, 1e+16, 1e-07]`},
		{expression: `10**40`, want: `1` + strings.Repeat("0", 40)},
		{expression: `P(1, [P(2, 3)])`, want: `{"x": 1, "y": [{"x": 2, "y": 3}]}`},
		{expression: `{"a": b"x", b"k": [b"y"]}`, want: `{"a": "x", "k": ["y"]}`},
		{expression: `{1: "a", None: "b", 1.5: "d"}`, want: `{"1": "a", "null": "b", "1.5": "d"}`},
		{expression: `[Text("x"), Whole(5), Half(1.5), Name.A, Number.A]`, want: `["x", 5, 1.5, "q", 7]`},
		{expression: `OrderedDict(b=1, a=2)`, want: `{"b": 1, "a": 2}`},
		{expression: `AsDict()`, want: `{"as": 1}`},
		{expression: `deep(300)`, want: strings.Repeat("[", 301) + strings.Repeat("]", 301)},
		{expression: `"\x00\x1f<>&/\"\\"`, want: `"\u0000\u001f<>&/\"\\"`},
		{expression: `{1}`, fails: unable + "Object of type set is not JSON serializable"},
		{expression: `{"a": [object()]}`, fails: unable + "Object of type object is not JSON serializable"},
		{expression: `{(1, 2): 3}`, fails: unable + "keys must be str, int, float, bool or None, not tuple"},
		{expression: `b"\xff", 1`, fails: unable + "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"},
		{expression: `circle()`, fails: unable + "Circular reference detected"},
		{expression: `(x for x in [1])`, fails: unable + "Object of type generator is not JSON serializable"},
		{expression: `(lambda: (yield))()`, fails: unable + "Object of type generator is not JSON serializable"},
	}
	// One process answers all: what one result breaks, the next shows.
	var app strings.Builder
	app.WriteString(strings.TrimSuffix(prelude, "    return "))
	app.WriteString("    n = event.get('n')\n")
	for i, c := range cases {
		app.WriteString("    if n == " + strconv.Itoa(i) + ":\n        event = event['event']\n        return " + c.expression + "\n")
	}
	everyPython(t, func(t *testing.T, rt *bootstrap.Runtime) {
		r := clienttest.Start(t, rt, code(app.String()))
		for i, c := range cases {
			a := r.Invoke(`{"n": ` + strconv.Itoa(i) + `, "event": {"k": [1, 2.5, null, true]}}`)
			want, wantType := c.want, ""
			if c.fails != "" {
				want = `{"errorMessage": "` + c.fails + `", "errorType": "Runtime.MarshalError", "requestId": "` + clienttest.RequestID + `", "stackTrace": []}`
				wantType = "Runtime.MarshalError"
			}
			if string(a.Payload) != want || a.ErrorType != wantType || a.ContentType != "application/json" {
				t.Errorf("%s\n got %s (%s, %s)\nwant %s", c.expression, a.Payload, a.ErrorType, a.ContentType, want)
			}
		}
	})
}

func TestNonASCIIResultFollowsTheRuntimeIdentifier(t *testing.T) {
	everyPython(t, func(t *testing.T, rt *bootstrap.Runtime) {
		r := clienttest.Start(t, rt, code("def handler(event, context):\n    return event"))
		want := "\"é\u2028😀\""
		if minor(rt) <= 11 {
			want = `"\u00e9\u2028\ud83d\ude00"`
		}
		if got := r.Answer("\"é\u2028😀\""); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}

func TestLoneSurrogateIsAnErrorAndNotTheEnd(t *testing.T) {
	everyPython(t, func(t *testing.T, rt *bootstrap.Runtime) {
		r := clienttest.Start(t, rt, code("def handler(event, context):\n    if event: raise ValueError(event)\n    return 'a\\ud800'"))
		if got := r.Answer(`"b\ud800"`); !strings.Contains(got, `b\ud800`) {
			t.Errorf("the error document: %s", got)
		}
		a := r.Invoke(`null`)
		if minor(rt) <= 11 {
			if string(a.Payload) != `"a\ud800"` {
				t.Errorf("got %s", a.Payload)
			}
		} else if a.ErrorType != "Runtime.MarshalError" {
			t.Errorf("got %s %s", a.ErrorType, a.Payload)
		}
	})
}

func TestBytesAreRawAndOtherEventsTooWhenNotJSON(t *testing.T) {
	everyPython(t, func(t *testing.T, rt *bootstrap.Runtime) {
		r := clienttest.Start(t, rt, code("def handler(event, context):\n    return event if isinstance(event, bytes) else b'\\x00\\xff'"))
		a := r.Invoke(`{}`)
		if string(a.Payload) != "\x00\xff" || a.ContentType != "application/unknown" {
			t.Errorf("got %q %s", a.Payload, a.ContentType)
		}
		inv := clienttest.Event("hello")
		inv.ContentType = "text/plain"
		if a, err := r.Try(inv); err != nil || string(a.Payload) != "hello" {
			t.Errorf("got %q, %v", a.Payload, err)
		}
		// A connection's answer to one event is not mistaken for another's.
		a = r.Invoke(`{bad`)
		if !strings.Contains(string(a.Payload), `"errorMessage": "Unable to unmarshal input: `) || a.ErrorType != "Runtime.UnmarshalError" {
			t.Errorf("got %s", a.Payload)
		}
	})
}

func TestCoroutineIsNotAwaited(t *testing.T) {
	everyPython(t, func(t *testing.T, rt *bootstrap.Runtime) {
		r := clienttest.Start(t, rt, code("async def handler(event, context):\n    return 1"))
		want := "Unable to marshal response: Object of type coroutine is not JSON serializable"
		if got := r.Answer(`{}`); !strings.Contains(got, want) {
			t.Errorf("got %s", got)
		}
	})
}

func TestLargeEventComesBackWhole(t *testing.T) {
	everyPython(t, func(t *testing.T, rt *bootstrap.Runtime) {
		r := clienttest.Start(t, rt, code("def handler(event, context):\n    return event"))
		big := `"` + strings.Repeat("x", lambda.MaxRequestPayload-2) + `"`
		for range 3 {
			if got := r.Invoke(big); string(got.Payload) != big {
				t.Fatalf("%d bytes came back as %d", len(big), len(got.Payload))
			}
		}
		if got := r.Answer(`{"a": 1}`); got != `{"a": 1}` {
			t.Errorf("afterwards: %s", got)
		}
	})
}

func TestTooLargeResultIsTold(t *testing.T) {
	everyPython(t, func(t *testing.T, rt *bootstrap.Runtime) {
		r := clienttest.Start(t, rt, code("def handler(event, context):\n    return 'x' * event"))
		if a := r.Invoke(`7000000`); a.ErrorType != "Function.ResponseSizeTooLarge" {
			t.Errorf("got %s %.100s", a.ErrorType, a.Payload)
		}
		if got := r.Answer(`1`); got != `"x"` {
			t.Errorf("afterwards: %s", got)
		}
	})
}
