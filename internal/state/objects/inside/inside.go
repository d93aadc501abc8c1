// Package inside is the process that serves the buckets of one account in a region: the
// versitygw library, which changes into its folder and can be there once in a process.
// cmd/kiln-objects calls it, which package objects starts.
package inside

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/embedgw"
	"github.com/versity/versitygw/s3api"
)

const (
	// maxRequests is how many are served at once. The door lets fewer in.
	maxRequests = 1_000
	// maxParts is how many parts an upload may have, as on AWS.
	maxParts = 10_000
	// maxCopy is how large an object may be that is copied at once, in bytes, as on AWS.
	maxCopy = 5 << 30
	// ready is what is written to the standard output once requests are served.
	ready = "ready"
)

// Serve serves until the standard input ends, which it does when the daemon does,
// however that comes. The first line there is the secret. The arguments are the folder,
// the socket, the region and the account.
func Serve(args []string) int {
	if err := serve(args); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func serve(args []string) error {
	if len(args) != 4 {
		return errors.New("this program is not for people: kiln up starts it")
	}
	root, socket, region, account := args[0], args[1], args[2], args[3]
	in := bufio.NewReader(os.Stdin)
	secret, err := in.ReadString('\n')
	if err != nil {
		return fmt.Errorf("read the secret: %w", err)
	}
	out := os.Stdout
	os.Stdout = os.Stderr // what the library prints
	go func() {           // ends with the process
		_, _ = io.Copy(io.Discard, in)
		_ = os.Remove(socket)
		os.Exit(0)
	}()
	// One that the daemon before has left ends by itself, and writes no longer then.
	lock, err := os.OpenFile(filepath.Join(root, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	store, err := open(root)
	if err != nil {
		return err
	}
	return embedgw.RunVersityGW(context.Background(), store, &embedgw.Config{
		RootUserAccess: account, RootUserSecret: strings.TrimSpace(secret), Region: region, Ports: []string{socket},
		MaxConnections: maxRequests, MaxRequests: maxRequests, MultipartMaxParts: maxParts, KeepAlive: true, Quiet: true, DisableACLs: true,
		S3Options: []s3api.Option{s3api.WithOnListen(func() { fmt.Fprintln(out, ready) })},
	})
}

// open opens the folder. What is known of an object stands in attributes of its file,
// or in files beside where the file system has no attributes.
func open(root string) (*posix.Posix, error) {
	buckets, versions, beside := filepath.Join(root, "buckets"), filepath.Join(root, "versions"), filepath.Join(root, "attributes")
	options := posix.PosixOpts{VersioningDir: versions, NewDirPerm: 0o700, NewFilePerm: 0o600, CopyObjectThreshold: maxCopy}
	for _, dir := range []string{buckets, versions} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	_, err := os.Stat(beside)
	if err == nil || (meta.XattrMeta{}).Test(buckets) != nil {
		if err := os.MkdirAll(beside, 0o700); err != nil {
			return nil, err
		}
		attributes, err := meta.NewSideCar(beside)
		if err != nil {
			return nil, err
		}
		options.SideCarDir = beside
		return posix.New(buckets, attributes, options)
	}
	return posix.New(buckets, meta.XattrMeta{}, options)
}
