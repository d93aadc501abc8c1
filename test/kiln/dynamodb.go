package kiln

import (
	"net"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// DynamoDB runs AWS's DynamoDB Local, which keeps everything in memory, and returns its
// URL: of tables, and of their streams. It takes a JVM, so a package starts one at most.
// Without a JDK or DynamoDB Local the test is skipped.
func DynamoDB(t testing.TB) string {
	t.Helper()
	found, _ := filepath.Glob(filepath.Join(Root(), ".cache", "dynamodb", "*", "DynamoDBLocal-*.jar"))
	if len(found) == 0 {
		t.Skip("DynamoDB Local is not installed; scripts/test.sh installs it")
	}
	if _, err := exec.LookPath("java"); err != nil {
		t.Skip("there is no Java to run DynamoDB Local with")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") // it takes no port but one that is told
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	_, port, _ := net.SplitHostPort(address)
	server := exec.Command("java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m", "-cp", filepath.Join(filepath.Dir(found[0]), "*"),
		"com.amazonaws.services.dynamodbv2.local.main.ServerRunner", "-inMemory", "-disableTelemetry", "-port", port)
	out := &Buffer{}
	server.Stdout, server.Stderr = out, out
	if err := Spawn(server); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Wait()
	}()
	t.Cleanup(func() {
		_ = server.Process.Kill()
		<-ended
	})
	for end := time.Now().Add(time.Minute); ; {
		c, err := net.Dial("tcp", address)
		if err == nil {
			_ = c.Close()
			return "http://" + address
		}
		select {
		case <-ended:
			t.Fatalf("DynamoDB Local ended before it served:\n%s", out)
		case <-time.After(50 * time.Millisecond):
			if time.Now().After(end) {
				t.Fatalf("DynamoDB Local does not serve: %v\n%s", err, out)
			}
		}
	}
}
