// Package program has the small program that is the first process of sandboxes,
// cmd/kiln-sandbox, within the large one. `go generate` builds it; a kiln that was
// built without has none, and is started again for each sandbox itself, which works as well
// and takes ten times as long.
package program

//go:generate env CGO_ENABLED=0 GOOS=linux GOARCH=amd64 go build -trimpath -buildvcs=false "-ldflags=-s -w" -o built/amd64/ kiln/cmd/kiln-sandbox
//go:generate env CGO_ENABLED=0 GOOS=linux GOARCH=arm64 go build -trimpath -buildvcs=false "-ldflags=-s -w" -o built/arm64/ kiln/cmd/kiln-sandbox
