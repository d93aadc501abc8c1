package invoke

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

// FuzzValidJSON holds validJSON to what encoding/json says.
func FuzzValidJSON(f *testing.F) {
	for _, s := range []string{
		`{"a":[1,-0.5e+3,true,null,false,"x\u00e9\n"],"b":{}}`, `[]`, ` "a" `, `[[[{"a":{"b":[]}}]]]`, `"abcdefghijklmnop\"q"`, "\"\x01\"",
		`1.`, `-`, `01`, `0`, `-0`, `1e`, `1E-7`, `.5`, `{"a"}`, `{"a":}`, `{,}`, `[1,]`, `[1 2]`, `{"a":1]`, `[}`, `tru`, `nulll`, `""""`, `"\u12g4"`, `"\`, `"\x"`,
		"\"\x80aaaaaaaaaaa\"", "", " ", "\ufeff{}", "\"\x7f\u20ac\"", `"1234567`, `"1234567"`, `"12345678"`,
		strings.Repeat("[", maxNesting) + strings.Repeat("]", maxNesting), strings.Repeat("[", maxNesting+1) + strings.Repeat("]", maxNesting+1),
		strings.Repeat(`{"a":[`, 40) + strings.Repeat(`]}`, 40), strings.Repeat(`{"a":[`, 40) + strings.Repeat(`}]`, 40),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, want := validJSON(b), json.Valid(b); got != want {
			t.Fatalf("%q: %v, want %v", b, got, want)
		}
	})
}

func BenchmarkValidJSON(b *testing.B) {
	record := `{"eventID":"1","dynamodb":{"Keys":{"Id":{"N":"101"}},"NewImage":{"Message":{"S":"New item!"}},"SizeBytes":26},"eventName":"INSERT","price":12.5,"ok":true}`
	for name, event := range map[string][]byte{
		"records": []byte("[" + strings.Repeat(record+",", 6<<20/len(record)) + "0]"),
		"string":  []byte(`{"data":"` + string(bytes.Repeat([]byte{'x'}, 6<<20)) + `"}`),
	} {
		for by, valid := range map[string]func([]byte) bool{"kiln": validJSON, "encoding-json": json.Valid} {
			b.Run(name+"/"+by, func(b *testing.B) {
				b.SetBytes(int64(len(event)))
				for b.Loop() {
					if !valid(event) {
						b.Fatal("it is valid")
					}
				}
			})
		}
	}
}
