package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
)

// java is Java, with AWS's runtime client added to the daemon, or nil where a JDK or
// Maven is missing. Function and bare server run on the same Java, with the same flags.
func (b *bench) java(endpoint string) (*language, error) {
	const id = "java21" // whichever Java is here stands in
	for _, program := range []string{"javac", "mvn"} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, nil
		}
	}
	added, err := exec.Command(*program, "runtime", "add", id, "--endpoint", endpoint, "--json").Output()
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		return nil, fmt.Errorf("kiln runtime add %s: %w\n%s", id, err, failed.Stderr)
	}
	var found struct {
		Program string
		Bundle  struct{ Folder string }
	}
	if err := errors.Join(err, json.Unmarshal(added, &found)); err != nil {
		return nil, err
	}
	core, _ := filepath.Glob(filepath.Join(b.work, "data", "runtimes", found.Bundle.Folder, "lib", "aws-lambda-java-core-*.jar"))
	if len(core) != 1 {
		return nil, fmt.Errorf("%s has %d jars of AWS's interfaces", found.Bundle.Folder, len(core))
	}
	cmd := exec.Command("javac", "-cp", core[0], "-d", b.work, "test/bench/java/Echo.java", "test/bench/java/Server.java")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("javac: %w\n%s", err, out)
	}
	server := []string{found.Program, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dsun.net.httpserver.nodelay=true", "-cp", b.work, "Server"}
	return &language{
		name: "Java", runtime: id, handler: "Echo", files: map[string]string{"Echo.class": filepath.Join(b.work, "Echo.class")},
		server: server, start: append(server[:len(server):len(server)], "start only"),
	}, nil
}
