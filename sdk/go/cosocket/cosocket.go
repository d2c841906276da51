// Package cosocket is sockets that the host waits for: TCP and unix streams as [net.Conn]. It needs
// `allow.connect`. A connection belongs to the request in which it was made and is closed with it,
// unless [Conn.KeepAlive] puts it into the worker's pool.
package cosocket

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"time"

	"phasor/internal/wait"
	host "phasor/internal/wit/phasor_plugin_cosocket"
	witTypes "phasor/internal/wit/types"
)

// Errors beside [os.ErrDeadlineExceeded] (a time-out), [io.EOF] and [net.ErrClosed].
var (
	// ErrRefused says that `allow.connect` does not name the target.
	ErrRefused = errors.New("cosocket: `allow.connect` does not name the target")
	// ErrBusy says that another goroutine reads, or writes.
	ErrBusy = errors.New("cosocket: socket busy")
)

func lift(e host.SocketError, closed error) error {
	switch e.Tag() {
	case host.SocketErrorTimeout:
		return os.ErrDeadlineExceeded
	case host.SocketErrorClosed:
		return closed
	case host.SocketErrorRefused:
		return ErrRefused
	case host.SocketErrorBusy:
		return ErrBusy
	default:
		return errors.New("cosocket: " + e.Other())
	}
}

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

// A Conn is a connected stream. One goroutine may read and one may write at a time.
type Conn struct {
	host   *host.Stream
	remote address
	read   time.Time
	write  time.Time
	closed bool
}

type address struct {
	network, text string
}

func (a address) Network() string { return a.network }
func (a address) String() string  { return a.text }

// Dial connects to HOST:PORT on the network "tcp", or to a path on the network "unix". It has the shape
// of net.Dialer.DialContext.
func Dial(ctx context.Context, network, target string) (net.Conn, error) {
	conn, err := Connect(ctx, network, target, Options{})
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// Connect connects, or takes a connection out of the pool.
func Connect(ctx context.Context, network, target string, options Options) (*Conn, error) {
	name, port := "unix:"+target, uint64(0)
	switch network {
	case "unix":
	case "tcp", "tcp4", "tcp6":
		given, digits, err := net.SplitHostPort(target)
		if err != nil {
			return nil, err
		}
		if port, err = strconv.ParseUint(digits, 10, 16); err != nil {
			return nil, err
		}
		name = given
	default:
		return nil, net.UnknownNetworkError(network)
	}
	lowered := options.lower()
	result, err := wait.Call(ctx,
		func() witTypes.Result[*host.Stream, host.SocketError] {
			return host.StreamConnect(name, uint16(port), lowered)
		},
		func() *host.Operation { return host.StreamBeginConnect(name, uint16(port), lowered) },
		host.StreamEndConnect,
	)
	if err != nil {
		return nil, err
	}
	if result.IsErr() {
		return nil, &net.OpError{Op: "dial", Net: network, Err: lift(result.Err(), net.ErrClosed)}
	}
	return &Conn{host: result.Ok(), remote: address{network, target}}, nil
}

// The time left, which the host counts in milliseconds; false when it is over.
func left(deadline time.Time) (uint32, bool) {
	if deadline.IsZero() {
		return 1<<32 - 1, true
	}
	left := time.Until(deadline)
	return wait.Milliseconds(left), left > 0
}

// Read reads what there is, at least one byte.
func (c *Conn) Read(into []byte) (int, error) {
	if len(into) == 0 {
		return 0, nil
	}
	timeout, ok := left(c.read)
	switch {
	case c.closed:
		return 0, net.ErrClosed
	case !ok:
		return 0, os.ErrDeadlineExceeded
	}
	bytes, err := c.receive(uint32(min(len(into), 64<<10)), timeout)
	return copy(into, bytes), err
}

func (c *Conn) receive(most, timeout uint32) ([]byte, error) {
	var result witTypes.Result[[]byte, host.SocketError]
	if wait.Alone() {
		result = c.host.Receive(most, timeout)
	} else if begun := c.host.BeginReceive(most, timeout); begun.Tag() == host.ReceivingNow {
		result = begun.Now()
	} else {
		if err := wait.For(context.Background(), begun.Later()); err != nil {
			return nil, err
		}
		result = host.StreamEndReceive(begun.Later())
	}
	if result.IsErr() {
		return nil, lift(result.Err(), io.EOF)
	}
	return result.Ok(), nil
}

// Write writes all of it.
func (c *Conn) Write(bytes []byte) (int, error) {
	timeout, ok := left(c.write)
	switch {
	case c.closed:
		return 0, net.ErrClosed
	case !ok:
		return 0, os.ErrDeadlineExceeded
	}
	if err := c.send(bytes, timeout); err != nil {
		return 0, err
	}
	return len(bytes), nil
}

func (c *Conn) send(bytes []byte, timeout uint32) error {
	var result witTypes.Result[witTypes.Unit, host.SocketError]
	if wait.Alone() {
		result = c.host.Send(bytes, timeout)
	} else if begun := c.host.BeginSend(bytes, timeout); begun.Tag() == host.SendingNow {
		result = begun.Now()
	} else {
		if err := wait.For(context.Background(), begun.Later()); err != nil {
			return err
		}
		result = host.StreamEndSend(begun.Later())
	}
	if result.IsErr() {
		return lift(result.Err(), io.ErrClosedPipe)
	}
	return nil
}

// Close closes it; calls that are under way end.
func (c *Conn) Close() error {
	if c.closed {
		return net.ErrClosed
	}
	c.closed = true
	c.host.Close()
	return nil
}

// KeepAlive puts the connection into its pool for at most so long (nothing: no limit of time); it is
// not to be used any more. It fails if the peer closed or unread data waits. The size is for a pool
// that is not there yet; 0 is the default.
func (c *Conn) KeepAlive(idle time.Duration, size uint32) error {
	if c.closed {
		return net.ErrClosed
	}
	c.closed = true
	if result := c.host.KeepAlive(wait.Milliseconds(idle), size); result.IsErr() {
		return lift(result.Err(), net.ErrClosed)
	}
	return nil
}

// Reused tells how often this connection came out of a pool.
func (c *Conn) Reused() int {
	return int(c.host.Reused())
}

// LocalAddr is not known: it has no text.
func (c *Conn) LocalAddr() net.Addr { return address{network: c.remote.network} }

// RemoteAddr is what was dialled.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline is for reads and writes that begin later.
func (c *Conn) SetDeadline(deadline time.Time) error {
	c.read, c.write = deadline, deadline
	return nil
}

// SetReadDeadline is for reads that begin later.
func (c *Conn) SetReadDeadline(deadline time.Time) error {
	c.read = deadline
	return nil
}

// SetWriteDeadline is for writes that begin later.
func (c *Conn) SetWriteDeadline(deadline time.Time) error {
	c.write = deadline
	return nil
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
	if result := c.host.SetOption(which, value); result.IsErr() {
		return lift(result.Err(), net.ErrClosed)
	}
	return nil
}

// Option reads a socket option.
func (c *Conn) Option(which Option) (uint32, error) {
	result := c.host.GetOption(which)
	if result.IsErr() {
		return 0, lift(result.Err(), net.ErrClosed)
	}
	return result.Ok(), nil
}
