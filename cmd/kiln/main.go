// Command kiln runs AWS Lambda functions on this machine. See README.md.
package main

import (
	"os"

	"kiln/internal/cli"
	gvisor "kiln/internal/sandbox/gvisor/inside"
	linux "kiln/internal/sandbox/linux/inside"
)

func main() {
	// Without kiln-sandbox the daemon starts this program again as the first process of each sandbox.
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case linux.Arg:
			os.Exit(linux.Init())
		case gvisor.OuterArg, gvisor.InnerArg:
			os.Exit(gvisor.Init())
		}
	}
	os.Exit(cli.Run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Getenv))
}
