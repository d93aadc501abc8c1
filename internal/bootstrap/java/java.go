// Package java is the family of Java runtimes: how JDKs are found, and how AWS's own
// runtime interface client is fetched, prepared and started. There is no client of
// Kiln's: a function of java21 runs once `kiln runtime add java21` installed AWS's.
//
// https://docs.aws.amazon.com/lambda/latest/dg/lambda-java.html
// https://github.com/aws/aws-lambda-java-libs
package java

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"kiln/internal/bootstrap"
	"kiln/internal/lambda"
)

// Family offers java11 to java25.
type Family struct{}

// New returns the family.
func New() Family { return Family{} }

// Name is what the identifiers begin with.
func (Family) Name() string { return "java" }

// Identifiers are the versions that AWS's client runs on and that AWS offers.
func (Family) Identifiers() []bootstrap.Identifier {
	return []bootstrap.Identifier{
		{ID: "java25", Version: "25"}, {ID: "java21", Version: "21"}, {ID: "java17", Version: "17"}, {ID: "java11", Version: "11"},
	}
}

// Programs are the name of the launcher and the folders of distributions and
// version managers.
func (Family) Programs() []string {
	return []string{
		"java",
		"$JAVA_HOME/bin/java",
		"/usr/lib/jvm/*/bin/java",
		"/usr/java/*/bin/java",
		"/opt/java/*/bin/java", "/opt/jdk*/bin/java",
		"$SDKMAN_DIR/candidates/java/*/bin/java",
		".sdkman/candidates/java/*/bin/java",
		".jdks/*/bin/java",
		"$ASDF_DATA_DIR/installs/java/*/bin/java",
		".asdf/installs/java/*/bin/java",
		"$MISE_DATA_DIR/installs/java/*/bin/java",
		".local/share/mise/installs/java/*/bin/java",
		"$HOMEBREW_PREFIX/opt/openjdk*/bin/java",
		"/opt/homebrew/opt/openjdk*/bin/java",
		"/home/linuxbrew/.linuxbrew/opt/openjdk*/bin/java",
		"/Library/Java/JavaVirtualMachines/*/Contents/Home/bin/java",
	}
}

// Probe asks a launcher for its version. Java 8, which knows no --version, says so.
func (Family) Probe(ctx context.Context, program string) (bootstrap.Installation, error) {
	out, err := bootstrap.Ask(ctx, program, "--version")
	if err != nil {
		return bootstrap.Installation{}, err
	}
	said := strings.Fields(string(out)) // openjdk 21.0.4 2024-07-16 …
	home := filepath.Dir(filepath.Dir(program))
	if _, err := os.Stat(filepath.Join(home, "lib", "modules")); err != nil || len(said) < 2 {
		return bootstrap.Installation{}, errors.New("does not answer as Java does, or is not in the folder of one")
	}
	version := said[1]
	if major(version) < oldest {
		return bootstrap.Installation{}, fmt.Errorf("is Java %s; %d is the oldest that Kiln runs", version, oldest)
	}
	in := bootstrap.Installation{Program: program, Version: version, Prefix: home}
	if strings.HasPrefix(home, "/usr/") {
		in.Prefix = ""
	}
	return in, nil
}

// oldest is the first Java that the launch is written for.
const oldest = 11

// major is the first number of a version: 21 of 21.0.4, 1 of 1.8.0.
func major(version string) int {
	first, _, _ := strings.Cut(version, ".")
	first, _, _ = strings.Cut(first, "-")
	n, _ := strconv.Atoi(first) // what is no number is 0, older than any
	return n
}

// Client is nil: the client is AWS's, see Bundle.
func (Family) Client() fs.FS { return nil }

// Require asks for AWS's client.
func (Family) Require(have bootstrap.Addition) string {
	if have.Bundle != nil {
		return ""
	}
	return fmt.Sprintf("The runtime %s needs AWS's runtime interface client for Java. Run: kiln runtime add %s", have.ID, have.ID)
}

