// Command server is the bare HTTP server in Go that benchmarks compare with, and
// with an address as its argument a bare reverse proxy in front of another server.
// It prints its address and echoes request bodies.
package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
)

func main() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	handler := http.Handler(http.HandlerFunc(echo))
	if len(os.Args) > 1 {
		to, err := url.Parse(os.Args[1])
		if err != nil {
			log.Fatal(err)
		}
		proxy := httputil.NewSingleHostReverseProxy(to)
		proxy.Transport = &http.Transport{MaxIdleConnsPerHost: 64}
		handler = proxy
	}
	fmt.Println("http://" + l.Addr().String())
	log.Fatal(http.Serve(l, handler))
}

func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body) // the client counts what it gets
}
