// Package downstream is the client's side of a request as a [net.Conn]: its body, or the whole
// connection, for WebSockets and other protocols that begin with a request. It ends with the
// request.
package downstream

import (
	"errors"
	"net"

	"phasor"
	"phasor/internal/stream"
	"phasor/internal/wait"
	host "phasor/internal/wit/phasor_plugin_downstream"
	witTypes "phasor/internal/wit/types"
)

// Why there is no connection.
var (
	// ErrTaken says that it has been taken before.
	ErrTaken = errors.New("downstream: taken before")
	// ErrNoBody says that the request has no body.
	ErrNoBody = errors.New("downstream: the request has no body")
	// ErrPendingBody says that a part of the request's body has been read already.
	ErrPendingBody = errors.New("downstream: a part of the body has been read already")
	// ErrPendingOutput says that something that was written has not left yet.
	ErrPendingOutput = errors.New("downstream: what was written has not left yet")
	// ErrNotOffered says that the request has no connection of its own: HTTP/2, or inside the server.
	ErrNotOffered = errors.New("downstream: the request has no connection of its own")
	// ErrClosed says that the answer has ended, or the client is gone.
	ErrClosed = errors.New("downstream: the answer has ended, or the client is gone")
)

var reasons = [...]error{
	host.DownstreamErrorTaken:         ErrTaken,
	host.DownstreamErrorNoBody:        ErrNoBody,
	host.DownstreamErrorPendingBody:   ErrPendingBody,
	host.DownstreamErrorPendingOutput: ErrPendingOutput,
	host.DownstreamErrorNotOffered:    ErrNotOffered,
	host.DownstreamErrorClosed:        ErrClosed,
}

type taken = witTypes.Result[*host.Stream, host.DownstreamError]

func conn(r *phasor.Request, result taken) (net.Conn, error) {
	if result.IsErr() {
		return nil, reasons[result.Err()]
	}
	client := net.JoinHostPort(r.Variable("remote_addr"), r.Variable("remote_port"))
	return stream.New(result.Ok(), stream.Address{Net: "tcp", Text: client}), nil
}

// Body is the request's body as it comes; it can only be read, and ends with [io.EOF].
func Body(r *phasor.Request) (net.Conn, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	return conn(r, host.Body())
}

// Take is the connection itself, both ways. If nothing has been answered yet, the whole answer is
// the caller's matter; a head with status 101 that was written leaves first. One goroutine may read
// and one may write at a time.
func Take(r *phasor.Request) (net.Conn, error) {
	result, err := wait.Call(r.Context(), host.Take, host.BeginTake, host.EndTake)
	if err != nil {
		return nil, err
	}
	return conn(r, result)
}

// Upgrade answers 101 Switching Protocols with these headers, and takes the connection.
func Upgrade(r *phasor.Request, protocol string, headers ...phasor.Header) (net.Conn, error) {
	// Only HTTP/1.1 can switch.
	if r.Head().Version != 11 {
		return nil, ErrNotOffered
	}
	answer := r.Response()
	if err := answer.SetStatus(101); err != nil {
		return nil, err
	}
	headers = append([]phasor.Header{{Name: "upgrade", Value: protocol}, {Name: "connection", Value: "upgrade"}}, headers...)
	for _, header := range headers {
		if err := answer.SetHeader(header.Name, header.Value); err != nil {
			return nil, err
		}
	}
	if _, err := answer.Write(nil); err != nil {
		return nil, err
	}
	return Take(r)
}