// Launch starts AWS's client by a jar of ours that holds nothing but a manifest: the
// class path, and what the client needs the module system to open. Given on the
// command line instead, the latter would cost the JDK's own archive of modules.
// The jar is named relative to the code's folder, as it was when the archive was made.
func (Family) Launch(id lambda.RuntimeID, in bootstrap.Installation, l bootstrap.Layout) bootstrap.Launch {
	program := in.Inside(l)
	jar, archive := l.Runtime+"/"+launcher, ""
	if l.Task == "/var/task" {
		jar, archive = fromTask+launcher, fromTask+archiveFile
	}
	args := []string{program}
	args = append(args, collector, compiler, "-XX:-UsePerfData")
	if archive != "" {
		args = append(args, "-Xshare:auto", sharedArchive+archive, "-Xlog:cds=off", "-Xlog:cds+dynamic=off")
	}
	args = append(args, "-D"+nativeProperty+"="+l.Runtime+"/"+library)
	if major(in.Version) >= 24 {
		args = append(args, unsafeAllowed)
	}
	own := map[string]string{}
	if runtime.GOOS == "linux" {
		// AWS's systems have en_US.UTF-8, many machines have not: Java would then read
		// and write text, and name files, in ASCII. It takes LANG whole or not at all.
		own["LC_ALL"] = "C.UTF-8"
	}
	return bootstrap.Launch{
		Path:     program,
		Args:     append(args, "-jar", jar, handlerPlace),
		Dir:      l.Task,
		Defaults: l.Defaults(own),
		Reserved: l.Reserved(map[string]string{"AWS_EXECUTION_ENV": bootstrap.ExecutionEnv(id)}),
	}
}

const (
	// What AWS starts functions with: a collector without threads of its own, and
	// the compiler that is ready soonest.
	collector     = "-XX:+UseSerialGC"
	compiler      = "-XX:TieredStopAtLevel=1"
	sharedArchive = "-XX:SharedArchiveFile="

	// unsafeAllowed keeps JDK 24 and later from warning of what the client does, in
	// the function's log.
	unsafeAllowed = "--sun-misc-unsafe-memory-access=allow"

	// nativeProperty tells the client where its native part is; otherwise every
	// process would unpack it to the same file in /tmp.
	nativeProperty = "com.amazonaws.services.lambda.runtime.api.client.runtimeapi.NativeClient.JNI"

	launcher    = "runtime.jar"
	archiveFile = "runtime.jsa"
	library     = "lib/libaws-lambda-jni.so"
	fromTask    = "../runtime/"

	// handlerPlace is where Adjust puts the handler, the client's one argument.
	handlerPlace = "$_HANDLER"
)

// heapShare is how much of a function's memory the heap may take, as on AWS; the
// rest is for classes, compiled code and threads.
const heapShare = 85

// Adjust puts the handler in its place, and sizes the heap by the function's memory.
// What JAVA_TOOL_OPTIONS asks for is not contradicted: the JVM would take the
// command line's word, or refuse two collectors.
func (Family) Adjust(l bootstrap.Launch, vars map[string]string) bootstrap.Launch {
	if len(l.Args) == 0 {
		return l
	}
	options := vars["JAVA_TOOL_OPTIONS"] + " " + vars["JDK_JAVA_OPTIONS"] + " " + vars["_JAVA_OPTIONS"]
	has := func(some ...string) bool {
		for _, s := range some {
			if strings.Contains(options, s) {
				return true
			}
		}
		return false
	}
	args := []string{l.Args[0]}
	if memory, err := strconv.Atoi(vars["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]); err == nil && !has("-Xmx", "HeapSize", "RAMPercentage") {
		args = append(args, fmt.Sprintf("-XX:MaxHeapSize=%dk", memory*1024*heapShare/100))
	}
	for _, arg := range l.Args[1:] {
		switch {
		case arg == collector && has("SerialGC", "ParallelGC", "G1GC", "ZGC", "ShenandoahGC", "EpsilonGC"), arg == compiler && has("Tiered"),
			strings.HasPrefix(arg, sharedArchive) && has("SharedArchiveFile"),
			strings.HasPrefix(arg, "-Xshare") && has("-Xshare"):
			continue
		case arg == handlerPlace:
			arg = vars["_HANDLER"]
		}
		args = append(args, arg)
	}
	l.Args = args
	return l
}
