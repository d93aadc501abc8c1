package process

import (
	"context"
	"fmt"
	"syscall"
	"time"
)

const (
	openFiles = 1024 // AWS's RLIMIT_NOFILE

	// A killed process is gone within microseconds unless it hangs in the
	// kernel, on a dead network file system for instance: then stop waiting.
	killTimeout  = 10 * time.Second
	killInterval = time.Millisecond
)

// killAll kills every process of a sandbox that can be found, again and again
// until none is found, because they may fork meanwhile.
func killAll(ctx context.Context, id string, leaders []int) error {
	for _, pid := range leaders {
		_ = syscall.Kill(-pid, syscall.SIGKILL)
	}
	ctx, cancel := context.WithTimeout(ctx, killTimeout)
	defer cancel()
	for {
		pids, err := find(ctx, id, leaders)
		if err != nil {
			return fmt.Errorf("find processes of sandbox %s: %w", id, err)
		}
		if len(pids) == 0 {
			return nil
		}
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("processes %v of sandbox %s survive SIGKILL", pids, id)
		case <-time.After(killInterval):
		}
	}
}
