// Command kiln-objects is the process that serves the buckets of one account in a region.
// The daemon starts it, and has it in it: internal/state/objects/program.
package main

import (
	"os"

	"kiln/internal/state/objects/inside"
)

func main() { os.Exit(inside.Serve(os.Args[1:])) }
