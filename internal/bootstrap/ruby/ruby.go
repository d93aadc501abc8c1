// Package ruby is the family of Ruby runtimes: how Ruby interpreters are found, and a
// runtime client written in Ruby that speaks the Runtime API over a plain socket.
//
// https://docs.aws.amazon.com/lambda/latest/dg/lambda-ruby.html
package ruby

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"

	"kiln/internal/bootstrap"
	"kiln/internal/lambda"
)

//go:embed client/bootstrap.rb client/lib/kiln_runtime/*.rb
var client embed.FS

// Family offers ruby3.2 to ruby3.4.
type Family struct{}

// New returns the family.
func New() Family { return Family{} }

// Name is what the identifiers begin with.
func (Family) Name() string { return "ruby" }

// Identifiers are the versions whose contract the client keeps.
func (Family) Identifiers() (list []bootstrap.Identifier) {
	for _, v := range []string{"3.4", "3.3", "3.2"} {
		list = append(list, bootstrap.Identifier{ID: lambda.RuntimeID("ruby" + v), Version: v})
	}
	return list
}

// Programs are the names of interpreters and the folders of version managers.
func (Family) Programs() []string {
	return []string{
		"ruby", "ruby[0-9].[0-9]",
		"$RBENV_ROOT/versions/*/bin/ruby",
		".rbenv/versions/*/bin/ruby",
		".rvm/rubies/ruby-*/bin/ruby",
		".rubies/*/bin/ruby",
		"/opt/rubies/*/bin/ruby",
		"$ASDF_DATA_DIR/installs/ruby/*/bin/ruby",
		".asdf/installs/ruby/*/bin/ruby",
		"$MISE_DATA_DIR/installs/ruby/*/bin/ruby",
		".local/share/mise/installs/ruby/*/bin/ruby",
		"$HOMEBREW_PREFIX/opt/ruby*/bin/ruby",
		"/opt/homebrew/opt/ruby*/bin/ruby",
		"/home/linuxbrew/.linuxbrew/opt/ruby*/bin/ruby",
		"/opt/ruby*/bin/ruby",
	}
}

const question = `puts RUBY_ENGINE, RUBY_VERSION, RbConfig::CONFIG["prefix"]`

// oldest is the first Ruby that the client is written for; it stands in only.
var oldest = [2]int{3, 1}

// Probe asks an interpreter for its version and its tree.
func (Family) Probe(ctx context.Context, program string) (bootstrap.Installation, error) {
	out, err := bootstrap.Ask(ctx, program, "--disable=gems", "-rrbconfig", "-e", question)
	if err != nil {
		return bootstrap.Installation{}, err
	}
	said := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(said) != 3 {
		return bootstrap.Installation{}, errors.New("does not answer as Ruby does")
	}
	if said[0] != "ruby" {
		return bootstrap.Installation{}, fmt.Errorf("is %s; Lambda runs CRuby", said[0])
	}
	if major, minor := release(said[1]); major < oldest[0] || major == oldest[0] && minor < oldest[1] {
		return bootstrap.Installation{}, fmt.Errorf("is Ruby %s; %d.%d is the oldest that Kiln runs", said[1], oldest[0], oldest[1])
	}
	in := bootstrap.Installation{Program: program, Version: said[1], Prefix: said[2]}
	if real, err := filepath.EvalSymlinks(in.Prefix); err == nil {
		in.Prefix = real
	}
	if in.Prefix == "/usr" || strings.HasPrefix(in.Prefix, "/usr/") {
		in.Prefix = ""
	}
	return in, nil
}

func release(version string) (major, minor int) {
	parts := strings.SplitN(version, ".", 3)
	major, _ = strconv.Atoi(parts[0]) // what is no number is 0, older than any
	if len(parts) > 1 {
		minor, _ = strconv.Atoi(parts[1])
	}
	return major, minor
}

// Client is the runtime client.
func (Family) Client() fs.FS {
	sub, err := fs.Sub(client, "client")
	if err != nil {
		panic(err) // the embedded folder's name is a constant
	}
	return sub
}

// Launch starts the client's bootstrap.rb. Gems are found in AWS's order: the
// function's, the layers', those that were added to the runtime; the separator at
// the end stands for the interpreter's own.
func (Family) Launch(id lambda.RuntimeID, in bootstrap.Installation, l bootstrap.Layout) bootstrap.Launch {
	program := in.Inside(l)
	major, minor := release(in.Version)
	abi := fmt.Sprintf("%d.%d.0", major, minor)
	gems := []string{l.Task + "/vendor/bundle/ruby/" + abi}
	library := []string{l.Task, l.Runtime + "/lib"}
	if l.Opt != "" {
		gems = append(gems, l.Opt+"/ruby/gems/"+abi)
		library = append(library, l.Opt+"/ruby/lib")
	}
	gems = append(gems, l.Runtime, l.Runtime+"/ruby/"+abi, "")
	return bootstrap.Launch{
		Path: program,
		Args: append(append([]string{program}, moved(in, l, abi)...), l.Runtime+"/bootstrap.rb"),
		Dir:  l.Task,
		Defaults: l.Defaults(map[string]string{
			"GEM_HOME": l.Runtime,
			"GEM_PATH": strings.Join(gems, ":"),
			"RUBYLIB":  strings.Join(library, ":"),
		}),
		Reserved: l.Reserved(map[string]string{"AWS_EXECUTION_ENV": bootstrap.ExecutionEnv(id)}),
	}
}

// moved tells an interpreter whose tree appears at another place where its library
// is: Ruby knows it by the path that it was built for.
func moved(in bootstrap.Installation, l bootstrap.Layout, abi string) (args []string) {
	if in.Prefix == "" || l.Lang == "" || l.Lang == in.Prefix {
		return nil
	}
	lib := "/lib/ruby/" + abi
	args = append(args, "-I"+l.Lang+lib)
	configs, _ := filepath.Glob(in.Prefix + lib + "/*/rbconfig.rb") // a prefix with a bracket has none
	for _, c := range configs {
		args = append(args, "-I"+l.Lang+lib+"/"+filepath.Base(filepath.Dir(c)))
	}
	return args
}
