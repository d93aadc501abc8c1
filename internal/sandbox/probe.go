package sandbox

import (
	"context"
	"fmt"
	"os"
)

// Probe makes a sandbox with the driver and runs a program in it. Its error says what is missing.
func Probe(ctx context.Context, d Driver) error {
	s, err := d.Create(ctx, Spec{ID: fmt.Sprintf("probe-%d", os.Getpid()), Group: "probe", Task: "/usr"})
	if err != nil {
		return err
	}
	defer func() { _ = s.Destroy(context.WithoutCancel(ctx)) }()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	p, err := s.Exec(ctx, Command{Path: "/bin/sh", Args: []string{"sh", "-c", "exit 0"}, Dir: "/", Stdout: null, Stderr: null})
	if err != nil {
		return err
	}
	select {
	case <-p.Done():
	case <-ctx.Done():
		return ctx.Err()
	}
	if e := p.Exit(); e != (Exit{}) {
		return fmt.Errorf("%s driver: a shell in a sandbox ended with %+v", d.Name(), e)
	}
	return nil
}
