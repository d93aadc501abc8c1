package kiln

import (
	"bufio"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"
)

// Moto runs moto's server, which has services that others wrote, such as S3 and SQS,
// and returns its URL. Without moto the test is skipped.
func Moto(t testing.TB) string {
	t.Helper()
	program := filepath.Join(Root(), ".cache", "venv", "bin", "python3")
	if exec.Command(program, "-c", "import moto.server").Run() != nil {
		t.Skip("moto is not installed; scripts/test.sh installs it")
	}
	server := exec.Command(program, "-u", "-m", "moto.server", "-H", "127.0.0.1", "-p", "0")
	out, err := server.StderrPipe()
	if err == nil {
		err = Spawn(server)
	}
	if err != nil {
		t.Fatal(err)
	}
	at, ended := make(chan string, 1), make(chan struct{})
	go func() {
		defer close(ended)
		running := regexp.MustCompile(`Running on (http://127\.0\.0\.1:\d+)`)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if m := running.FindStringSubmatch(lines.Text()); m != nil {
				at <- m[1]
			}
		}
	}()
	t.Cleanup(func() {
		_ = server.Process.Kill()
		<-ended
		_ = server.Wait()
	})
	select {
	case url := <-at:
		return url
	case <-ended:
		t.Fatal("moto ended before it served")
	case <-time.After(time.Minute):
		t.Fatal("moto does not serve")
	}
	return ""
}
