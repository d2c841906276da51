// Package cosocket is sockets that the host waits for: TCP and unix streams, with TLS, and datagrams,
// all as [net.Conn]. It needs `allow.connect`. A connection belongs to the request in which it was
// made and is closed with it, unless [Conn.KeepAlive] puts it into the worker's pool.
package cosocket

import (
	"context"
	"net"
	"strconv"
	"time"

	"phasor/internal/stream"
	"phasor/internal/wait"
	host "phasor/internal/wit/phasor_plugin_cosocket"
	witTypes "phasor/internal/wit/types"
)

// Errors beside [os.ErrDeadlineExceeded] (a time-out), [io.EOF] and [net.ErrClosed].
var (
	// ErrRefused says that `allow.connect` does not name the target.
	ErrRefused = stream.ErrRefused
	// ErrBusy says that another goroutine reads, or writes.
	ErrBusy = stream.ErrBusy
)

// Options are how to connect; what is left out is the default.
type Options struct {
	// Timeout is for the name look-up, a place in the pool and the connection together; none is a minute.
	Timeout time.Duration
	// Pool is the pool's name; empty: host and port.
	Pool string
	// PoolSize is how many connections a new pool keeps idle.
	PoolSize uint32
	// Backlog: with it the pool has at most PoolSize connections, idle and in use, and so many callers
	// wait for one, first come, first served.
	Backlog *uint32
	// Local is the local address, IP or IP:PORT.
	Local string
}

func (o Options) lower() host.ConnectOptions {
	if o.Timeout <= 0 {
		o.Timeout = time.Minute
	}
	options := host.ConnectOptions{Timeout: wait.Milliseconds(o.Timeout), PoolSize: o.PoolSize}
	if o.Pool != "" {
		options.Pool = witTypes.Some(o.Pool)
	}
	if o.Backlog != nil {
		options.Backlog = witTypes.Some(*o.Backlog)
	}
	if o.Local != "" {
		options.Local = witTypes.Some(o.Local)
	}
	return options
}

// A Conn is a connected stream. One goroutine may read and one may write at a time. A deadline is for
// reads and writes that begin later. The local address is not known.
type Conn struct {
	net.Conn
	stream *stream.Conn
}

// Dial connects to HOST:PORT on the networks "tcp" and "udp", or to a path on "unix" and "unixgram".
// It has the shape of net.Dialer.DialContext. With datagrams each write sends one and each read
// receives one, of at most 64 KiB; what the buffer does not hold of it is lost.
func Dial(ctx context.Context, network, target string) (net.Conn, error) {
	switch network {
	case "udp", "udp4", "udp6", "unixgram":
		return datagrams(ctx, network, target)
	}
	conn, err := Connect(ctx, network, target, Options{})
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// Host and port as the host of this component takes them.
func split(network, target string) (string, uint16, error) {
	switch network {
	case "unix", "unixgram":
		return "unix:" + target, 0, nil
	case "tcp", "tcp4", "tcp6", "udp", "udp4", "udp6":
	default:
		return "", 0, net.UnknownNetworkError(network)
	}
	name, digits, err := net.SplitHostPort(target)
	if err != nil {
		return "", 0, err
	}
	port, err := strconv.ParseUint(digits, 10, 16)
	return name, uint16(port), err
}

func failed(op, network string, e host.SocketError) error {
	return &net.OpError{Op: op, Net: network, Err: stream.Lift(e, net.ErrClosed)}
}

// Connect connects to HOST:PORT on the network "tcp", or to a path on "unix", or takes a connection
// out of the pool.
func Connect(ctx context.Context, network, target string, options Options) (*Conn, error) {
	switch network {
	case "tcp", "tcp4", "tcp6", "unix":
	default:
		return nil, net.UnknownNetworkError(network)
	}
	name, port, err := split(network, target)
	if err != nil {
		return nil, err
	}
	result, err := connect(ctx, name, port, options.lower())
	if err != nil {
		return nil, err
	}
	if result.IsErr() {
		return nil, failed("dial", network, result.Err())
	}
	conn := stream.New(result.Ok(), stream.Address{Net: network, Text: target})
	return &Conn{conn, conn}, nil
}

type connected = witTypes.Result[*host.Stream, host.SocketError]

// In one call when nothing else could run meanwhile, else begun and ended.
func connect(ctx context.Context, name string, port uint16, options host.ConnectOptions) (connected, error) {
	if err := ctx.Err(); err != nil {
		return connected{}, err
	}
	if wait.Alone() {
		return host.StreamConnect(name, port, options), nil
	}
	begun := host.StreamBeginConnect(name, port, options)
	if begun.Tag() == host.ConnectingNow {
		return begun.Now(), nil
	}
	if err := wait.For(ctx, begun.Later()); err != nil {
		return connected{}, err
	}
	return host.StreamEndConnect(begun.Later()), nil
}

// KeepAlive puts the connection into its pool for at most so long (nothing: no limit of time); it is
// not to be used any more. It fails if the peer closed or unread data waits. The size is for a pool
// that is not there yet; 0 is the default.
func (c *Conn) KeepAlive(idle time.Duration, size uint32) error {
	if !c.stream.Let() {
		return net.ErrClosed
	}
	if result := host.StreamKeepAlive(c.stream.Host, wait.Milliseconds(idle), size); result.IsErr() {
		return stream.Lift(result.Err(), net.ErrClosed)
	}
	return nil
}

// Reused tells how often this connection came out of a pool.
func (c *Conn) Reused() int {
	return int(c.stream.Host.Reused())
}

// An Option of a socket.
type Option = host.StreamOption

// The options.
const (
	Keepalive  = host.StreamOptionKeepalive
	Reuseaddr  = host.StreamOptionReuseaddr
	TCPNodelay = host.StreamOptionTcpNodelay
	Sndbuf     = host.StreamOptionSndbuf
	Rcvbuf     = host.StreamOptionRcvbuf
)

// SetOption sets a socket option.
func (c *Conn) SetOption(which Option, value uint32) error {
	if result := c.stream.Host.SetOption(which, value); result.IsErr() {
		return stream.Lift(result.Err(), net.ErrClosed)
	}
	return nil
}

// Option reads a socket option.
func (c *Conn) Option(which Option) (uint32, error) {
	result := c.stream.Host.GetOption(which)
	if result.IsErr() {
		return 0, stream.Lift(result.Err(), net.ErrClosed)
	}
	return result.Ok(), nil
}
