package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"runtime"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"kiln/internal/lambda"
	"kiln/internal/state"
)

const (
	// maxLayers is what Docker's own store takes, and more than AWS's builders make.
	maxLayers = 127
	// maxDocument bounds a manifest and a configuration, in bytes: the registry
	// protocol asks for 4 MiB of a manifest.
	maxDocument = 4 << 20
	// userAgent tells a registry who asks.
	userAgent = "kiln"
	// refNameAnnotation names an image in an OCI layout.
	refNameAnnotation = "org.opencontainers.image.ref.name"
)

// found is an image where its reference leads, before anything was copied.
type found struct {
	digest  v1.Hash
	process Process
	layers  []source
}

// source is one layer to be copied.
type source struct {
	layer
	open func() (io.ReadCloser, error)
}

// find looks an image up, for this machine's architecture.
func (s *Store) find(ctx context.Context, r reference) (found, error) {
	f, err := s.look(ctx, r)
	if err != nil {
		return f, explain(ctx, r.uri, err)
	}
	return f, nil
}

func (s *Store) look(ctx context.Context, r reference) (found, error) {
	if r.remote == nil {
		if err := r.allowed(s.cfg.Folders); err != nil {
			return found{}, err
		}
		if !r.layout {
			return archived(r)
		}
		image, err := inLayout(r)
		if err != nil {
			return found{}, err
		}
		return s.inspect(r, image)
	}
	// Credentials are those that docker login left, helpers included.
	d, err := remote.Get(r.remote, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain),
		remote.WithUserAgent(userAgent), remote.WithPlatform(machine()))
	if err != nil {
		return found{}, err
	}
	if d.MediaType.IsIndex() {
		// Looked for here, because the library does not tell a platform that is
		// missing from an index that cannot be read.
		index, err := d.ImageIndex()
		if err != nil {
			return found{}, err
		}
		if _, err := choose(r, index); err != nil {
			return found{}, err
		}
	}
	image, err := d.Image()
	if err != nil {
		return found{}, err
	}
	return s.inspect(r, image)
}

// machine is the platform that images must be for.
func machine() v1.Platform { return v1.Platform{OS: "linux", Architecture: runtime.GOARCH} }

// choose finds this machine's image in an index.
func choose(r reference, index v1.ImageIndex) (v1.Hash, error) {
	m, err := index.IndexManifest()
	if err != nil {
		return v1.Hash{}, err
	}
	has := ""
	for _, d := range m.Manifests {
		if d.Platform == nil || !d.MediaType.IsImage() {
			continue
		}
		if d.Platform.OS == "linux" && d.Platform.Architecture == runtime.GOARCH {
			return d.Digest, nil
		}
		if d.Platform.OS != "unknown" { // as attestations have it
			has += " " + d.Platform.OS + "/" + d.Platform.Architecture
		}
	}
	return v1.Hash{}, wrongPlatform(r.uri, has)
}

func wrongPlatform(uri, has string) error {
	if has == "" {
		has = " nothing"
	}
	return &lambda.Failure{Code: lambda.InvalidImage, Reason: fmt.Sprintf(
		"Source image %s is built for%s, and this machine needs linux/%s. Build it with: docker build --platform linux/%s",
		uri, has, runtime.GOARCH, runtime.GOARCH)}
}

// inLayout finds an image in an OCI layout: by digest, by tag, or the only one.
func inLayout(r reference) (v1.Image, error) {
	index, err := layout.ImageIndexFromPath(r.path)
	if err != nil {
		return nil, err
	}
	m, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	for depth := 0; ; depth++ {
		var next *v1.Descriptor
		for _, d := range m.Manifests {
			switch {
			case r.digest != (v1.Hash{}) && d.Digest == r.digest,
				r.tag != "" && d.Annotations[refNameAnnotation] == r.tag,
				r.tag == "" && r.digest == (v1.Hash{}) && len(m.Manifests) == 1:
				next = &d
			}
		}
		if depth > 0 && next == nil { // the index that the tag named
			digest, err := choose(r, index)
			if err != nil {
				return nil, err
			}
			return index.Image(digest)
		}
		if next == nil && r.digest != (v1.Hash{}) {
			// A digest that an earlier resolution found within an index.
			return layout.Path(r.path).Image(r.digest)
		}
		if next == nil && r.tag == "" {
			return nil, invalid(r.uri, fmt.Errorf("it holds %d images: name one by its tag, as in %s%s:latest", len(m.Manifests), layoutPrefix, r.path))
		}
		if next == nil || depth > 1 {
			return nil, gone(r.uri)
		}
		if !next.MediaType.IsIndex() {
			return index.Image(next.Digest)
		}
		if index, err = index.ImageIndex(next.Digest); err != nil {
			return nil, err
		}
		if m, err = index.IndexManifest(); err != nil {
			return nil, err
		}
	}
}

// inspect reads an image's manifest and configuration, and refuses what cannot run here.
func (s *Store) inspect(r reference, image v1.Image) (f found, err error) {
	m, err := image.Manifest()
	if err != nil {
		return f, err
	}
	if m.Config.MediaType != types.DockerConfigJSON && m.Config.MediaType != types.OCIConfigJSON {
		return f, unsupported(r.uri, m.Config.MediaType)
	}
	if m.Config.Size > maxDocument {
		return f, invalid(r.uri, fmt.Errorf("its configuration has %d bytes; %d are allowed", m.Config.Size, maxDocument))
	}
	if f.digest, err = image.Digest(); err != nil {
		return f, err
	}
	raw, err := image.RawConfigFile()
	if err != nil {
		return f, err
	}
	config, err := readConfig(r, raw, len(m.Layers))
	if err != nil {
		return f, err
	}
	f.process = processOf(config)
	var packed int64
	for i, d := range m.Layers {
		if !d.MediaType.IsLayer() || !d.MediaType.IsDistributable() {
			return f, unsupported(r.uri, d.MediaType)
		}
		if packed += d.Size; d.Size < 0 || packed > s.cfg.MaxBytes {
			return f, invalid(r.uri, tooLarge(s.cfg.MaxBytes))
		}
		l, err := image.LayerByDigest(d.Digest)
		if err != nil {
			return f, err
		}
		f.layers = append(f.layers, source{layer{Blob: d.Digest.Hex, DiffID: config.RootFS.DiffIDs[i].Hex, Size: d.Size}, l.Compressed})
	}
	return f, nil
}

