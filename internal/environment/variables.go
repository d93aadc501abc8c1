package environment

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"kiln/internal/aws/sigv4"
	"kiln/internal/bootstrap"
	"kiln/internal/lambda"
	"kiln/internal/sandbox"
)

// Credentials are what a function's SDK calls are signed with. Kiln makes them, and
// they mean nothing to AWS, unless its owner passes on AWS's.
type Credentials struct {
	AccessKeyID, SecretAccessKey, SessionToken string
}

// memorySize is the variable that runtimes choose their own sizes by.
const memorySize = "AWS_LAMBDA_FUNCTION_MEMORY_SIZE"

// variables are the environment of a runtime process. A function's own settings
// win over defaults; what the platform reserves wins over everything.
func (e *Environment) variables(launch bootstrap.Launch, paths sandbox.Paths, api string) map[string]string {
	fn, c := e.function, e.credentials
	env := map[string]string{}
	for _, v := range paths.Env {
		name, value, _ := strings.Cut(v, "=")
		env[name] = value
	}
	maps.Copy(env, launch.Defaults)
	env["AWS_EC2_METADATA_DISABLED"] = "true" // no handler gets the credentials of the machine …
	if passed := e.factory.Passed; passed != nil {
		c = *passed
		for service, url := range e.factory.Endpoints { // Kiln could not verify who calls, and does not forward
			env[sigv4.EndpointVariable(service)] = url
		}
	} else {
		env["AWS_ENDPOINT_URL"] = e.endpoint // … or reaches AWS by accident
	}
	maps.Copy(env, e.factory.Variables)
	if e.root == "" {
		maps.Copy(env, e.factory.Trust)
	}
	maps.Copy(env, fn.Settings.Environment)
	if fn.Settings.Handler != "" {
		env["_HANDLER"] = fn.Settings.Handler
	}
	maps.Copy(env, launch.Reserved)
	maps.Copy(env, map[string]string{
		"AWS_REGION":                     string(fn.ARN.Region),
		"AWS_DEFAULT_REGION":             string(fn.ARN.Region),
		"AWS_ACCESS_KEY_ID":              c.AccessKeyID,
		"AWS_SECRET_ACCESS_KEY":          c.SecretAccessKey,
		"AWS_LAMBDA_FUNCTION_NAME":       string(fn.ARN.Name),
		"AWS_LAMBDA_FUNCTION_VERSION":    string(fn.Version),
		memorySize:                       strconv.Itoa(fn.Settings.MemoryMB),
		"AWS_LAMBDA_INITIALIZATION_TYPE": e.how,
		"AWS_LAMBDA_LOG_GROUP_NAME":      fn.Settings.Logging.Group,
		"AWS_LAMBDA_LOG_STREAM_NAME":     e.stream,
		"AWS_LAMBDA_RUNTIME_API":         api,
	})
	if c.SessionToken != "" { // an IAM user's have none
		env["AWS_SESSION_TOKEN"] = c.SessionToken
	}
	if fn.Settings.Logging.Format == "JSON" {
		env["AWS_LAMBDA_LOG_FORMAT"] = "JSON"
		env["AWS_LAMBDA_LOG_LEVEL"] = fn.Settings.Logging.ApplicationLevel
	}
	if !launch.OSOnly {
		env["_LAMBDA_TELEMETRY_LOG_FD"] = "3"
	}
	return env
}

// extensionVariables are the environment of an external extension: the runtime's
// without what concerns a runtime alone.
// https://docs.aws.amazon.com/lambda/latest/dg/runtimes-extensions-api.html
func extensionVariables(vars map[string]string) map[string]string {
	vars = maps.Clone(vars)
	for _, name := range []string{
		"AWS_EXECUTION_ENV", "AWS_LAMBDA_LOG_GROUP_NAME", "AWS_LAMBDA_LOG_STREAM_NAME", "AWS_LAMBDA_LOG_FORMAT", "AWS_LAMBDA_LOG_LEVEL",
		"LAMBDA_TASK_ROOT", "LAMBDA_RUNTIME_DIR", "AWS_XRAY_CONTEXT_MISSING", "AWS_XRAY_DAEMON_ADDRESS",
	} {
		delete(vars, name)
	}
	maps.DeleteFunc(vars, func(name, _ string) bool { return strings.HasPrefix(name, "_") })
	return vars
}

// environ lists variables as a process gets them.
func environ(vars map[string]string) []string {
	env := make([]string, 0, len(vars))
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		env = append(env, name+"="+vars[name])
	}
	return env
}

// command is the process that starts the runtime: the launch itself, or the
// wrapper script that the function's owner put before it.
func command(fn *lambda.Function, launch bootstrap.Launch, paths sandbox.Paths, vars map[string]string) sandbox.Command {
	wrapped := launch.Wrapped(inside(fn.Settings.Environment["AWS_LAMBDA_EXEC_WRAPPER"], paths))
	cmd := sandbox.Command{Path: wrapped.Path, Args: wrapped.Args, Dir: launch.Dir, Env: environ(vars)}
	if wrapped.Path != launch.Path {
		// Through env(1), so that a wrapper that is missing exits with 127, as on AWS.
		cmd.Path = "/usr/bin/env"
		cmd.Args = append([]string{"env"}, wrapped.Args...)
	}
	return cmd
}

// inside is where a path of AWS's lies for the processes of a sandbox, which may
// have no root of their own.
func inside(path string, paths sandbox.Paths) string {
	for aws, here := range map[string]string{"/var/task/": paths.Task, "/opt/": paths.Opt} {
		if rest, ok := strings.CutPrefix(path, aws); ok && here != "" {
			return here + "/" + rest
		}
	}
	return path
}
