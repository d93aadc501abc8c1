#!/bin/sh
# Builds kiln-objects for $GOOS and $GOARCH, and compresses it: three quarters less.
set -eu
program=../../../../bin/kiln-objects-$GOOS-$GOARCH
packed=built/$GOOS-$GOARCH/kiln-objects.gz
CGO_ENABLED=0 go build -trimpath -buildvcs=false '-ldflags=-s -w' -o "$program" kiln/cmd/kiln-objects
[ "$packed" -nt "$program" ] || gzip -9nc "$program" >"$packed"
