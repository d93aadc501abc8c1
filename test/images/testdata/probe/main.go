// Command probe is the runtime client of the images that the tests build. It
// answers an event with what a function sees: {"read": path} with a file's
// content, {"env": name} with a variable, anything else with its arguments,
// working directory, user and handler.
package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// extend is the life of the program as an external extension, /opt/extensions/probe.
func extend() {
	api := "http://" + os.Getenv("AWS_LAMBDA_RUNTIME_API") + "/2020-01-01/extension/"
	q, _ := http.NewRequest(http.MethodPost, api+"register", strings.NewReader(`{"events":["INVOKE"]}`))
	q.Header.Set("Lambda-Extension-Name", filepath.Base(os.Args[0]))
	r, err := http.DefaultClient.Do(q)
	if err != nil {
		os.Exit(5)
	}
	_ = os.WriteFile("/tmp/extension", []byte("registered"), 0o644)
	id := r.Header.Get("Lambda-Extension-Identifier")
	for {
		q, _ := http.NewRequest(http.MethodGet, api+"event/next", nil)
		q.Header.Set("Lambda-Extension-Identifier", id)
		if _, err := http.DefaultClient.Do(q); err != nil {
			os.Exit(6)
		}
	}
}

// frame logs a record as AWS's runtime clients do, so that its lines stay together.
func frame(text string) {
	fd, err := strconv.Atoi(os.Getenv("_LAMBDA_TELEMETRY_LOG_FD"))
	if err != nil {
		fmt.Println("no descriptor for records:", err)
		return
	}
	b := binary.BigEndian.AppendUint32(nil, 0xa55a0003)
	b = binary.BigEndian.AppendUint32(b, uint32(len(text)))
	b = binary.BigEndian.AppendUint64(b, uint64(time.Now().UnixMicro()))
	_, _ = os.NewFile(uintptr(fd), "records").Write(append(b, text...))
}

func main() {
	if strings.HasPrefix(os.Args[0], "/opt/extensions/") {
		extend()
	}
	api := "http://" + os.Getenv("AWS_LAMBDA_RUNTIME_API") + "/2018-06-01/runtime/invocation/"
	fmt.Println("probe began")
	for {
		next, err := http.Get(api + "next")
		if err != nil {
			fmt.Println(err)
			os.Exit(3)
		}
		var event struct{ Read, Env, Write, Log string }
		body, _ := io.ReadAll(next.Body)
		_ = next.Body.Close()
		_ = json.Unmarshal(body, &event)
		var answer any
		switch {
		case event.Read != "":
			b, err := os.ReadFile(event.Read)
			answer = map[string]any{"text": string(b), "error": fmt.Sprint(err)}
		case event.Write != "":
			answer = map[string]any{"error": fmt.Sprint(os.WriteFile(event.Write, []byte("x"), 0o644))}
		case event.Log != "":
			frame(event.Log)
			answer = "logged"
		case event.Env != "":
			answer = os.Getenv(event.Env)
		default:
			dir, _ := os.Getwd()
			answer = map[string]any{"args": os.Args, "dir": dir, "uid": os.Getuid(), "handler": os.Getenv("_HANDLER")}
		}
		b, _ := json.Marshal(answer)
		r, err := http.Post(api+next.Header.Get("Lambda-Runtime-Aws-Request-Id")+"/response", "application/json", bytes.NewReader(b))
		if err != nil {
			fmt.Println(err)
			os.Exit(4)
		}
		_ = r.Body.Close()
	}
}
