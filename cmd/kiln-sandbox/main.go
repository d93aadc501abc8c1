// Command kiln-sandbox is the first process of each sandbox. It is in the program kiln, which
// could be it itself, but takes ten times as long to start and several times the memory.
package main

import (
	"fmt"
	"os"

	gvisor "kiln/internal/sandbox/gvisor/inside"
	linux "kiln/internal/sandbox/linux/inside"
)

func main() {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case linux.Arg:
			os.Exit(linux.Init())
		case gvisor.OuterArg, gvisor.InnerArg:
			os.Exit(gvisor.Init())
		}
	}
	fmt.Fprintln(os.Stderr, "kiln-sandbox is the first process of a Kiln sandbox; it is not for people to start")
	os.Exit(2)
}
