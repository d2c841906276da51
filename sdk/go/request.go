package phasor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"runtime"
	"strings"

	"phasor/internal/wait"
	operation "phasor/internal/wit/phasor_plugin_operation"
	host "phasor/internal/wit/phasor_plugin_request"
	witTypes "phasor/internal/wit/types"
)

// A Request is the request that a handler serves, and its answer in progress. It holds until the
// handler returns: a goroutine that uses it later ends there.
type Request struct {
	ended    bool
	answered bool
	ctx      context.Context
	cancel   context.CancelFunc
}

func (r *Request) end() {
	r.ended = true
	if r.cancel != nil {
		r.cancel()
	}
}

// The host knows one current request. What is left of an earlier one must not touch it.
func (r *Request) live() {
	if r.ended {
		runtime.Goexit()
	}
}

// Context ends when the handler returns. A client that leaves ends the whole handler.
func (r *Request) Context() context.Context {
	if r.ctx == nil {
		r.ctx, r.cancel = context.WithCancel(context.Background())
		if r.ended {
			r.cancel()
		}
	}
	return r.ctx
}

// A Header is a name and a value of any octets.
type Header struct {
	Name, Value string
}

// Head is everything before the body.
type Head struct {
	// Method is GET, POST, …
	Method string
	// URI is path and query as they are now.
	URI string
	// Version is 10, 11 or 20.
	Version uint8
	// Headers stand in the order in which they came.
	Headers []Header
}

// Head gives the whole head in one host call.
func (r *Request) Head() Head {
	r.live()
	head := host.Head()
	return Head{head.Method, head.Uri, head.Version, lift(head.Headers)}
}

// Method is GET, POST, …
func (r *Request) Method() string {
	r.live()
	return host.Method()
}

// URI is path and query as they are now.
func (r *Request) URI() string {
	r.live()
	return host.Uri()
}

// Path is the URI without its query.
func (r *Request) Path() string {
	path, _, _ := strings.Cut(r.URI(), "?")
	return path
}

// Args are the query's arguments. What cannot be decoded is left out.
func (r *Request) Args() url.Values {
	_, query, _ := strings.Cut(r.URI(), "?")
	args, _ := url.ParseQuery(query)
	return args
}

// Arg is the first value of a query argument; empty when there is none.
func (r *Request) Arg(name string) string {
	return r.Args().Get(name)
}

// Header is the first value of a header; empty when there is none.
func (r *Request) Header(name string) string {
	value, _ := r.LookupHeader(name)
	return value
}

// LookupHeader is the first value of a header, and whether there is one.
func (r *Request) LookupHeader(name string) (string, bool) {
	r.live()
	return text(host.GetHeader(name))
}

// Headers are all of them, in the order in which they came.
func (r *Request) Headers() []Header {
	r.live()
	return lift(host.GetHeaders())
}

// Errors of a head that cannot be changed.
var (
	// ErrInvalidHead is for what is not a valid name, value, method or URI.
	ErrInvalidHead = errors.New("not a valid name, value, method or URI")
	// ErrTooLate is for what had to be changed before the route was found.
	ErrTooLate = errors.New("route finding ended too long ago for that")
)

func headError(result witTypes.Result[witTypes.Unit, host.HeadError]) error {
	switch {
	case result.IsOk():
		return nil
	case result.Err() == host.HeadErrorInvalid:
		return ErrInvalidHead
	default:
		return ErrTooLate
	}
}

// SetMethod replaces the method.
func (r *Request) SetMethod(method string) error {
	r.live()
	return headError(host.SetMethod(method))
}

// SetURI replaces path and query.
func (r *Request) SetURI(uri string) error {
	r.live()
	return headError(host.SetUri(uri, false))
}

// Reroute replaces path and query, and the route is found again when the handler returns.
func (r *Request) Reroute(uri string) error {
	r.live()
	return headError(host.SetUri(uri, true))
}

// SetHeader replaces all values of a header.
func (r *Request) SetHeader(name, value string) error {
	r.live()
	return headError(host.SetHeader(name, [][]byte{[]byte(value)}))
}

