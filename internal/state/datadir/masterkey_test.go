package datadir_test

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kiln/internal/state/datadir"
)

// keyFile writes a master key of one repeated digit.
func keyFile(t *testing.T, digit string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(name, []byte(strings.Repeat(digit, 64)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestMasterKeySources(t *testing.T) {
	// Not parallel: systemd passes its credentials in a variable.
	credentials := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", credentials)
	digits := strings.Repeat("a", 64)
	encoded := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("k", 32)))
	for name, text := range map[string]string{"hex": digits, "base64": encoded, "empty": "", "short": "abcd", "secret": "my secret words"} {
		if err := os.WriteFile(filepath.Join(credentials, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	open := filepath.Join(credentials, "open")
	if err := os.WriteFile(open, []byte(digits), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what   string
		source datadir.MasterKey
		refuse string // "" opens
	}{
		{"own", datadir.MasterKey{}, ""},
		{"file", datadir.MasterKey{File: keyFile(t, "b")}, ""},
		{"file that is missing", datadir.MasterKey{File: filepath.Join(credentials, "nothing")}, "no such file"},
		{"file for all to read", datadir.MasterKey{File: open}, "chmod 600"},
		{"folder", datadir.MasterKey{File: credentials}, "it is not a file"},
		{"credential", datadir.MasterKey{Credential: "hex"}, ""},
		{"credential in base64", datadir.MasterKey{Credential: "base64"}, ""},
		{"empty credential", datadir.MasterKey{Credential: "empty"}, "openssl rand -hex 32"},
		{"short credential", datadir.MasterKey{Credential: "short"}, "64 hexadecimal digits"},
		{"credential that is missing", datadir.MasterKey{Credential: "nothing"}, "no such file"},
		{"command", datadir.MasterKey{Command: []string{"echo", digits}}, ""},
		{"command that is missing", datadir.MasterKey{Command: []string{"kiln-no-such-program"}}, "not found"},
		{"command that fails", datadir.MasterKey{Command: []string{"sh", "-c", "echo the vault is closed >&2; echo secret; exit 3"}}, "exit status 3): the vault is closed"},
		{"command that is silent", datadir.MasterKey{Command: []string{"true"}}, "printed nothing"},
		{"no shell", datadir.MasterKey{Command: []string{"echo", "$HOME"}}, "no key"},
		{"words", datadir.MasterKey{Credential: "secret"}, "no key"},
	} {
		t.Run(c.what, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "data")
			d, err := datadir.Open(path, datadir.Config{MasterKey: c.source})
			switch {
			case c.refuse == "" && err != nil:
				t.Fatal(err)
			case c.refuse != "" && (err == nil || !strings.Contains(err.Error(), c.refuse)):
				t.Fatalf("%v, want it to say %q", err, c.refuse)
			case err != nil:
				if strings.Contains(err.Error(), "secret") && c.what != "words" || strings.Contains(err.Error(), "my secret words") {
					t.Errorf("the error shows what was read: %v", err)
				}
				return
			}
			sealed := d.Seal([]byte("x"), nil)
			d.Close()
			if _, err := os.Stat(filepath.Join(path, "master.key")); (err == nil) != c.source.Own() {
				t.Errorf("master.key beside a configured key, or none beside none: %v", err)
			}
			d, err = datadir.Open(path, datadir.Config{MasterKey: c.source})
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			if plain, err := d.OpenSealed(sealed, nil); err != nil || string(plain) != "x" {
				t.Errorf("unsealed %q, %v", plain, err)
			}
		})
	}
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	if _, err := datadir.Open(t.TempDir(), datadir.Config{MasterKey: datadir.MasterKey{Credential: "hex"}}); err == nil || !strings.Contains(err.Error(), "LoadCredential=") {
		t.Errorf("without systemd: %v", err)
	}
}

func TestReseal(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "data")
	own, first, second := datadir.MasterKey{}, datadir.MasterKey{File: keyFile(t, "1")}, datadir.MasterKey{File: keyFile(t, "2")}
	if err := datadir.Reseal(path, own, first); err == nil {
		t.Error("what is not there was resealed")
	}
	d := open(t, path)
	sealed := d.Seal([]byte("secret"), []byte("place"))
	if err := datadir.Reseal(path, own, first); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("while it is in use: %v", err)
	}
	d.Close()
	opens := func(key datadir.MasterKey, words string) {
		t.Helper()
		d, err := datadir.Open(path, datadir.Config{MasterKey: key})
		if words != "" {
			if err == nil || !strings.Contains(err.Error(), words) {
				t.Errorf("with %s: %v, want it to say %q", key, err, words)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		if plain, err := d.OpenSealed(sealed, []byte("place")); err != nil || string(plain) != "secret" {
			t.Errorf("with %s: unsealed %q, %v", key, plain, err)
		}
	}
	opens(first, "run kiln reseal")
	for _, step := range []struct{ from, to datadir.MasterKey }{{own, first}, {first, second}, {second, own}} {
		for range 2 { // again is no harm
			if err := datadir.Reseal(path, step.from, step.to); err != nil {
				t.Fatal(err)
			}
		}
		opens(step.to, "")
		if step.to.File == first.File {
			opens(own, "set master_key_file")
			opens(second, "is not the one")
		}
	}
	if err := datadir.Reseal(path, own, first); err != nil {
		t.Fatal(err)
	}
	if err := datadir.Reseal(path, own, second); err == nil {
		t.Error("resealed without the key")
	}
	opens(first, "")
}
