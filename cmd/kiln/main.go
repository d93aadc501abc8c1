// Command kiln runs AWS Lambda functions on this machine. See README.md.
package main

import (
	"os"

	"kiln/internal/cli"
	"kiln/internal/sandbox/linux"
)

func main() {
	// The daemon starts this program again as the first process of each sandbox.
	if len(os.Args) > 1 && os.Args[1] == linux.InitArg {
		os.Exit(linux.Init())
	}
	os.Exit(cli.Run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Getenv))
}
