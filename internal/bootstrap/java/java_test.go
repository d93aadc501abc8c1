package java_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kiln/internal/bootstrap"
	"kiln/internal/bootstrap/java"
)

func TestProbe(t *testing.T) {
	t.Parallel()
	cases := []struct{ name, script, version, want string }{
		{"openjdk", "echo 'openjdk 21.0.4 2024-07-16'; echo 'OpenJDK Runtime Environment (build 21)'", "21.0.4", ""},
		{"early access", "echo 'openjdk 25-ea 2025-09-16'", "25-ea", ""},
		{"old", "echo 'openjdk 9.0.1'", "", "11 is the oldest"},
		{"java 8", "echo 'Unrecognized option: --version' >&2; exit 1", "", "Unrecognized option: --version"},
		{"something else", "echo hello", "", "does not answer as Java does"},
	}
	for _, c := range cases {
		home := t.TempDir()
		path := filepath.Join(home, "bin", "java")
		for _, dir := range []string{"bin", "lib"} {
			if err := os.Mkdir(filepath.Join(home, dir), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		for file, content := range map[string]string{path: "#!/bin/sh\n" + c.script + "\n", home + "/lib/modules": ""} {
			if err := os.WriteFile(file, []byte(content), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		in, err := java.New().Probe(t.Context(), path)
		if c.want != "" {
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %+v, %v", c.name, in, err)
			}
		} else if err != nil || in.Version != c.version || in.Prefix != home || in.Program != path {
			t.Errorf("%s: %+v, %v", c.name, in, err)
		}
	}
}

func TestLaunch(t *testing.T) {
	t.Parallel()
	sealed := bootstrap.Layout{Task: "/var/task", Opt: "/opt", Runtime: "/var/runtime", Lang: "/var/lang", Tmp: "/tmp"}
	host := bootstrap.Layout{Task: "/d/task", Runtime: "/d/client", Tmp: "/d/tmp"}
	const native = "-Dcom.amazonaws.services.lambda.runtime.api.client.runtimeapi.NativeClient.JNI=/var/runtime/lib/libaws-lambda-jni.so "
	const archive = "-Xshare:auto -XX:SharedArchiveFile=../runtime/runtime.jsa -Xlog:cds=off -Xlog:cds+dynamic=off "
	const end = "-jar ../runtime/runtime.jar a.B::c"
	cases := []struct {
		name, version, options string
		layout                 bootstrap.Layout
		want                   string
	}{
		{"plain", "17.0.1", "", sealed, "-XX:MaxHeapSize=445644k -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:-UsePerfData " + archive + native + end},
		{"new", "25", "", sealed, "-XX:MaxHeapSize=445644k -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:-UsePerfData " + archive + native + "--sun-misc-unsafe-memory-access=allow " + end},
		{"own heap and collector", "17.0.1", "-Xmx100m -XX:+UseG1GC -XX:MaxGCPauseMillis=9", sealed, "-XX:TieredStopAtLevel=1 -XX:-UsePerfData " + archive + native + end},
		{"a collector's setting", "17.0.1", "-XX:MaxGCPauseMillis=9", sealed, "-XX:MaxHeapSize=445644k -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:-UsePerfData " + archive + native + end},
		{"own compiler and archive", "17.0.1", "-XX:+TieredCompilation -Xshare:off -XX:SharedArchiveFile=/opt/x", sealed, "-XX:MaxHeapSize=445644k -XX:+UseSerialGC -XX:-UsePerfData -Xlog:cds=off -Xlog:cds+dynamic=off " + native + end},
		{"host paths", "17.0.1", "", host, "-XX:MaxHeapSize=445644k -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:-UsePerfData " + strings.Replace(native, "/var/runtime", "/d/client", 1) + "-jar /d/client/runtime.jar a.B::c"},
	}
	for _, c := range cases {
		in := bootstrap.Installation{Program: "/usr/lib/jvm/x/bin/java", Version: c.version}
		f := java.New()
		l := f.Adjust(f.Launch("java17", in, c.layout), map[string]string{
			"_HANDLER": "a.B::c", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512", "JAVA_TOOL_OPTIONS": c.options,
		})
		if got := strings.Join(l.Args, " "); got != in.Program+" "+c.want {
			t.Errorf("%s:\n got %s\nwant %s %s", c.name, got, in.Program, c.want)
		}
		if l.Reserved["AWS_EXECUTION_ENV"] != "AWS_Lambda_java17" || l.Dir != c.layout.Task {
			t.Errorf("%s: %+v", c.name, l)
		}
	}
}

func TestRequiresItsClient(t *testing.T) {
	t.Parallel()
	f := java.New()
	if lack := f.Require(bootstrap.Addition{ID: "java21"}); !strings.Contains(lack, "Run: kiln runtime add java21") {
		t.Errorf("got %q", lack)
	}
	if lack := f.Require(bootstrap.Addition{ID: "java21", Bundle: &bootstrap.Bundle{}}); lack != "" {
		t.Errorf("got %q", lack)
	}
}
