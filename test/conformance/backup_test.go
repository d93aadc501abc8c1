package conformance

import (
	"strings"
	"testing"
)

// A backup holds what every account has.
func TestWhoMayBackUp(t *testing.T) {
	t.Parallel()
	d, root := keyed(t, "--account", "123456789012")
	root.newKey(t, d, "", "admin", "") // so that there is somebody else
	for _, c := range []struct {
		what   string
		key    *key
		status int
		says   string
	}{
		{"the root key", root, 200, "manifest.json"},
		{"a key with a policy for it", root.newKey(t, d, "", "saver", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"kiln:Backup","Resource":"*"}]}`), 200, "manifest.json"},
		{"a key with another policy", root.newKey(t, d, "", "deployer", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"lambda:*","Resource":"*"}]}`), 403, "is not authorized to perform: kiln:Backup"},
		{"another account's key", root.newKey(t, d, foreignAccount, "admin", ""), 403, "is not authorized to perform: kiln:Backup"},
		{"a stranger's key", &key{ID: "AKIASTRANGER", Secret: "a guess of a secret"}, 403, ""},
	} {
		if status, text, _ := c.key.as(t, "kiln", "POST", d.URL+"/_kiln/backup", ""); status != c.status || !strings.Contains(text, c.says) {
			t.Errorf("%s: %d %.200s, want %d with %q", c.what, status, text, c.status, c.says)
		}
	}
}
