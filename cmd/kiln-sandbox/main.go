// Command kiln-sandbox is the first process of sandboxes, of a tenth of the start and a fifth of the
// memory of kiln, which starts itself as that where it has none (docs/decisions/0028).
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
		case "check": // that it can be executed here is all
			return
		}
	}
	fmt.Fprintln(os.Stderr, "kiln-sandbox is the first process of a Kiln sandbox; it is not for people to start")
	os.Exit(2)
}
