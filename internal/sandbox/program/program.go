// Package program has a small program that can be the first process of sandboxes,
// cmd/kiln-sandbox, embedded. `go generate` builds it; what was built without has none, and
// starts itself in its place. The daemon gives it to the drivers (docs/decisions/0028).
package program

//go:generate env CGO_ENABLED=0 GOOS=linux GOARCH=amd64 go build -trimpath -buildvcs=false "-ldflags=-s -w" -o built/amd64/ kiln/cmd/kiln-sandbox
//go:generate env CGO_ENABLED=0 GOOS=linux GOARCH=arm64 go build -trimpath -buildvcs=false "-ldflags=-s -w" -o built/arm64/ kiln/cmd/kiln-sandbox
