package image

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"kiln/internal/lambda"
)

// The forms of references besides that of a registry.
const (
	layoutPrefix  = "oci:"
	archivePrefix = "docker-archive:"
)

// reference is what an ImageUri says, in one of three forms:
//
//	registry/repository[:tag][@digest]
//	oci:/folder[:tag][@digest]                  an OCI layout
//	docker-archive:/file[:repository:tag][@digest]   what docker save writes
type reference struct {
	uri    string
	remote name.Reference // of a registry; else nil
	path   string         // of a layout or an archive, absolute
	layout bool
	tag    string  // in a layout or an archive, or ""
	digest v1.Hash // zero when none was given; of a docker archive it is the image's id
}

// parse reads an ImageUri. The name of a registry is never assumed.
func parse(uri string) (r reference, err error) {
	r.uri = uri
	local, isLayout := strings.CutPrefix(uri, layoutPrefix)
	if !isLayout {
		var isArchive bool
		if local, isArchive = strings.CutPrefix(uri, archivePrefix); !isArchive {
			return parseRemote(r)
		}
	}
	r.layout = isLayout
	local, digest, hasDigest := strings.Cut(local, "@")
	if hasDigest {
		if r.digest, err = v1.NewHash(digest); err != nil {
			return r, invalid(uri, err)
		}
	}
	r.path, r.tag, _ = strings.Cut(local, ":")
	if !filepath.IsAbs(r.path) {
		return r, invalid(uri, errors.New("the path must be absolute, such as "+layoutPrefix+"/images/app:latest"))
	}
	r.path = filepath.Clean(r.path)
	return r, nil
}

func parseRemote(r reference) (reference, error) {
	registry, _, found := strings.Cut(r.uri, "/")
	if !found || !strings.ContainsAny(registry, ".:") && registry != "localhost" {
		return r, invalid(r.uri, errors.New("it must begin with the registry's host, as in registry.example.com/app:latest"))
	}
	var err error
	if r.remote, err = name.ParseReference(r.uri); err != nil {
		return r, invalid(r.uri, err)
	}
	if d, ok := r.remote.(name.Digest); ok {
		if r.digest, err = v1.NewHash(d.DigestStr()); err != nil {
			return r, invalid(r.uri, err)
		}
	}
	return r, nil
}

func invalid(uri string, why error) error {
	return &lambda.Failure{Code: lambda.InvalidImage, Reason: fmt.Sprintf("Source image %s is not valid. Provide a valid source image. (%v)", uri, why)}
}

// at is the reference to one image by its digest, which no push can change.
func (r reference) at(digest v1.Hash) string {
	switch {
	case r.remote != nil:
		return r.remote.Context().Name() + "@" + digest.String()
	case r.layout:
		return layoutPrefix + r.path + "@" + digest.String()
	}
	return archivePrefix + r.path + "@" + digest.String()
}

// allowed checks that a layout or archive lies in one of the folders that images
// may come from: a reference is a caller's, the disk is the operator's.
func (r reference) allowed(folders []string) error {
	if len(folders) == 0 {
		return invalid(r.uri, errors.New("images from this machine's disk are allowed only below the folders in image_folders of kiln.toml, and there are none"))
	}
	path, err := filepath.EvalSymlinks(r.path)
	for _, f := range folders {
		folder, ferr := filepath.EvalSymlinks(f)
		if ferr != nil {
			continue
		}
		// What is missing is told only of places where it may be looked for.
		if err != nil && within(r.path, f) {
			return gone(r.uri)
		}
		if err == nil && within(path, folder) {
			info, err := os.Stat(path)
			if err == nil && info.IsDir() != r.layout {
				return invalid(r.uri, errors.New(map[bool]string{true: "an OCI layout is a folder", false: "a docker archive is a file"}[r.layout]))
			}
			if err == nil && !info.IsDir() && !info.Mode().IsRegular() {
				return invalid(r.uri, errors.New("it is no regular file"))
			}
			return err
		}
	}
	return invalid(r.uri, errors.New("it lies in none of the folders in image_folders of kiln.toml"))
}

func within(path, folder string) bool {
	rel, err := filepath.Rel(folder, path)
	return err == nil && filepath.IsLocal(rel)
}

func gone(uri string) error {
	return &lambda.Failure{Code: lambda.ImageDeleted, Reason: fmt.Sprintf("Source image %s does not exist. Provide a valid source image.", uri)}
}
