package environment

import (
	"context"
	"os"
	"path/filepath"
	"runtime"

	"kiln/internal/bootstrap/provided"
	"kiln/internal/lambda"
)

// MachineArchitecture is what this machine runs, in AWS's words.
func MachineArchitecture() lambda.Architecture {
	if runtime.GOARCH == "arm64" {
		return lambda.ARM64
	}
	return lambda.X86_64
}

// Check refuses, with the reason, a function that cannot run on this machine.
func (f *Factory) Check(ctx context.Context, s *lambda.Settings, code lambda.Code) error {
	if s.Architecture != MachineArchitecture() {
		return lambda.InvalidParameter("This machine is %s and cannot run a function for %s. Leave Architectures out, or give %s.", MachineArchitecture(), s.Architecture, MachineArchitecture())
	}
	if s.PackageType == lambda.Image {
		return f.checkImage()
	}
	r, err := f.Runtimes.Resolve(ctx, s.Runtime)
	if err != nil {
		return err
	}
	if r.Image != "" {
		if err := f.checkImage(); err != nil {
			return err
		}
	}
	if r.Substitute != "" {
		f.Log.Warn("a runtime of another version is used", "runtime", string(s.Runtime), "substitute", r.Substitute)
	}
	// Layers are merged now, rather than by the first invocation.
	layers, release, err := f.Packages.Layers(ctx, s.Layers)
	if err != nil {
		return err
	}
	defer release()
	if r.Label != "" {
		return nil
	}
	if runtime.GOOS != "linux" {
		return lambda.InvalidParameter("%s runs Linux executables, and this machine has no Linux.", s.Runtime)
	}
	dir, release, err := f.Packages.Dir(ctx, code)
	if err != nil {
		return err
	}
	defer release()
	return checkBootstrap(dir, layers, s.Architecture)
}

// checkBootstrap refuses a bootstrap for another machine. One that is missing, or
// that cannot be executed, is found out by the first invocation, as on AWS.
func checkBootstrap(code, layers string, arch lambda.Architecture) error {
	place, err := provided.Entrypoint(code, layers)
	if err != nil {
		return nil
	}
	dir := code
	if place == provided.InOpt {
		dir = layers
	}
	file, err := os.Open(filepath.Join(dir, "bootstrap"))
	if err != nil {
		return err
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return err
	}
	if err := provided.CheckExecutable(file, arch); err != nil {
		return lambda.InvalidParameter("The bootstrap of this function cannot run: %s.", err)
	}
	return nil
}
