package kiln

import "kiln/internal/environment/environmenttest"

// Bash is a package for the provided runtimes whose bootstrap is a bash script:
// small, started in milliseconds, in need of nothing but bash. answer is run for
// each event, which is in $event, its request id in $id, and sets $answer. What
// it prints is the function's log.
func Bash(answer string) []byte {
	return Zip(map[string]string{"bootstrap!": Bootstrap(answer)})
}

// Bootstrap is the script of Bash.
func Bootstrap(answer string) string { return environmenttest.Bootstrap("", answer) }
