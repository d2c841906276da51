// Go's own HTTP client through the host: net/http with the SDK's transport. The path says what, the
// header X-Origin where.
package main

import (
	"bytes"
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"phasor"
	"phasor/httpclient"
	"phasor/httpclient/transport"
)

var client = &http.Client{Transport: transport.Transport{}}

func init() {
	phasor.Content(func(r *phasor.Request) error {
		text, err := ask(r.Context(), r.Path(), r.Header("X-Origin"))
		if err != nil {
			text = describe(err)
		}
		return r.Text(text + "\n")
	})
}

func main() {}

// What a program finds out about an error.
func describe(err error) string {
	var failure *httpclient.Error
	if errors.As(err, &failure) {
		kinds := map[httpclient.Kind]string{
			httpclient.Timeout: "timeout", httpclient.Refused: "refused", httpclient.Invalid: "invalid",
			httpclient.Connect: "connect", httpclient.Protocol: "protocol", httpclient.TooLarge: "too large",
		}
		return "error: " + kinds[failure.Kind]
	}
	var timeout net.Error
	switch {
	case errors.Is(err, context.Canceled):
		return "error: canceled"
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprint("error: deadline, timeout: ", errors.As(err, &timeout) && timeout.Timeout())
	default:
		return fmt.Sprint("error: ", err)
	}
}

func ask(ctx context.Context, path, origin string) (string, error) {
	switch path {
	case "/redirect":
		return get(ctx, origin+"/moved")
	case "/post":
		return post(ctx, origin, strings.NewReader("short"))
	case "/long":
		return post(ctx, origin, bytes.NewReader(long))
	case "/endless":
		reader, writer := io.Pipe()
		go func() {
			for part := range bytes.SplitAfterSeq(long, []byte("9")) {
				_, _ = writer.Write(part)
			}
			_ = writer.Close()
		}()
		return post(ctx, origin, reader)
	case "/unwanted":
		return post(ctx, origin+"/small", io.LimitReader(zeros{}, 1<<30))
	case "/fails":
		return post(ctx, origin, io.MultiReader(strings.NewReader("a piece"), broken{}))
	case "/pieces":
		return pieces(ctx, origin)
	case "/ten":
		return ten(ctx, origin)
	case "/deadline":
		hasty := &http.Client{Transport: transport.Transport{}, Timeout: 50 * time.Millisecond}
		_, err := hasty.Get(origin + "/never")
		return "", err
	case "/cancel":
		return cancel(ctx, origin+"/forever")
	case "/example":
		return get(ctx, "http://example.com/")
	default:
		return get(ctx, origin+path)
	}
}

func get(ctx context.Context, url string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		return "", err
	}
	request.Header.Set("X-Mine", "1")
	return whole(client.Do(request))
}

// Status, headers, length and body of an answer.
func whole(answer *http.Response, err error) (string, error) {
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return "", err
	}
	return fmt.Sprint(answer.Status, " ", answer.Header["X-Two"], " ", answer.ContentLength, " ", string(body)), nil
}

// More than goes in one piece.
var long = bytes.Repeat([]byte("0123456789"), 40_000)

type zeros struct{}

func (zeros) Read(into []byte) (int, error) {
	clear(into)
	return len(into), nil
}

type broken struct{}

func (broken) Read([]byte) (int, error) {
	return 0, errors.New("the source of the body is broken")
}

func post(ctx context.Context, url string, body io.Reader) (string, error) {
	request, err := http.NewRequestWithContext(ctx, "POST", url+"/upload", body)
	if err != nil {
		return "", err
	}
	text, err := whole(client.Do(request))
	sum := fmt.Sprintf("%x", md5.Sum(long))
	return strings.ReplaceAll(text, sum, "the same"), err
}

// The second piece comes only when the first one has been read.
func pieces(ctx context.Context, origin string) (string, error) {
	answer, err := client.Get(origin + "/pieces")
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	first := make([]byte, 6)
	if _, err := io.ReadFull(answer.Body, first); err != nil {
		return "", err
	}
	if _, err := get(ctx, origin+"/go-on"); err != nil {
		return "", err
	}
	rest, err := io.ReadAll(answer.Body)
	return fmt.Sprintf("%q then %q", first, rest), err
}

// Ten at the same time: the origin answers none of them before it has all.
func ten(ctx context.Context, origin string) (string, error) {
	var group sync.WaitGroup
	answers := make([]string, 10)
	errs := make([]error, 10)
	for place := range answers {
		group.Go(func() { answers[place], errs[place] = get(ctx, origin+"/all-ten") })
	}
	group.Wait()
	return fmt.Sprint(strings.Count(strings.Join(answers, ""), "x")), errors.Join(errs...)
}

// A context ends an answer that never ends, while its body is read.
func cancel(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		return "", err
	}
	answer, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	go func() {
		_ = phasor.Sleep(ctx, 20*time.Millisecond)
		cancel()
	}()
	_, err = io.Copy(io.Discard, answer.Body)
	return "", err
}
