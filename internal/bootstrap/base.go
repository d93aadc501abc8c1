package bootstrap

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"kiln/internal/lambda"
	"kiln/internal/state/image"
)

// BaseImage is an image in whose root the functions of a runtime identifier run,
// as AWS publishes one for each: with the language, AWS's own runtime client and
// the SDK. Code and layers are mounted into it.
type BaseImage struct {
	Reference string    `json:"reference"` // as it was given
	Resolved  string    `json:"resolved"`  // with the digest that it led to then
	Digest    string    `json:"digest"`    // that digest, in hexadecimal
	Added     time.Time `json:"added"`
}

// Images brings base images here. Methods are safe for concurrent use.
type Images interface {
	// Pin finds an image, brings it here and keeps it until Unpin. Its error is a
	// *lambda.Failure or a *lambda.Error where the image cannot serve the identifier.
	Pin(ctx context.Context, id lambda.RuntimeID, reference string) (image.Image, error)
	Unpin(ctx context.Context, digest string)
}

const (
	// entrypointScript starts a base image's runtime client; its argument is the handler.
	entrypointScript = "/lambda-entrypoint.sh"
	baseRuntime      = "/var/runtime"
)

// errNoImage says what --image takes, in general words: no registry is assumed.
const errNoImage = "Name the base image by its reference, with the registry's host, as in registry.example.com/lambda/nodejs:22. " +
	"AWS publishes one for each runtime in its public registry, in a repository called lambda/ and the language, tagged with the version."

// addImage pins an identifier to a base image. Any runtime that AWS has, or had, will do.
func (c *Catalog) addImage(ctx context.Context, o Order, say func(string)) error {
	_, known := SupportOf(o.ID)
	s, _, offered := c.shelfOf(o.ID)
	switch {
	case !offered && (!known || OSOnly(o.ID)):
		return unavailable(o.ID, c.config.Now())
	case c.config.Additions == nil || c.config.Images == nil:
		return errors.New("this catalog keeps no images")
	case len(o.Packages) > 0:
		return lambda.InvalidParameter("A base image brings its packages; nothing can be added to it.")
	case strings.TrimSpace(*o.Image) == "":
		return lambda.InvalidParameter("%s", errNoImage)
	}
	release, err := c.exclusively()
	if err != nil {
		return err
	}
	defer release()
	had := c.config.Additions.Get(o.ID)
	say("looking up " + *o.Image + ", copying and unpacking it")
	limited, cancel := context.WithTimeoutCause(ctx, installTimeout, fmt.Errorf("it took longer than %s", installTimeout))
	defer cancel()
	var found image.Image
	err = whileSaying(say, func() (err error) { found, err = c.config.Images.Pin(limited, o.ID, *o.Image); return err })
	var failure *lambda.Failure
	if errors.As(err, &failure) {
		return failure.Refusal()
	}
	if err != nil {
		return err
	}
	b := &BaseImage{Reference: *o.Image, Resolved: found.Resolved, Digest: found.Digest, Added: c.config.Now().UTC().Truncate(time.Second)}
	if err := c.change(ctx, s, o.ID, func(a *Addition) { a.Image = b }); err != nil {
		c.config.Images.Unpin(context.WithoutCancel(ctx), b.Digest)
		return err
	}
	if had.Image != nil {
		c.config.Images.Unpin(context.WithoutCancel(ctx), had.Image.Digest)
	}
	return nil
}

// exclusively lets one change of what was added be under way.
func (c *Catalog) exclusively() (release func(), err error) {
	select {
	case c.adding <- struct{}{}:
		return func() { <-c.adding }, nil
	default:
		return nil, lambda.Conflict("Another runtime is being added. Wait until that is done.")
	}
}

// based is the runtime of an identifier that is pinned to an image, or nil.
func (c *Catalog) based(id lambda.RuntimeID) *Runtime {
	b := c.config.Additions.Get(id).Image
	if b == nil {
		return nil
	}
	r := &Runtime{ID: id, Image: b.Digest}
	if s, _, ok := c.shelfOf(id); ok {
		r.Family = s.Family
	}
	if !OSOnly(id) {
		sum := sha256.Sum256([]byte("kiln base image\n" + string(id) + "\n" + b.Digest))
		r.Label, r.Digest = string(id)+":"+b.Digest[:12], hex.EncodeToString(sum[:])
	}
	return r
}

// OSOnly tells the runtimes whose functions bring their own client.
func OSOnly(id lambda.RuntimeID) bool { return strings.HasPrefix(string(id), "provided") }

// LaunchIn is how the runtime is started in the root of its base image: as AWS
// does it, by the image's entry point, which gets the handler and executes
// /var/runtime/bootstrap. The image's variables are defaults below the function's.
func (r *Runtime) LaunchIn(p image.Process, l Layout, handler string) Launch {
	l.Runtime = baseRuntime
	launch := Launch{Dir: l.Task, Defaults: l.Defaults(nil), Reserved: l.Reserved(map[string]string{"AWS_EXECUTION_ENV": ExecutionEnv(r.ID)})}
	if r.Family != nil && len(r.Family.Programs()) == 0 { // made for such a root
		launch = r.Family.Launch(r.ID, r.Installation, l)
	}
	if !launch.OSOnly {
		launch.Args = slices.Clone(p.EntryPoint)
		if len(launch.Args) == 0 {
			launch.Args = []string{entrypointScript}
		}
		launch.Path, launch.Args = launch.Args[0], append(launch.Args, handler)
		launch.OwnWrapper = true
	}
	maps.Copy(launch.Defaults, p.Variables())
	return launch
}

// String is what `kiln runtime list` shows of it.
func (b *BaseImage) String() string {
	if b.Reference == b.Resolved {
		return b.Resolved
	}
	return fmt.Sprintf("%s (%s)", b.Resolved, b.Reference)
}
