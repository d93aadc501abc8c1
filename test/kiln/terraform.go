package kiln

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// providers is where Terraform's provider for AWS lies on a machine that is offline:
// a filesystem mirror. KILN_TERRAFORM_PLUGINS names another.
const providers = "/opt/tf-plugins"

// Terraform is a folder with a configuration that is applied to a daemon.
type Terraform struct {
	t   testing.TB
	dir string
	env []string
}

// NewTerraform prepares a folder with the configuration, whose provider "aws" must
// set no endpoint: the daemon's is in the environment. It skips the test where
// Terraform or its provider is not installed.
func NewTerraform(t testing.TB, d *Daemon, configuration string) *Terraform {
	t.Helper()
	plugins := os.Getenv("KILN_TERRAFORM_PLUGINS")
	if plugins == "" {
		plugins = providers
	}
	if _, err := exec.LookPath("terraform"); err != nil {
		t.Skip("Terraform is not installed here")
	}
	if _, err := os.Stat(filepath.Join(plugins, "registry.terraform.io", "hashicorp", "aws")); err != nil {
		t.Skipf("there is no mirror of Terraform's provider for AWS at %s", plugins)
	}
	tf := &Terraform{t: t, dir: t.TempDir()}
	rc := filepath.Join(tf.dir, "terraform.rc")
	tf.env = append(d.Environ(), "TF_CLI_CONFIG_FILE="+rc, "TF_IN_AUTOMATION=1", "CHECKPOINT_DISABLE=1")
	tf.Write("terraform.rc", "provider_installation {\n  filesystem_mirror {\n    path = \""+plugins+"\"\n  }\n}\n")
	tf.Write("main.tf", configuration)
	tf.Run("init", "-input=false", "-no-color")
	return tf
}

// Write writes a file beside the configuration.
func (tf *Terraform) Write(name, text string) {
	tf.t.Helper()
	if err := os.WriteFile(filepath.Join(tf.dir, name), []byte(text), 0o644); err != nil {
		tf.t.Fatal(err)
	}
}

// Setenv sets variables for the commands from now on.
func (tf *Terraform) Setenv(env ...string) { tf.env = append(tf.env, env...) }

// Run runs a command of Terraform, which must succeed, and returns what it said.
func (tf *Terraform) Run(args ...string) string {
	tf.t.Helper()
	cmd := exec.CommandContext(tf.t.Context(), "terraform", args...)
	cmd.Dir, cmd.Env = tf.dir, tf.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		tf.t.Fatalf("terraform %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// Apply applies the configuration, and fails the test unless a plan after it finds
// nothing to change.
func (tf *Terraform) Apply(args ...string) {
	tf.t.Helper()
	tf.Run(append([]string{"apply", "-auto-approve", "-input=false", "-no-color"}, args...)...)
	tf.Run(append([]string{"plan", "-detailed-exitcode", "-input=false", "-no-color"}, args...)...) // 2, an error, where there are changes
}

// Destroy removes everything that was applied.
func (tf *Terraform) Destroy(args ...string) {
	tf.t.Helper()
	tf.Run(append([]string{"destroy", "-auto-approve", "-input=false", "-no-color"}, args...)...)
}
