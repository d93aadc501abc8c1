package crash

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"kiln/internal/state/powerloss"
	"kiln/test/kiln"
)

// powerRounds of cutting the power, unless KILN_SOAK says otherwise.
const powerRounds = 3

// TestKillPower is TestKillAsynchronous with a disk that loses power: at the death of the
// daemon what it has written and not synced is gone, every other time but for some pages.
func TestKillPower(t *testing.T) {
	t.Parallel()
	disk := powerloss.New(rand.Uint64())
	dir, unmount := powerloss.Mount(t, disk)
	cuts := 0
	killAsynchronous(t, filepath.Join(dir, "data"), powerRounds, func(d *kiln.Daemon) {
		disk.Cut(cuts%2 == 1)
		cuts++
		d.Kill()
		for _, p := range d.Living().Processes { // those of the process driver wait for the next start
			if pid, err := strconv.Atoi(strings.Fields(p)[1]); err == nil {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		d.NothingLives()
		unmount()
		disk.On()
		dir, unmount = powerloss.Mount(t, disk)
		d.Data = filepath.Join(dir, "data")
	}, "--driver", "process") // the others make file systems of half a gigabyte for /tmp, and the disk is in memory
}

// TestDiskHeals has the disk of a daemon fill up, fail and become read-only. Meanwhile
// changes and events are refused with a clear error, health says why, and functions run;
// afterwards all goes on without anybody's help, and what was accepted is delivered.
func TestDiskHeals(t *testing.T) {
	t.Parallel()
	const patience = 30 * time.Second
	l := &ledger{accepted: map[string]string{}, delivered: map[string]int{}}
	server := httptest.NewServer(l)
	defer server.Close()
	disk := powerloss.New(rand.Uint64())
	dir, _ := powerloss.Mount(t, disk)
	d := kiln.StartIn(t, filepath.Join(dir, "data"), nil, "--account", kiln.Account(), "--any-runtime", "--driver", "process")
	defer d.Stop() // while its disk is there
	d.Create("f", "python3.12", "f.handler", kiln.Zip(map[string]string{"f.py": told}), func(in *lambda.CreateFunctionInput) {
		in.Timeout = aws.Int32(20)
		in.Environment = &types.Environment{Variables: map[string]string{"LEDGER": strings.TrimPrefix(server.URL, "http://")}}
	})
	ctx, client := context.Background(), d.Client()
	invoke := func(kind types.InvocationType, id string) error {
		_, err := client.Invoke(ctx, &lambda.InvokeInput{FunctionName: aws.String("f"), InvocationType: kind, Payload: fmt.Appendf(nil, `{"id": %q, "do": "return"}`, id)})
		return err
	}
	change := func(to string) error {
		_, err := client.UpdateFunctionConfiguration(ctx, &lambda.UpdateFunctionConfigurationInput{FunctionName: aws.String("f"), Description: &to})
		return err
	}
	health := func() (says struct{ Status, Problem string }) {
		r, err := http.Get(d.URL + "/_kiln/health")
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		if err := json.NewDecoder(r.Body).Decode(&says); err != nil {
			t.Fatal(err)
		}
		return says
	}
	refused := func(what string, err error, status int, says string) {
		t.Helper()
		var api smithy.APIError
		var http *smithyhttp.ResponseError
		if !errors.As(err, &api) || !errors.As(err, &http) || api.ErrorCode() != "ServiceException" || http.HTTPStatusCode() != status || !strings.Contains(api.ErrorMessage(), says) {
			t.Errorf("%s: %v", what, err)
		}
	}
	accept := func(id string) {
		t.Helper()
		if err := invoke(types.InvocationTypeEvent, id); err != nil {
			t.Fatal(err)
		}
		l.accepted[id] = "return"
	}
	for _, fault := range []struct {
		errno  syscall.Errno
		status int
		says   string
	}{
		{syscall.EIO, http.StatusServiceUnavailable, "goes on by itself"},
		{syscall.EROFS, http.StatusServiceUnavailable, "goes on by itself"},
		{syscall.ENOSPC, http.StatusInsufficientStorage, "disk is full"},
	} {
		name := fmt.Sprint(int(fault.errno))
		if err := invoke(types.InvocationTypeRequestResponse, name+"-warm"); err != nil {
			t.Fatal(err)
		}
		for i := range 20 {
			accept(fmt.Sprint(name, "-before-", i))
		}
		disk.Fail(fault.errno, 1)
		refused("an event", invoke(types.InvocationTypeEvent, name+"-event"), fault.status, fault.says)
		refused("a change", change(name+" meanwhile"), fault.status, fault.says)
		if says := health(); says.Status != "degraded" || says.Problem == "" {
			t.Errorf("health says %+v", says)
		}
		if err := invoke(types.InvocationTypeRequestResponse, name+"-meanwhile"); err != nil {
			t.Errorf("a function does not run: %v", err)
		}
		disk.Fail(0, 0)
		kiln.Eventually(t, patience, func() error {
			if says := health(); says.Status != "ok" {
				return fmt.Errorf("health says %+v", says)
			}
			return nil
		})
		accept(name + "-after")
		if err := change(name + " after"); err != nil {
			t.Error(err)
		}
		if err := lambda.NewFunctionUpdatedV2Waiter(client).Wait(ctx, &lambda.GetFunctionInput{FunctionName: aws.String("f")}, patience); err != nil {
			t.Error(err)
		}
	}
	kiln.Eventually(t, 2*patience, func() error { // what could not be settled comes again after half a minute
		if open := l.open(); len(open) > 0 {
			return fmt.Errorf("%d of %d accepted events are not delivered: %.300s", len(open), len(l.accepted), strings.Join(open, ", "))
		}
		return nil
	})
	if t.Failed() {
		t.Logf("log of kiln:\n%s", d.Log)
	}
}
