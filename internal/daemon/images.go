package daemon

import (
	"context"
	"fmt"
	"os"
	"sync"

	"kiln/internal/bootstrap"
	"kiln/internal/lambda"
	"kiln/internal/sandbox"
	"kiln/internal/state/image"
)

// baseImages are the images that runtime identifiers are pinned to. Functions
// share the store with them, so that neither removes what the other has.
type baseImages struct {
	store  *image.Store
	driver sandbox.Driver
	unused func(context.Context, lambda.Code) // removes an image that no function has; set before the first call

	mu     sync.Mutex
	pinned map[string]int // guarded by mu; how often, by digest
}

func newBaseImages(store *image.Store, driver sandbox.Driver, additions *bootstrap.Additions) *baseImages {
	b := &baseImages{store: store, driver: driver, pinned: map[string]int{}}
	for _, digest := range additions.Pinned() {
		b.pinned[digest]++
	}
	return b
}

func (b *baseImages) has(digest string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.pinned[digest] > 0
}

func (b *baseImages) count(digest string, n int) (left int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	left = b.pinned[digest] + n
	if b.pinned[digest] = left; left == 0 {
		delete(b.pinned, digest)
	}
	return left
}

// Pin implements bootstrap.Images.
func (b *baseImages) Pin(ctx context.Context, id lambda.RuntimeID, reference string) (image.Image, error) {
	if _, ok := b.driver.(sandbox.Rooter); !ok {
		return image.Image{}, lambda.InvalidParameter("Base images need the linux driver, and this Kiln runs the %s driver. kiln doctor says what the linux driver lacks here.", b.driver.Name())
	}
	i, err := b.store.Resolve(ctx, reference)
	if err != nil {
		return i, err
	}
	b.count(i.Digest, 1)
	if err := b.store.Pull(ctx, i); err != nil {
		b.Unpin(context.WithoutCancel(ctx), i.Digest)
		return i, err
	}
	if err := b.check(ctx, id, reference, i.Digest); err != nil {
		b.Unpin(context.WithoutCancel(ctx), i.Digest)
		return i, err
	}
	return i, nil
}

// check refuses an image that no function could run in.
func (b *baseImages) check(ctx context.Context, id lambda.RuntimeID, reference, digest string) error {
	if bootstrap.OSOnly(id) {
		return nil
	}
	path, _, release, err := b.store.Root(ctx, digest)
	if err != nil {
		return err
	}
	defer release()
	root, err := os.OpenRoot(path)
	if err != nil {
		return err
	}
	defer root.Close()
	if _, err := root.Lstat("var/runtime/bootstrap"); err != nil {
		return lambda.InvalidParameter("%s is no base image of a runtime: it has no /var/runtime/bootstrap. To run a function that is an image itself, create it with PackageType Image.", reference)
	}
	return nil
}

// Unpin implements bootstrap.Images.
func (b *baseImages) Unpin(ctx context.Context, digest string) {
	if b.count(digest, -1) == 0 {
		b.unused(ctx, lambda.Code{SHA256: digest, ResolvedImageURI: fmt.Sprintf("sha256:%s", digest)})
	}
}
