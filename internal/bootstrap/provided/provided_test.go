package provided_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kiln/internal/bootstrap"
	"kiln/internal/bootstrap/provided"
	"kiln/internal/lambda"
)

func TestEntrypoint(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name      string
		task, opt os.FileMode // of bootstrap; 0 for none
		want      provided.Place
		fails     string
	}{
		{"in the code", 0o755, 0, provided.InTask, ""},
		{"in a layer", 0, 0o755, provided.InOpt, ""},
		{"the code's first", 0o755, 0o755, provided.InTask, ""},
		{"nowhere", 0, 0, "", "in the code or its layers"},
		{"not executable", 0o644, 0o755, "", "chmod +x"},
		{"a folder", os.ModeDir | 0o755, 0, "", "is a folder"},
	}
	for _, c := range cases {
		dir := t.TempDir()
		l := bootstrap.Layout{Task: "/var/task", Opt: "/opt", HostTask: dir + "/task", HostOpt: dir + "/opt"}
		for tree, mode := range map[string]os.FileMode{l.HostTask: c.task, l.HostOpt: c.opt} {
			path := filepath.Join(tree, "bootstrap")
			switch {
			case mode.IsDir():
				if err := os.MkdirAll(path, 0o755); err != nil {
					t.Fatal(err)
				}
			case mode != 0:
				if err := os.MkdirAll(tree, 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, nil, mode); err != nil {
					t.Fatal(err)
				}
			}
		}
		got, err := provided.Entrypoint(l.HostTask, l.HostOpt)
		if got != c.want || (err == nil) != (c.fails == "") || err != nil && (!errors.Is(err, provided.ErrNoEntrypoint) || !strings.Contains(err.Error(), c.fails)) {
			t.Errorf("%s: got %q, %v", c.name, got, err)
		}
		path := "/var/task/bootstrap"
		if c.want == provided.InOpt {
			path = "/opt/bootstrap"
		}
		launch := provided.New().Launch("provided.al2023", bootstrap.Installation{}, l)
		if launch.Path != path || launch.Dir != "/var/task" || !launch.OSOnly || launch.Wrapped("/opt/w").Path != path {
			t.Errorf("%s: %+v", c.name, launch)
		}
		if _, ok := launch.Reserved["AWS_EXECUTION_ENV"]; ok {
			t.Errorf("%s: AWS_EXECUTION_ENV is set", c.name)
		}
	}
}

func TestCheckExecutable(t *testing.T) {
	t.Parallel()
	elf := func(machine uint16) []byte {
		b := make([]byte, 64)
		copy(b, "\x7fELF\x02\x01\x01")
		binary.LittleEndian.PutUint16(b[16:], 2) // executable
		binary.LittleEndian.PutUint16(b[18:], machine)
		binary.LittleEndian.PutUint32(b[20:], 1)
		binary.LittleEndian.PutUint16(b[52:], 64)
		return b
	}
	const amd64, arm64, riscv = 62, 183, 243
	cases := []struct {
		name  string
		file  []byte
		arch  lambda.Architecture
		fails string
	}{
		{"the same", elf(amd64), lambda.X86_64, ""},
		{"the same", elf(arm64), lambda.ARM64, ""},
		{"another", elf(arm64), lambda.X86_64, "it is built for arm64, the function's architecture is x86_64 (with Go: GOOS=linux GOARCH=amd64)"},
		{"a third", elf(riscv), lambda.ARM64, "EM_RISCV"},
		{"macOS", []byte("\xcf\xfa\xed\xfe________"), lambda.ARM64, "macOS"},
		{"macOS, universal", []byte("\xca\xfe\xba\xbe________"), lambda.ARM64, "macOS"},
		{"Windows", []byte("MZ______"), lambda.X86_64, "Windows"},
		{"script", []byte("#!/bin/sh\n"), lambda.X86_64, ""},
		{"damaged", []byte("\x7fELF____"), lambda.X86_64, "damaged"},
		{"empty", nil, lambda.X86_64, "empty"},
		{"short", []byte("#!"), lambda.X86_64, ""},
	}
	for _, c := range cases {
		err := provided.CheckExecutable(bytes.NewReader(c.file), c.arch)
		if (err == nil) != (c.fails == "") || err != nil && !strings.Contains(err.Error(), c.fails) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
