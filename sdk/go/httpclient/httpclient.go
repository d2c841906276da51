// Package httpclient calls HTTP services: HTTP/1.1, and HTTP/2 where a server offers it over TLS.
// Connections are kept per worker. It needs `allow.http`. The package transport beside it serves
// programs that want a [net/http.Client].
package httpclient

import (
	"context"
	"fmt"
	"io"
	"time"

	"phasor"
	"phasor/internal/wait"
	host "phasor/internal/wit/phasor_plugin_http_client"
	operation "phasor/internal/wit/phasor_plugin_operation"
	witTypes "phasor/internal/wit/types"
)

// A Kind tells errors apart.
type Kind uint8

// Why there is no answer.
const (
	// Timeout: it took too long.
	Timeout = Kind(host.ClientErrorTimeout)
	// Refused: `allow.http` does not name the origin.
	Refused = Kind(host.ClientErrorRefused)
	// Invalid: not a URL, a method, a header.
	Invalid = Kind(host.ClientErrorInvalid)
	// Connect: the server cannot be reached, or is not whom it should be.
	Connect = Kind(host.ClientErrorConnect)
	// Protocol: what came is not HTTP, or the connection broke.
	Protocol = Kind(host.ClientErrorProtocol)
	// TooLarge: the answer's body is longer than the limit.
	TooLarge = Kind(host.ClientErrorTooLarge)
)

// An Error says why there is no answer. Take it out of an error with [errors.As].
type Error struct {
	Kind Kind
	// Text is more about it; may be empty.
	Text string
}

func (e *Error) Error() string {
	name := [...]string{"timeout", "refused", "invalid", "connect", "protocol", "too large"}[e.Kind]
	if e.Text == "" {
		return "http: " + name
	}
	return "http: " + name + ": " + e.Text
}

// Timeout tells whether it took too long: so a [net/url.Error] around it knows.
func (e *Error) Timeout() bool {
	return e.Kind == Timeout
}

func lift(e host.ClientError) error {
	kind, text := Kind(e.Tag()), ""
	switch kind {
	case Refused:
		text = e.Refused()
	case Invalid:
		text = e.Invalid()
	case Connect:
		text = e.Connect()
	case Protocol:
		text = e.Protocol()
	case TooLarge:
		text = fmt.Sprintf("more than %d bytes", e.TooLarge())
	}
	return &Error{kind, text}
}

// A Request is what is sent.
type Request struct {
	// Method is GET, POST, …
	Method string
	// URL is http:// or https://, host, path and query.
	URL string
	// Headers: what belongs to a connection is taken out; Host and Content-Length are made.
	Headers []phasor.Header
	// Body may be empty.
	Body []byte
	// Timeout holds for all of it; none is 60 seconds.
	Timeout time.Duration
	// Limit is the longest body of the answer that is taken whole; none is 16 MiB.
	Limit uint64
}

// Get is a request without a body.
func Get(url string) *Request {
	return &Request{Method: "GET", URL: url}
}

// Post is a request with one.
func Post(url string, body []byte) *Request {
	return &Request{Method: "POST", URL: url, Body: body}
}

func (r *Request) lower() host.Outgoing {
	headers := make([]host.Header, len(r.Headers))
	for place, header := range r.Headers {
		headers[place] = host.Header{F0: header.Name, F1: []byte(header.Value)}
	}
	return host.Outgoing{
		Method:  r.Method,
		Url:     r.URL,
		Headers: headers,
		Body:    r.Body,
		Timeout: wait.Milliseconds(r.Timeout),
		Limit:   r.Limit,
	}
}

// An Answer has its whole body. Redirects are answers like others.
type Answer struct {
	Status  int
	Headers []phasor.Header
	Body    []byte
}

func headers(list []host.Header) []phasor.Header {
	headers := make([]phasor.Header, len(list))
	for place, header := range list {
		headers[place] = phasor.Header{Name: header.F0, Value: string(header.F1)}
	}
	return headers
}

// Send sends it and waits for the whole answer.
func (r *Request) Send(ctx context.Context) (*Answer, error) {
	outgoing := r.lower()
	result, err := wait.Call(ctx,
		func() witTypes.Result[host.Incoming, host.ClientError] { return host.Fetch(outgoing) },
		func() *operation.Operation { return host.BeginFetch(outgoing) },
		host.EndFetch,
	)
	if err != nil {
		return nil, err
	}
	if result.IsErr() {
		return nil, lift(result.Err())
	}
	answer := result.Ok()
	return &Answer{int(answer.Status), headers(answer.Headers), answer.Body}, nil
}

// A Streaming answer's body is still coming. Close it.
type Streaming struct {
	Status  int
	Headers []phasor.Header
	ctx     context.Context
	body    *host.Body
	left    []byte
	err     error
}

// Open sends it and waits for the answer's head. The context holds for the body, too.
func (r *Request) Open(ctx context.Context) (*Streaming, error) {
	outgoing := r.lower()
	result, err := wait.Call(ctx,
		func() opened { return host.Open(outgoing) },
		func() *operation.Operation { return host.BeginOpen(outgoing) },
		host.EndOpen,
	)
	return streaming(ctx, result, err)
}

type opened = witTypes.Result[host.Streaming, host.ClientError]

func streaming(ctx context.Context, result opened, err error) (*Streaming, error) {
	if err != nil {
		return nil, err
	}
	if result.IsErr() {
		return nil, lift(result.Err())
	}
	answer := result.Ok()
	return &Streaming{
		Status:  int(answer.Status),
		Headers: headers(answer.Headers),
		ctx:     ctx,
		body:    answer.Body,
	}, nil
}

// Read reads the body as it comes.
func (s *Streaming) Read(into []byte) (int, error) {
	for len(s.left) == 0 {
		if s.err != nil {
			return 0, s.err
		}
		s.left, s.err = s.piece()
	}
	count := copy(into, s.left)
	s.left = s.left[count:]
	return count, nil
}

type piece = witTypes.Result[witTypes.Option[[]byte], host.ClientError]

func (s *Streaming) piece() ([]byte, error) {
	result, err := wait.Call(s.ctx,
		func() piece { return s.body.Read(0) },
		func() *operation.Operation { return s.body.BeginRead(0) },
		host.BodyEndRead,
	)
	switch {
	case err != nil:
		return nil, err
	case result.IsErr():
		return nil, lift(result.Err())
	case result.Ok().IsNone():
		return nil, io.EOF
	default:
		return result.Ok().Some(), nil
	}
}

// Close ends the request.
func (s *Streaming) Close() error {
	s.body.Drop()
	if s.err == nil {
		s.err = io.ErrClosedPipe
	}
	s.left = nil
	return nil
}
