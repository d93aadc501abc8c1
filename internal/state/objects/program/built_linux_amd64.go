package program

import "embed"

//go:embed all:built/linux-amd64
var built embed.FS
