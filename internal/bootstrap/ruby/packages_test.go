package ruby_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"kiln/internal/bootstrap/ruby"
	"kiln/internal/environment/clienttest"
)

// TestInstall fetches a gem that this test made, from a registry of its own.
func TestInstall(t *testing.T) {
	rt := newest(t)
	gem := func(dir string, args ...string) {
		t.Helper()
		cmd := exec.Command(rt.Installation.Program, append([]string{"-rrubygems/gem_runner", "-e", "Gem::GemRunner.new.run(ARGV)", "--"}, args...)...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Skipf("this Ruby's gem %s: %v\n%s", args[0], err, out)
		}
	}
	source, repository, into := t.TempDir(), t.TempDir(), t.TempDir()
	clienttest.Write(t, source, map[string]string{
		"aws-sdk-test.gemspec": "Gem::Specification.new { |s| s.name = 'aws-sdk-test'; s.version = '1.2.3'; s.summary = 'x'; s.authors = ['x']; s.files = ['lib/aws-sdk-test.rb'] }",
		"lib/aws-sdk-test.rb":  "FOUND = __FILE__",
	})
	if err := os.Mkdir(repository+"/gems", 0o755); err != nil {
		t.Fatal(err)
	}
	gem(source, "build", "aws-sdk-test.gemspec", "--silent", "--output", repository+"/gems/aws-sdk-test-1.2.3.gem")
	gem(repository, "generate_index", "--silent", "--directory", repository)
	server := httptest.NewServer(http.FileServer(http.Dir(repository)))
	defer server.Close()
	rc := filepath.Join(t.TempDir(), "gemrc")
	clienttest.Write(t, filepath.Dir(rc), map[string]string{"gemrc": ":sources:\n- " + server.URL + "/\n"})
	t.Setenv("GEMRC", rc)

	if err := ruby.New().Install(t.Context(), rt.Installation, []string{"aws-sdk-test:~>1"}, into); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"gems/aws-sdk-test-1.2.3/lib/aws-sdk-test.rb", "specifications/aws-sdk-test-1.2.3.gemspec"} {
		if _, err := os.Stat(filepath.Join(into, name)); err != nil {
			t.Error(err)
		}
	}
	if err := ruby.New().Install(t.Context(), rt.Installation, []string{"rake"}, t.TempDir()); err == nil || !strings.Contains(err.Error(), "none of AWS's gems") {
		t.Errorf("a gem of another's: %v", err)
	}
	if err := ruby.New().Install(t.Context(), rt.Installation, []string{"aws-sdk-missing:~>1"}, t.TempDir()); err == nil || !strings.Contains(err.Error(), "aws-sdk-missing") {
		t.Errorf("a gem that is not there: %v", err)
	}
}
