// A Go client for the opinion tier: client PORT CASE. Prints nothing; fails if an answer is wrong.
package main

import (
	"bytes"
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

var base string

func ask(client *http.Client, method, path string, body io.Reader, headers ...string) {
	request, err := http.NewRequest(method, base+path, body)
	if err != nil {
		log.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := client.Do(request)
	if err != nil {
		log.Fatal(err)
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		log.Fatal(err)
	}
}

// chunked hides the length of a reader, so that the body is sent chunked.
type chunked struct{ io.Reader }

func mixed(client *http.Client) {
	ask(client, "GET", "/size/100", nil)
	ask(client, "GET", "/chunked/5/3000", nil)
	ask(client, "HEAD", "/size/100000", nil)
	ask(client, "POST", "/echo", strings.NewReader(strings.Repeat("p", 70000)))
	ask(client, "PUT", "/echo", chunked{strings.NewReader(strings.Repeat("c", 40000))})
	ask(client, "PUT", "/echo", strings.NewReader("waited for"), "Expect", "100-continue")
	ask(client, "DELETE", "/status/204", nil)
	ask(client, "GET", "/file/10000", nil, "Range", "bytes=100-199")
	ask(client, "GET", "/file/10000", nil, "Range", "bytes=0-9,100-199,-5")
	ask(client, "GET", "/file/10000", nil, "If-Modified-Since", "Wed, 15 Nov 2023 00:00:00 GMT")
	ask(client, "GET", "/redirect", nil)
	ask(client, "GET", "/trailers/5000", nil)
	ask(client, "GET", "/early", nil)
	ask(client, "GET", "/status/503", nil)
	ask(client, "QUERY", "/echo", strings.NewReader("select"))
}

func impatient(client *http.Client) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, "GET", base+"/slow/1000/10", nil)
	if err != nil {
		log.Fatal(err)
	}
	if response, err := client.Do(request); err == nil {
		_, _ = io.Copy(io.Discard, response.Body)
		response.Body.Close()
	}
	ask(client, "GET", "/size/5", nil)
}

func parallel(client *http.Client) {
	var all sync.WaitGroup
	for i := 0; i < 6; i++ {
		all.Add(1)
		go func() {
			defer all.Done()
			for j := 0; j < 10; j++ {
				ask(client, "GET", "/size/2000", nil)
				ask(client, "POST", "/echo", bytes.NewReader(make([]byte, 500)))
			}
		}()
	}
	all.Wait()
}

func main() {
	base = "http://" + net.JoinHostPort("127.0.0.1", os.Args[1])
	client := &http.Client{Transport: &http.Transport{
		DisableCompression: true, MaxIdleConnsPerHost: 4, ExpectContinueTimeout: 5 * time.Second,
	}}
	cases := map[string]func(*http.Client){"mixed": mixed, "impatient": impatient, "parallel": parallel}
	cases[os.Args[2]](client)
	client.CloseIdleConnections()
}
