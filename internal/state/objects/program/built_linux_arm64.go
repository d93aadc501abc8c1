package program

import "embed"

//go:embed all:built/linux-arm64
var built embed.FS
