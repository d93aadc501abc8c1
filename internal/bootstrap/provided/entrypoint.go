package provided

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"kiln/internal/lambda"
)

// name is what the executable must be called.
const name = "bootstrap"

// Place says in which of a function's trees its bootstrap lies.
type Place string

// The code comes before the layers.
const (
	InTask Place = "task"
	InOpt  Place = "opt"
)

// ErrNoEntrypoint is wrapped by Entrypoint's errors: the platform answers such an
// invocation with Runtime.InvalidEntrypoint.
var ErrNoEntrypoint = errors.New("no executable named bootstrap")

// Entrypoint finds the bootstrap in the host's copies of a function's code and
// merged layers; opt is "" without layers. A bootstrap that is there but not
// executable ends the search, as it does on AWS.
func Entrypoint(task, opt string) (Place, error) {
	for _, tree := range []struct {
		place Place
		dir   string
	}{{InTask, task}, {InOpt, opt}} {
		if tree.dir == "" {
			continue
		}
		info, err := os.Stat(filepath.Join(tree.dir, name))
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return "", err
		case info.IsDir():
			return "", fmt.Errorf("%w: %s/%s is a folder", ErrNoEntrypoint, tree.place, name)
		case info.Mode()&0o111 == 0:
			return "", fmt.Errorf("%w: %s/%s has no execute permission (mode %#o); run chmod +x before zipping it", ErrNoEntrypoint, tree.place, name, info.Mode().Perm())
		default:
			return tree.place, nil
		}
	}
	return "", fmt.Errorf("%w in the code or its layers", ErrNoEntrypoint)
}

// CheckExecutable refuses a program that cannot run on Linux with that
// architecture: a Mach-O or Windows program, an ELF file for another machine.
// Scripts and files of unknown form pass; the kernel decides about those.
func CheckExecutable(file io.ReaderAt, arch lambda.Architecture) error {
	var magic [4]byte
	if n, err := file.ReadAt(magic[:], 0); n < len(magic) {
		if n == 0 && errors.Is(err, io.EOF) {
			return errors.New("it is empty")
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		return nil
	}
	switch binary.BigEndian.Uint32(magic[:]) {
	case 0xfeedface, 0xfeedfacf, 0xcefaedfe, 0xcffaedfe, 0xcafebabe:
		return fmt.Errorf("it is a macOS program; build it for Linux and %s (with Go: GOOS=linux GOARCH=%s)", arch, goArch[arch])
	}
	if magic[0] == 'M' && magic[1] == 'Z' {
		return fmt.Errorf("it is a Windows program; build it for Linux and %s (with Go: GOOS=linux GOARCH=%s)", arch, goArch[arch])
	}
	if string(magic[:]) != elf.ELFMAG {
		return nil
	}
	program, err := elf.NewFile(file)
	if err != nil {
		return fmt.Errorf("it is a damaged ELF program: %w", err)
	}
	if want := machine[arch]; program.Machine != want {
		return fmt.Errorf("it is built for %s, the function's architecture is %s (with Go: GOOS=linux GOARCH=%s)", machineName(program.Machine), arch, goArch[arch])
	}
	return nil
}

var (
	machine = map[lambda.Architecture]elf.Machine{lambda.X86_64: elf.EM_X86_64, lambda.ARM64: elf.EM_AARCH64}
	goArch  = map[lambda.Architecture]string{lambda.X86_64: "amd64", lambda.ARM64: "arm64"}
)

func machineName(m elf.Machine) string {
	for arch, known := range machine {
		if m == known {
			return string(arch)
		}
	}
	return m.String()
}