// AddHeader adds one more value.
func (r *Request) AddHeader(name, value string) error {
	r.live()
	return headError(host.AddHeader(name, []byte(value)))
}

// RemoveHeader takes a header away.
func (r *Request) RemoveHeader(name string) error {
	r.live()
	return headError(host.SetHeader(name, nil))
}

// Errors of a body that cannot be read.
var (
	// ErrBodyTooLarge is for a body over the limit.
	ErrBodyTooLarge = errors.New("the request's body is too large")
	// ErrBodyTimeout says that the client sent nothing for too long.
	ErrBodyTimeout = errors.New("the client sent nothing for too long")
	// ErrBodyClosed says that the client is gone, or broke the protocol.
	ErrBodyClosed = errors.New("the client is gone")
	// ErrBodyTaken says that another reader has the body, or that it was discarded.
	ErrBodyTaken = errors.New("the request's body is taken")
)

func bodyError(code host.BodyError) error {
	switch code {
	case host.BodyErrorTooLarge:
		return ErrBodyTooLarge
	case host.BodyErrorTimeout:
		return ErrBodyTimeout
	case host.BodyErrorClosed:
		return ErrBodyClosed
	case host.BodyErrorTaken:
		return ErrBodyTaken
	default:
		return fmt.Errorf("body-error %d", code)
	}
}

// ReadBody gives the whole body, at most as long as the route's `body_limit`. It is kept: a second
// call gives the same bytes.
func (r *Request) ReadBody() ([]byte, error) {
	return r.ReadBodyAtMost(0)
}

// ReadBodyAtMost is ReadBody with another limit, in bytes.
func (r *Request) ReadBodyAtMost(limit uint64) ([]byte, error) {
	r.live()
	result, err := wait.Call(context.Background(),
		func() witTypes.Result[[]byte, host.BodyError] { return host.ReadBody(limit) },
		func() *operation.Operation { return host.BeginReadBody(limit) },
		host.EndReadBody,
	)
	if err != nil {
		return nil, err
	}
	if result.IsErr() {
		return nil, bodyError(result.Err())
	}
	return result.Ok(), nil
}

// Body reads the body as it comes, without keeping it.
func (r *Request) Body() io.Reader {
	return &body{request: r}
}

type body struct {
	request *Request
	left    []byte
	err     error
}

func (b *body) Read(into []byte) (int, error) {
	for len(b.left) == 0 {
		if b.err != nil {
			return 0, b.err
		}
		b.left, b.err = b.piece()
	}
	count := copy(into, b.left)
	b.left = b.left[count:]
	return count, nil
}

func (b *body) piece() ([]byte, error) {
	b.request.live()
	result, err := wait.Call(context.Background(), host.Read, host.BeginRead, host.EndRead)
	switch {
	case err != nil:
		return nil, err
	case result.IsErr():
		return nil, bodyError(result.Err())
	case result.Ok().IsNone():
		return nil, io.EOF
	default:
		return result.Ok().Some(), nil
	}
}

// SetBody replaces the body that later handlers and the upstream see.
func (r *Request) SetBody(body []byte) error {
	r.live()
	if result := host.SetBody(body); result.IsErr() {
		return bodyError(result.Err())
	}
	return nil
}

// DiscardBody reads and forgets what is left of the body.
func (r *Request) DiscardBody() error {
	r.live()
	if result := host.DiscardBody(); result.IsErr() {
		return bodyError(result.Err())
	}
	return nil
}

func lift(headers []witTypes.Tuple2[string, []byte]) []Header {
	list := make([]Header, len(headers))
	for place, header := range headers {
		list[place] = Header{header.F0, string(header.F1)}
	}
	return list
}

func lower(headers []Header) []witTypes.Tuple2[string, []byte] {
	list := make([]witTypes.Tuple2[string, []byte], len(headers))
	for place, header := range headers {
		list[place] = witTypes.Tuple2[string, []byte]{F0: header.Name, F1: []byte(header.Value)}
	}
	return list
}

func text(value witTypes.Option[[]byte]) (string, bool) {
	if value.IsNone() {
		return "", false
	}
	return string(value.Some()), true
}
