// Package images tests functions made from container images, and base images as
// managed runtimes, with images that the tests build and registries of their own.
package images
