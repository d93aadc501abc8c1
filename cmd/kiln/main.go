// Command kiln runs AWS Lambda functions on this machine. See README.md.
package main

import (
	"os"

	"kiln/internal/cli"
	"kiln/internal/sandbox/gvisor"
	"kiln/internal/sandbox/linux"
)

func main() {
	// The daemon starts this program again as the first process of each sandbox.
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case linux.InitArg:
			os.Exit(linux.Init())
		case gvisor.OuterArg, gvisor.InnerArg:
			os.Exit(gvisor.Init())
		}
	}
	os.Exit(cli.Run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Getenv))
}
