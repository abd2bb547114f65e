// A Go server for the opinion tier: server PORT. The targets are those of tests/servers/README.md.
package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

func text(size int) []byte {
	return bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
}

func answer(w http.ResponseWriter, r *http.Request) {
	parts := append(strings.Split(strings.Trim(r.URL.Path, "/"), "/"), "0", "0")
	first, _ := strconv.Atoi(parts[1])
	second, _ := strconv.Atoi(parts[2])
	flush := w.(http.Flusher).Flush
	switch parts[0] {
	case "size":
		w.Header().Set("Content-Length", strconv.Itoa(first))
		_, _ = w.Write(text(first))
	case "chunked":
		for i := 0; i < first; i++ {
			_, _ = w.Write(text(second))
			flush()
		}
	case "status":
		w.WriteHeader(first)
	case "file":
		http.ServeContent(w, r, "file.bin", time.Unix(1_700_000_000, 0), bytes.NewReader(text(first)))
	case "slow":
		w.Header().Set("Content-Length", strconv.Itoa(first))
		for i := 0; i < first; i++ {
			_, _ = w.Write([]byte("x"))
			flush()
			time.Sleep(time.Duration(second) * time.Millisecond)
		}
	case "trailers":
		w.Header().Set("Trailer", "X-Sum")
		_, _ = w.Write(text(first))
		w.Header().Set("X-Sum", "1234")
	case "early":
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusOK)
		_, _ = w.Write([]byte("after the hints"))
	case "redirect":
		http.Redirect(w, r, "/size/10", http.StatusFound)
	case "cut":
		w.Header().Set("Content-Length", strconv.Itoa(first*2))
		_, _ = w.Write(text(first))
		flush()
		panic(http.ErrAbortHandler)
	case "refuse":
		w.Header().Set("Connection", "close")
		http.Error(w, "too much", http.StatusRequestEntityTooLarge)
	case "echo":
		body, _ := io.ReadAll(r.Body)
		_, _ = w.Write(body)
	default:
		http.NotFound(w, r)
	}
}

func main() {
	server := &http.Server{Addr: "127.0.0.1:" + os.Args[1], Handler: http.HandlerFunc(answer)}
	fmt.Fprintln(os.Stderr, server.ListenAndServe())
}
