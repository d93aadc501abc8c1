package program

import "embed"

//go:embed all:built/darwin-arm64
var built embed.FS
