//go:build !(linux && (amd64 || arm64)) && !(darwin && arm64)

package program

import "embed"

var built embed.FS
