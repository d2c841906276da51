// Package stream is what the host's connected streams have in common, whoever is at the other end:
// reads and writes with deadlines, as a [net.Conn].
package stream

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"time"

	"phasor/internal/wait"
	host "phasor/internal/wit/phasor_plugin_cosocket"
	witTypes "phasor/internal/wit/types"
)

// Errors beside [os.ErrDeadlineExceeded] (a time-out), [io.EOF] and [net.ErrClosed].
var (
	ErrRefused = errors.New("cosocket: `allow.connect` does not name the target")
	ErrBusy    = errors.New("cosocket: socket busy")
)

// Lift makes an error of the host's; closed is what the end of the connection means here.
func Lift(e host.SocketError, closed error) error {
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

// An Address is a network and a text, as they were given.
type Address struct {
	Net, Text string
}

// Network is tcp, unix, …
func (a Address) Network() string { return a.Net }
func (a Address) String() string  { return a.Text }

// Deadlines are for calls that begin later.
type Deadlines struct {
	read, write time.Time
}

// SetDeadline is for reads and writes that begin later.
func (d *Deadlines) SetDeadline(deadline time.Time) error {
	d.read, d.write = deadline, deadline
	return nil
}

// SetReadDeadline is for reads that begin later.
func (d *Deadlines) SetReadDeadline(deadline time.Time) error {
	d.read = deadline
	return nil
}

// SetWriteDeadline is for writes that begin later.
func (d *Deadlines) SetWriteDeadline(deadline time.Time) error {
	d.write = deadline
	return nil
}

// The time left, which the host counts in milliseconds; false when it is over.
func left(deadline time.Time) (uint32, bool) {
	if deadline.IsZero() {
		return 1<<32 - 1, true
	}
	left := time.Until(deadline)
	return wait.Milliseconds(left), left > 0
}

// A Conn is a connected stream. One goroutine may read and one may write at a time.
type Conn struct {
	Deadlines
	// Host is what the host knows of it.
	Host   *host.Stream
	remote Address
	closed bool
}

// New is a stream that the host has connected with whom the address names.
func New(connected *host.Stream, remote Address) *Conn {
	return &Conn{Host: connected, remote: remote}
}

// Read reads what there is, at least one byte.
func (c *Conn) Read(into []byte) (int, error) {
	if len(into) == 0 {
		return 0, nil
	}
	timeout, err := c.ReadTimeout()
	switch {
	case c.closed:
		return 0, net.ErrClosed
	case err != nil:
		return 0, err
	}
	most := uint32(min(len(into), Most))
	bytes, err := Receive(
		func() Received { return c.Host.Receive(most, timeout) },
		func() host.Receiving { return c.Host.BeginReceive(most, timeout) },
		host.StreamEndReceive,
		io.EOF,
	)
	return copy(into, bytes), err
}

// Most is what one call receives.
const Most = 64 << 10

// Received is what a call of the host gives.
type Received = witTypes.Result[[]byte, host.SocketError]

// Receive receives once: in one call when nothing else could run meanwhile, else begun and ended.
func Receive(
	whole func() Received,
	begin func() host.Receiving,
	end func(*host.Operation) Received,
	closed error,
) ([]byte, error) {
	var result Received
	if wait.Alone() {
		result = whole()
	} else if begun := begin(); begun.Tag() == host.ReceivingNow {
		result = begun.Now()
	} else {
		if err := wait.For(context.Background(), begun.Later()); err != nil {
			return nil, err
		}
		result = end(begun.Later())
	}
	if result.IsErr() {
		return nil, Lift(result.Err(), closed)
	}
	return result.Ok(), nil
}

// ReadTimeout is what is left for a read, or why there is nothing left.
func (d *Deadlines) ReadTimeout() (uint32, error) {
	timeout, ok := left(d.read)
	if !ok {
		return 0, os.ErrDeadlineExceeded
	}
	return timeout, nil
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
		result = c.Host.Send(bytes, timeout)
	} else if begun := c.Host.BeginSend(bytes, timeout); begun.Tag() == host.SendingNow {
		result = begun.Now()
	} else {
		if err := wait.For(context.Background(), begun.Later()); err != nil {
			return err
		}
		result = host.StreamEndSend(begun.Later())
	}
	if result.IsErr() {
		return Lift(result.Err(), io.ErrClosedPipe)
	}
	return nil
}

// Close closes it; calls that are under way end.
func (c *Conn) Close() error {
	if !c.Let() {
		return net.ErrClosed
	}
	c.Host.Close()
	return nil
}

// Let makes it not to be used any more, without closing it; false when that was so before.
func (c *Conn) Let() bool {
	was := c.closed
	c.closed = true
	return !was
}

// LocalAddr is not known: it has no text.
func (c *Conn) LocalAddr() net.Addr { return Address{Net: c.remote.Net} }

// RemoteAddr is who is at the other end.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }
