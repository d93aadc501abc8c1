package eventpattern_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"kiln/internal/aws/eventpattern"
)

func match(t *testing.T, pattern, event string) bool {
	t.Helper()
	set, err := eventpattern.ParseSet(pattern)
	if err != nil {
		t.Fatalf("%s: %v", pattern, err)
	}
	return set.Match([]byte(event))
}

func TestMatch(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pattern  string
		yes, not []string
	}{
		{`{"a":["x","y",""]}`, []string{`{"a":"x"}`, ` { "b" : [ { } , [ ] ] , "a" : "y" } `, `{"a":""}`, `{"a":["z","x"]}`, `{"a":[["z"],["x"]]}`, `{"a":"\u0078"}`},
			[]string{`{"a":"X"}`, `{"A":"x"}`, `{}`, `{"a":{"x":"x"}}`, `{"a":[]}`, `{"b":"x"}`, `[{"a":"x"}]`, `"x"`, ``, `x`, `{"a":"x"`, `{"a":"xx"}`}},
		{`{"a":{"b":[true],"c":[null]}}`, []string{`{"a":{"c":null,"b":true}}`, `{"a":[{"b":1},{"b":true,"c":null}]}`},
			[]string{`{"a":{"c":null}}`, `{"a":[{"b":true},{"c":null}]}`, `{"a":{"b":"true","c":"null"}}`, `{"a":true}`, `{"a":{"b":true,"c":{}}}`}},
		{`{"a":[300]}`, []string{`{"a":300}`, `{"a":300.0}`, `{"a":3.0e2}`}, []string{`{"a":"300"}`, `{"a":301}`, `{"a":null}`}},
		{`{"a":[null]}`, []string{`{"a":null}`}, []string{`{"a":"null"}`, `{"a":0}`, `{}`}},
		{`{"a":[9007199254740993]}`, []string{`{"a":9007199254740993}`}, []string{`{"a":9007199254740992}`}},
		{`{"a":[{"prefix":"ab"}]}`, []string{`{"a":"ab"}`, `{"a":"abc"}`, `{"a":["x","abc"]}`}, []string{`{"a":"a"}`, `{"a":"ABc"}`, `{"a":null}`}},
		{`{"a":[{"prefix":{"equals-ignore-case":"Éa"}}]}`, []string{`{"a":"éAc"}`}, []string{`{"a":"é"}`, `{"a":"xéa"}`}},
		{`{"a":[{"suffix":".png"},{"suffix":{"equals-ignore-case":".JPG"}}]}`, []string{`{"a":"x.png"}`, `{"a":".jpg"}`}, []string{`{"a":"x.PNG"}`, `{"a":"png"}`, `{"a":1}`}},
		{`{"a":[{"equals-ignore-case":"Stop"}]}`, []string{`{"a":"sTOP"}`}, []string{`{"a":"stops"}`}},
		{`{"a":[{"anything-but":"x"}]}`, []string{`{"a":"y"}`, `{"a":["x","y"]}`, `{"a":1}`, `{"a":null}`}, []string{`{"a":"x"}`, `{}`, `{"a":{}}`, `{"a":["x"]}`}},
		{`{"a":[{"anything-but":[1,2]}]}`, []string{`{"a":3}`, `{"a":"1"}`}, []string{`{"a":1}`, `{"a":2.0}`}},
		{`{"a":[{"anything-but":{"prefix":["x","y"]}}]}`, []string{`{"a":"z"}`, `{"a":1}`}, []string{`{"a":"xa"}`, `{"a":"y"}`}},
		{`{"a":[{"anything-but":{"suffix":"x"}}]}`, []string{`{"a":"xz"}`}, []string{`{"a":"ax"}`}},
		{`{"a":[{"anything-but":{"equals-ignore-case":["x"]}}]}`, []string{`{"a":"xx"}`}, []string{`{"a":"X"}`}},
		{`{"a":[{"anything-but":{"wildcard":"*/x/*"}}]}`, []string{`{"a":"x"}`}, []string{`{"a":"/x/"}`}},
		{`{"a":[{"numeric":[">",0,"<=",5]}]}`, []string{`{"a":5}`, `{"a":1e-3}`, `{"a":[9,3]}`}, []string{`{"a":0}`, `{"a":5.01}`, `{"a":"3"}`, `{}`}},
		{`{"a":[{"numeric":["=",100]},{"numeric":["<",-1]},{"numeric":[">=",1e3]}]}`, []string{`{"a":100.0}`, `{"a":-2}`, `{"a":1000}`}, []string{`{"a":-1}`, `{"a":999}`}},
		{`{"a":[{"exists":true}]}`, []string{`{"a":null}`, `{"a":""}`, `{"a":[1]}`}, []string{`{}`, `{"a":{}}`, `{"a":{"b":1}}`, `{"a":[]}`}},
		{`{"a":[{"exists":false}]}`, []string{`{}`, `{"b":1}`, `{"a":{"b":1}}`, `{"a":[]}`}, []string{`{"a":null}`, `{"a":[{"b":1},2]}`}},
		{`{"a":{"b":[{"exists":false}]}}`, []string{`{}`, `{"a":1}`, `{"a":{"c":1}}`, `{"a":[{"c":1}]}`}, []string{`{"a":{"b":1}}`, `{"a":[{"c":1},{"b":1}]}`}},
		{`{"a":[{"exists":false},"x"]}`, []string{`{}`, `{"a":"x"}`}, []string{`{"a":"y"}`}},
		{`{"a":[{"wildcard":"dir/*.p\\*g*"}]}`, []string{`{"a":"dir/x/a.p*g"}`, `{"a":"dir/.p*g.x"}`}, []string{`{"a":"dir/x.png"}`, `{"a":"adir/.p*g"}`}},
		{`{"a":[{"wildcard":"a*a"}]}`, []string{`{"a":"aa"}`, `{"a":"aba"}`}, []string{`{"a":"a"}`, `{"a":"ab"}`}},
		{`{"a":[{"cidr":"10.0.0.0/24"},{"cidr":"2001:db8::/32"},{"cidr":"10.9.9.9"}]}`, []string{`{"a":"10.0.0.7"}`, `{"a":"2001:db8::1"}`, `{"a":"10.9.9.9"}`}, []string{`{"a":"10.0.1.0"}`, `{"a":"x"}`, `{"a":10}`}},
		{`{"c":["z"],"$or":[{"a":["x"]},{"b":[{"numeric":[">",1]}],"d":["y"]}]}`, []string{`{"c":"z","a":"x"}`, `{"c":"z","b":2,"d":"y"}`}, []string{`{"c":"z","b":2}`, `{"a":"x"}`, `{"c":"z"}`}},
		{`{"a":{"$or":[{"b":["x"]},{"c":["y"]}],"d":[1]}}`, []string{`{"a":{"b":"x","d":1}}`, `{"a":[{"c":"y","d":1}]}`}, []string{`{"a":[{"c":"y"},{"d":1}]}`}},
		{`{"$or":["x"]}`, []string{`{"$or":"x"}`}, []string{`{}`}},
		{`{"a.b":["x"]}`, []string{`{"a.b":"x"}`}, []string{`{"a":{"b":"x"}}`}},
		{`{"\u0061\n":["x"]}`, []string{`{"a\n":"x"}`, `{"a\u000a":"x"}`}, []string{`{"a":"x"}`}},
	} {
		for _, e := range c.yes {
			if !match(t, c.pattern, e) {
				t.Errorf("%s does not match %s", c.pattern, e)
			}
		}
		for _, e := range c.not {
			if match(t, c.pattern, e) {
				t.Errorf("%s matches %s", c.pattern, e)
			}
		}
	}
}

// TestSet asserts that many patterns at once find what each finds alone.
func TestSet(t *testing.T) {
	t.Parallel()
	leaves := []string{`["x"]`, `["x","y"]`, `[1]`, `[{"prefix":"x"}]`, `[{"exists":false}]`, `["y",{"exists":false}]`, `[{"anything-but":"x"}]`}
	shapes := []string{`{"a":%s}`, `{"a":{"b":%s}}`, `{"a":%s,"c":["x"]}`, `{"$or":[{"a":%s},{"c":[1]}]}`, `{"a":{"b":%[1]s,"d":%[1]s}}`}
	events := []string{`{}`, `{"a":"x"}`, `{"a":["x","x",1]}`, `{"a":{"b":"y","d":"y"},"c":"x"}`, `{"a":[{"b":"x"},{"d":"x","b":1}],"c":1}`, `{"a":[{"b":"x","d":"xx"}]}`}
	var texts []string
	for _, shape := range shapes {
		for _, leaf := range leaves {
			texts = append(texts, fmt.Sprintf(shape, leaf))
		}
	}
	set, err := eventpattern.ParseSet(texts...)
	if err != nil {
		t.Fatal(err)
	}
	some := 0
	for _, event := range events {
		var want []int
		for i, text := range texts {
			if match(t, text, event) {
				want = append(want, i)
			}
		}
		some += len(want)
		if got := set.Matching([]byte(event)); !slices.Equal(got, want) {
			t.Errorf("%s: %v, alone %v", event, got, want)
		}
	}
	if some < 20 {
		t.Errorf("only %d matches: the test shows little", some)
	}
}

// FuzzMatch asserts that no pattern and no event has it panic, and that matching does
// not depend on the order of an object's members or on space.
func FuzzMatch(f *testing.F) {
	f.Add(`{"a":["x",{"exists":false}],"b":{"c":[{"numeric":[">",1]}]}}`, `{"a":"x","b":[{"c":2}]}`)
	f.Add(`{"$or":[{"a":[{"wildcard":"*x"}]},{"b":[{"cidr":"::/0"}]}]}`, `{"a":"\ud800x","b":"::1"}`)
	f.Fuzz(func(t *testing.T, pattern, event string) {
		p, err := eventpattern.Parse(pattern)
		if err != nil {
			return
		}
		set := eventpattern.NewSet(p)
		got := set.Match([]byte(event))
		var fields map[string]json.RawMessage
		if json.Unmarshal([]byte(event), &fields) != nil {
			if got {
				t.Fatalf("%s matches %q, which is no object", pattern, event)
			}
			return
		}
		again, err := json.MarshalIndent(fields, " ", "\t")
		if err != nil || strings.Count(event, `"`) != strings.Count(string(again), `"`) {
			return // a name occurs twice
		}
		if set.Match(again) != got {
			t.Errorf("%s: %q is matched unlike %s", pattern, event, again)
		}
	})
}

// BenchmarkMatch compares one pattern with a thousand.
func BenchmarkMatch(b *testing.B) {
	event := []byte(`{"version":"0","id":"6a7e8feb-b491-4cf7-a9f1-bf3703467718","detail-type":"EC2 Instance State-change Notification","source":"aws.ec2","account":"111122223333","time":"2017-12-22T18:43:48Z","region":"us-west-1","resources":["arn:aws:ec2:us-west-1:123456789012:instance/i-1234567890abcdef0"],"detail":{"instance-id":"i-1234567890abcdef0","state":"s7"}}`)
	for _, n := range []int{1, 1000} {
		var texts []string
		for i := range n {
			texts = append(texts, fmt.Sprintf(`{"source":[{"prefix":"aws."}],"detail":{"state":["s%d"],"instance-id":[{"anything-but":"i-%d"}]}}`, i+7, rand.Int()))
		}
		set, err := eventpattern.ParseSet(texts...)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !set.Match(event) {
					b.Fatal("no match")
				}
			}
		})
	}
}
