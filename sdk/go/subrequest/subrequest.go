// Package subrequest makes requests inside the server: routed, run and answered like a client's,
// without a connection. It needs `allow.subrequest`.
package subrequest

import (
	"context"
	"fmt"

	"phasor"
	"phasor/internal/wait"
	operation "phasor/internal/wit/phasor_plugin_operation"
	host "phasor/internal/wit/phasor_plugin_subrequest"
	witTypes "phasor/internal/wit/types"
)

// A Kind tells errors apart.
type Kind uint8

// Why there is no answer.
const (
	// Refused: `allow.subrequest` does not name the target.
	Refused = Kind(host.SubrequestErrorRefused)
	// Invalid: not a URI, a method or a header.
	Invalid = Kind(host.SubrequestErrorInvalid)
	// UnknownVariable: no route declares this variable.
	UnknownVariable = Kind(host.SubrequestErrorUnknownVariable)
	// TooDeep: nested deeper than `subrequest_depth`.
	TooDeep = Kind(host.SubrequestErrorTooDeep)
	// TooMany: more than `subrequests` at a time for one request.
	TooMany = Kind(host.SubrequestErrorTooMany)
	// Ended: the current request has ended.
	Ended = Kind(host.SubrequestErrorEnded)
)

// An Error says why there is no answer. Take it out of an error with [errors.As].
type Error struct {
	Kind Kind
	// Text is more about it; may be empty.
	Text string
}

func (e *Error) Error() string {
	name := [...]string{"refused", "invalid", "unknown variable", "nested too deep", "too many at a time", "the request has ended"}[e.Kind]
	if e.Text == "" {
		return "subrequest: " + name
	}
	return "subrequest: " + name + ": " + e.Text
}

func lift(e host.SubrequestError) error {
	kind, text := Kind(e.Tag()), ""
	switch kind {
	case Refused:
		text = e.Refused()
	case Invalid:
		text = e.Invalid()
	case UnknownVariable:
		text = e.UnknownVariable()
	case TooDeep:
		text = fmt.Sprint(e.TooDeep())
	case TooMany:
		text = fmt.Sprint(e.TooMany())
	}
	return &Error{kind, text}
}

// VariablesFrom says which variables it begins with.
type VariablesFrom = host.VariablesFrom

// Which variables it begins with.
const (
	// None but what its route sets.
	None = host.VariablesFromNone
	// Copy of the current request's.
	Copy = host.VariablesFromCopy
	// Share the current request's: what one sets the other sees.
	Share = host.VariablesFromShare
)

// A Request inside the server. What it does not name is the current request's: headers, host, protocol.
type Request struct {
	// Method is GET, POST, …
	Method string
	// Target is a path with or without a query, or `@name`.
	Target string
	// Headers replace the current request's of the same name.
	Headers []phasor.Header
	// Body is its body.
	Body []byte
	// ForwardBody gives it the current request's, as far as that has been read whole; a Body comes first.
	ForwardBody bool
	// Inherit says which variables it begins with.
	Inherit VariablesFrom
	// Variables are set before it begins; some route must declare them with `set`.
	Variables map[string]string
	// Values are what its plugins find with [phasor.Request.Value].
	Values map[string][]byte
}

// Get is a request without a body.
func Get(target string) *Request {
	return &Request{Method: "GET", Target: target}
}

func (r *Request) lower() host.Inner {
	inner := host.Inner{Target: r.Target, Method: r.Method, Inherit: r.Inherit}
	for _, header := range r.Headers {
		inner.Headers = append(inner.Headers, host.Header{F0: header.Name, F1: []byte(header.Value)})
	}
	for name, value := range r.Variables {
		inner.Variables = append(inner.Variables, host.Header{F0: name, F1: []byte(value)})
	}
	for name, value := range r.Values {
		inner.Context = append(inner.Context, host.Header{F0: name, F1: value})
	}
	switch {
	case r.Body != nil:
		inner.Body = host.MakeBodySourceBytes(r.Body)
	case r.ForwardBody:
		inner.Body = host.MakeBodySourceCurrent()
	default:
		inner.Body = host.MakeBodySourceNone()
	}
	return inner
}

// An Answer is whole, behind the header and body filters of its route.
type Answer struct {
	Status  int
	Headers []phasor.Header
	// Body is at most `subrequest_body_limit` bytes.
	Body []byte
	// Truncated: the answer broke off, is longer than the limit, or is a status without a page.
	Truncated bool
}

// Send runs it and waits for its answer.
func (r *Request) Send(ctx context.Context) (*Answer, error) {
	inner := r.lower()
	result, err := wait.Call(ctx,
		func() witTypes.Result[host.Captured, host.SubrequestError] { return host.Capture(inner) },
		func() *operation.Operation { return host.BeginCapture(inner) },
		host.EndCapture,
	)
	if err != nil {
		return nil, err
	}
	if result.IsErr() {
		return nil, lift(result.Err())
	}
	captured := result.Ok()
	answer := &Answer{Status: int(captured.Status), Body: captured.Body, Truncated: captured.Truncated}
	for _, header := range captured.Headers {
		answer.Headers = append(answer.Headers, phasor.Header{Name: header.F0, Value: string(header.F1)})
	}
	return answer, nil
}

// Depth is how deep the current request is nested; 0 is a client's own.
func Depth() int {
	return int(host.Depth())
}
