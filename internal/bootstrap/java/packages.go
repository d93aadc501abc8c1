package java

import (
	"archive/zip"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"kiln/internal/bootstrap"
	"kiln/internal/lambda"
)

// Bundle is AWS's runtime client with what it is made of, as its release names it.
func (Family) Bundle(lambda.RuntimeID) []string {
	return []string{
		"com.amazonaws:aws-lambda-java-core:1.4.0",
		"com.amazonaws:aws-lambda-java-runtime-interface-client:2.10.1",
		"com.amazonaws:aws-lambda-java-serialization:1.2.0",
	}
}

// copyDependencies is the Maven plugin that fetches jars, pinned as they are.
const copyDependencies = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"

type dependency struct {
	Group    string `xml:"groupId"`
	Artifact string `xml:"artifactId"`
	Version  string `xml:"version"`
}

// Install runs Maven for the packages and what they depend on, and unpacks the
// client's native part for this machine.
func (Family) Install(ctx context.Context, _ bootstrap.Installation, packages []string, dir string) error {
	if runtime.GOOS != "linux" {
		return errors.New("AWS's runtime interface client for Java has a native part for Linux only")
	}
	project := struct {
		XMLName      xml.Name     `xml:"project"`
		Model        string       `xml:"modelVersion"`
		Group        string       `xml:"groupId"`
		Artifact     string       `xml:"artifactId"`
		Version      string       `xml:"version"`
		Dependencies []dependency `xml:"dependencies>dependency"`
	}{Model: "4.0.0", Group: "kiln", Artifact: "runtime", Version: "1"}
	for _, p := range packages {
		parts := strings.Split(p, ":")
		if len(parts) != 3 {
			return fmt.Errorf("%q is not group:artifact:version", p)
		}
		project.Dependencies = append(project.Dependencies, dependency{parts[0], parts[1], parts[2]})
	}
	pom, err := xml.Marshal(project)
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "kiln-maven-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	if err := os.WriteFile(filepath.Join(work, "pom.xml"), pom, 0o600); err != nil {
		return err
	}
	lib := filepath.Join(dir, "lib")
	if err := bootstrap.Fetch(ctx, work, "mvn", "-q", "-B", "-Dstyle.color=never", copyDependencies, "-DincludeScope=runtime", "-DoutputDirectory="+lib); err != nil {
		return err
	}
	return unpackLibrary(lib, filepath.Join(dir, library))
}

// unpackLibrary takes the native part for this machine out of the client's jar. It
// is the one for glibc, as on AWS; a system with musl is served by its own build.
func unpackLibrary(lib, to string) error {
	found, err := filepath.Glob(filepath.Join(lib, "aws-lambda-java-runtime-interface-client-*.jar"))
	if err != nil || len(found) != 1 {
		return errors.Join(err, fmt.Errorf("%d jars of the runtime interface client came, not one", len(found)))
	}
	r, err := zip.OpenReader(found[0])
	if err != nil {
		return fmt.Errorf("open %s: %w", filepath.Base(found[0]), err)
	}
	defer r.Close()
	system := "linux"
	if musl, _ := filepath.Glob("/lib/ld-musl-*"); len(musl) > 0 {
		system = "linux_musl"
	}
	arch := map[string]string{"amd64": "x86_64", "arm64": "aarch_64"}[runtime.GOARCH]
	in, err := r.Open("jni/libaws-lambda-jni." + system + "-" + arch + ".so")
	if err != nil {
		return fmt.Errorf("the runtime interface client has no native part for %s: %w", arch, err)
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// writeLauncher writes the jar that Launch starts.
func writeLauncher(dir string) error {
	jars, err := filepath.Glob(filepath.Join(dir, "lib", "*.jar"))
	if err != nil {
		return err
	}
	slices.Sort(jars)
	path := make([]string, 0, len(jars))
	for _, j := range jars {
		path = append(path, "lib/"+filepath.Base(j))
	}
	f, err := os.Create(filepath.Join(dir, launcher))
	if err != nil {
		return err
	}
	defer f.Close()
	w := zip.NewWriter(f)
	m, err := w.Create("META-INF/MANIFEST.MF")
	if err != nil {
		return err
	}
	for _, line := range []string{
		"Manifest-Version: 1.0",
		"Main-Class: com.amazonaws.services.lambda.runtime.api.client.AWSLambda",
		"Add-Opens: java.base/java.io", // for the descriptor of the telemetry log
		"Enable-Native-Access: ALL-UNNAMED",
		"Class-Path: " + strings.Join(path, " "),
		"",
	} {
		if _, err := io.WriteString(m, manifestLine(line)); err != nil {
			return err
		}
	}
	return errors.Join(w.Close(), f.Sync())
}

// manifestLine breaks a line after 72 bytes, as manifests want it.
func manifestLine(line string) string {
	const width = 72
	var b strings.Builder
	for room := width; len(line) > room; room = width - 1 {
		b.WriteString(line[:room] + "\r\n ")
		line = line[room:]
	}
	b.WriteString(line + "\r\n")
	return b.String()
}
