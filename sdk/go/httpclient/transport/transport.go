// Package transport lets a [net/http.Client] send through the host:
//
//	client := &http.Client{Transport: transport.Transport{}}
//
// It stands apart because net/http makes a component longer by some megabytes.
package transport

import (
	"fmt"
	"io"
	"net/http"

	"phasor"
	"phasor/httpclient"
)

// A Transport is a [net/http.RoundTripper].
type Transport struct{}

// RoundTrip sends one request; its context ends it. The request's body is read whole first.
func (Transport) RoundTrip(request *http.Request) (*http.Response, error) {
	outgoing := &httpclient.Request{Method: request.Method, URL: request.URL.String()}
	if outgoing.Method == "" {
		outgoing.Method = http.MethodGet
	}
	for name, values := range request.Header {
		for _, value := range values {
			outgoing.Headers = append(outgoing.Headers, phasor.Header{Name: name, Value: value})
		}
	}
	if request.Body != nil {
		body, err := io.ReadAll(request.Body)
		_ = request.Body.Close()
		if err != nil {
			return nil, err
		}
		outgoing.Body = body
	}
	answer, err := outgoing.Open(request.Context())
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
		ContentLength: -1,
		Request:       request,
	}, nil
}
