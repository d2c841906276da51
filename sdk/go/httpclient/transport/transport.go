// Package transport lets a [net/http.Client] send through the host:
//
//	client := &http.Client{Transport: transport.Transport{}}
//
// It stands apart because net/http makes a component longer by some megabytes.
package transport

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"phasor"
	"phasor/httpclient"
)

// A body that is known to be no longer goes with the request's head, in one call of the host.
const whole = 64 << 10

// A Transport is a [net/http.RoundTripper].
type Transport struct{}

// RoundTrip sends one request; its context ends it, and the body of its answer. A long body, and one
// of unknown length, is sent as it is read.
func (Transport) RoundTrip(request *http.Request) (*http.Response, error) {
	answer, err := send(request)
	if request.Body != nil {
		_ = request.Body.Close()
	}
	if err != nil {
		return nil, err
	}
	header := make(http.Header, len(answer.Headers))
	for _, one := range answer.Headers {
		header.Add(one.Name, one.Value)
	}
	return &http.Response{
		Status:        fmt.Sprintf("%d %s", answer.Status, http.StatusText(answer.Status)),
		StatusCode:    answer.Status,
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
		Header:        header,
		Body:          answer,
		ContentLength: length(header),
		Request:       request,
	}, nil
}

func send(request *http.Request) (*httpclient.Streaming, error) {
	outgoing := &httpclient.Request{Method: request.Method, URL: request.URL.String()}
	if outgoing.Method == "" {
		outgoing.Method = http.MethodGet
	}
	for name, values := range request.Header {
		for _, value := range values {
			outgoing.Headers = append(outgoing.Headers, phasor.Header{Name: name, Value: value})
		}
	}
	switch {
	case request.Body == nil || request.Body == http.NoBody:
		return outgoing.Open(request.Context())
	case request.ContentLength > 0 && request.ContentLength <= whole:
		body, err := io.ReadAll(request.Body)
		if err != nil {
			return nil, err
		}
		outgoing.Body = body
		return outgoing.Open(request.Context())
	}
	if request.ContentLength > 0 {
		length := strconv.FormatInt(request.ContentLength, 10)
		outgoing.Headers = append(outgoing.Headers, phasor.Header{Name: "Content-Length", Value: length})
	}
	upload, err := outgoing.Upload(request.Context())
	if err != nil {
		return nil, err
	}
	defer upload.Close()
	// A server that has heard enough has an answer.
	if _, err := io.Copy(upload, request.Body); err != nil && !errors.Is(err, httpclient.ErrUnwanted) {
		return nil, err
	}
	return upload.Finish()
}

// The length that the server says; -1 when it says none.
func length(header http.Header) int64 {
	length, err := strconv.ParseInt(header.Get("Content-Length"), 10, 64)
	if err != nil || length < 0 {
		return -1
	}
	return length
}
