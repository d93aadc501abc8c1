package bootstrap

import (
	"maps"
	"runtime"
	"strings"

	"kiln/internal/lambda"
)

// sealed tells whether the processes see AWS's own paths. Where they see the
// host's, nothing of the host may be shadowed.
func (l Layout) sealed() bool { return l.Task == "/var/task" }

// Defaults are the variables of every runtime that a function's own settings
// override, as they are seen on AWS, together with a family's own.
func (l Layout) Defaults(own map[string]string) map[string]string {
	vars := map[string]string{
		"LANG":                     "en_US.UTF-8",
		"TZ":                       ":UTC",
		"PATH":                     l.searchPath(),
		"LD_LIBRARY_PATH":          l.libraryPath(),
		"AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR",
		"AWS_XRAY_DAEMON_ADDRESS":  xrayHost + ":" + xrayPort,
	}
	if runtime.GOOS == "darwin" {
		vars["TZ"] = "UTC" // its C library takes no colon
	}
	maps.Copy(vars, own)
	return vars
}

// Reserved are the variables of every runtime that a function cannot set,
// together with a family's own.
func (l Layout) Reserved(own map[string]string) map[string]string {
	vars := map[string]string{
		"LAMBDA_TASK_ROOT":         l.Task,
		"LAMBDA_RUNTIME_DIR":       l.Runtime,
		"_AWS_XRAY_DAEMON_ADDRESS": xrayHost,
		"_AWS_XRAY_DAEMON_PORT":    xrayPort,
	}
	if l.Runtime == "" {
		vars["LAMBDA_RUNTIME_DIR"] = "/var/runtime" // AWS sets it for OS-only runtimes too
	}
	maps.Copy(vars, own)
	return vars
}

// atStart tells whether a variable means something to the start of any program: to
// its loader, its C library, the libraries that languages are linked with, or to
// Kiln.
func atStart(name string) bool {
	switch name {
	case "TZ", "TZDIR", "LANG", "LANGUAGE", "LOCPATH", "GCONV_PATH", "AWS_LAMBDA_EXEC_WRAPPER":
		return true
	}
	for _, prefix := range []string{"LD_", "LC_", "DYLD_", "GLIBC_", "MALLOC_", "OPENSSL_", "SSL_", "ICU_"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// ExecutionEnv is the value of AWS_EXECUTION_ENV for a managed runtime.
func ExecutionEnv(id lambda.RuntimeID) string { return "AWS_Lambda_" + string(id) }

// Where traces are sent, by UDP: a collector on the machine itself, if any. AWS's
// own address, 169.254.100.1, would leave a sandbox that shares the host's network.
const (
	xrayHost = "127.0.0.1"
	xrayPort = "2000"
)

func (l Layout) searchPath() string {
	path := "/usr/local/bin:/usr/bin/:/bin"
	if l.sealed() {
		path = "/var/lang/bin:" + path
	} else if l.Lang != "" {
		path = l.Lang + "/bin:" + path
	}
	if l.Opt != "" || l.sealed() {
		path += ":" + orDefault(l.Opt, "/opt") + "/bin"
	}
	return path
}

// libraryPath is AWS's in a sealed root, where an interpreter may have been moved
// to /var/lang. On host paths only the function's own folders are named: an
// interpreter that was found in its place finds its libraries by itself, and
// another system's /lib64 before them would break it (Nix, Homebrew, conda).
func (l Layout) libraryPath() string {
	path := ""
	if l.sealed() {
		path = "/var/lang/lib:/lib64:/usr/lib64:/var/runtime:/var/runtime/lib:"
	}
	path += l.Task + ":" + l.Task + "/lib"
	if l.Opt != "" || l.sealed() {
		path += ":" + orDefault(l.Opt, "/opt") + "/lib"
	}
	return path
}

func orDefault(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// Inside is the path of an installation's program for the processes of a sandbox.
func (in Installation) Inside(l Layout) string {
	if in.Prefix == "" || l.Lang == "" {
		return in.Program
	}
	rest, ok := cutFolder(in.Program, in.Prefix)
	if !ok {
		return in.Program
	}
	return l.Lang + "/" + rest
}