// archived finds an image in a docker archive. It has no manifest whose digest
// could name it, so its id does.
func archived(r reference) (f found, err error) {
	var tag *name.Tag
	if r.tag != "" {
		t, err := name.NewTag(r.tag)
		if err != nil {
			return f, invalid(r.uri, err)
		}
		tag = &t
	}
	opener := func() (io.ReadCloser, error) { return openRegular(r.path) }
	if tag == nil {
		m, err := tarball.LoadManifest(opener)
		if err != nil {
			return f, invalid(r.uri, err)
		}
		if len(m) != 1 && r.digest == (v1.Hash{}) {
			return f, invalid(r.uri, fmt.Errorf("it holds %d images: name one, as in %s%s:app:latest", len(m), archivePrefix, r.path))
		}
		if tag, err = tagOf(m, r.digest); err != nil {
			return f, invalid(r.uri, err)
		}
	}
	image, err := tarball.Image(opener, tag)
	if err != nil {
		return f, invalid(r.uri, err)
	}
	raw, err := image.RawConfigFile()
	if err != nil {
		return f, err
	}
	if f.digest, err = image.ConfigName(); err != nil {
		return f, err
	}
	if r.digest != (v1.Hash{}) && f.digest != r.digest {
		return f, gone(r.uri)
	}
	config, err := readConfig(r, raw, -1)
	if err != nil {
		return f, err
	}
	f.process = processOf(config)
	for _, id := range config.RootFS.DiffIDs {
		l, err := image.LayerByDiffID(id)
		if err != nil {
			return f, invalid(r.uri, err)
		}
		f.layers = append(f.layers, source{layer{Blob: id.Hex, DiffID: id.Hex, Size: -1}, l.Uncompressed})
	}
	return f, nil
}

// tagOf finds the tag of the image with that id, where an archive has several.
func tagOf(m tarball.Manifest, id v1.Hash) (*name.Tag, error) {
	if len(m) == 1 {
		return nil, nil
	}
	for _, d := range m {
		if len(d.RepoTags) > 0 && strings.Contains(d.Config, id.Hex) {
			t, err := name.NewTag(d.RepoTags[0])
			return &t, err
		}
	}
	return nil, fmt.Errorf("it holds no image with the id %s any more", id)
}

func readConfig(r reference, raw []byte, layers int) (c v1.ConfigFile, err error) {
	if len(raw) > maxDocument {
		return c, invalid(r.uri, fmt.Errorf("its configuration has %d bytes; %d are allowed", len(raw), maxDocument))
	}
	if err := json.Unmarshal(raw, &c); err != nil {
		return c, invalid(r.uri, err)
	}
	if c.OS != "linux" || c.Architecture != runtime.GOARCH {
		return c, wrongPlatform(r.uri, " "+c.OS+"/"+c.Architecture)
	}
	if n := len(c.RootFS.DiffIDs); n == 0 || n > maxLayers || layers >= 0 && layers != n {
		return c, invalid(r.uri, fmt.Errorf("its configuration has %d layers, its manifest %d; 1 to %d are allowed", n, layers, maxLayers))
	}
	for _, id := range c.RootFS.DiffIDs {
		if id.Algorithm != "sha256" {
			return c, invalid(r.uri, fmt.Errorf("its digests are %s; only sha256 is supported", id.Algorithm))
		}
	}
	return c, nil
}

func processOf(c v1.ConfigFile) Process {
	return Process{EntryPoint: c.Config.Entrypoint, Command: c.Config.Cmd, Env: c.Config.Env, WorkingDirectory: c.Config.WorkingDir}
}

func unsupported(uri string, media types.MediaType) error {
	return &lambda.Failure{Code: lambda.InvalidImage, Reason: fmt.Sprintf("The image manifest, config or layer media type for the source image %s is not supported. (%s)", uri, media)}
}

// explain makes an error the failure that a user is told of, unless it is the
// caller's leaving or the disk's.
func explain(ctx context.Context, uri string, err error) error {
	var failure *lambda.Failure
	var answer *transport.Error
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &failure) || errors.Is(err, state.ErrFull):
		return err
	case blamed(err) != nil:
		return invalid(uri, blamed(err))
	case errors.As(err, &answer):
		switch answer.StatusCode {
		case http.StatusNotFound:
			return gone(uri)
		case http.StatusUnauthorized, http.StatusForbidden:
			return &lambda.Failure{Code: lambda.ImageAccessDenied, Reason: fmt.Sprintf(
				"Lambda does not have permission to access the ECR image. Check the ECR permissions. (%s: Kiln uses the credentials that docker login left for the user it runs as; the registry answered %d)", uri, answer.StatusCode)}
		}
	case errors.Is(err, fs.ErrNotExist):
		return gone(uri)
	}
	return &lambda.Failure{Code: lambda.InternalError, Reason: fmt.Sprintf("Source image %s could not be fetched: %v", uri, err)}
}
