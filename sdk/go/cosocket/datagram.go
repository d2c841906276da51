package cosocket

import (
	"context"
	"net"
	"time"

	"phasor/internal/stream"
	"phasor/internal/wait"
	host "phasor/internal/wit/phasor_plugin_cosocket"
	witTypes "phasor/internal/wit/types"
)

// Datagrams with one peer.
type datagram struct {
	stream.Deadlines
	host   *host.Datagram
	remote stream.Address
	closed bool
}

// Only a name look-up takes time: nothing is sent.
func datagrams(ctx context.Context, network, target string) (net.Conn, error) {
	name, port, err := split(network, target)
	if err != nil {
		return nil, err
	}
	anywhere, most := witTypes.None[string](), wait.Milliseconds(time.Minute)
	result, err := wait.Call(ctx,
		func() witTypes.Result[*host.Datagram, host.SocketError] {
			return host.DatagramConnect(name, port, anywhere, most)
		},
		func() *host.Operation { return host.DatagramBeginConnect(name, port, anywhere, most) },
		host.DatagramEndConnect,
	)
	if err != nil {
		return nil, err
	}
	if result.IsErr() {
		return nil, failed("dial", network, result.Err())
	}
	return &datagram{host: result.Ok(), remote: stream.Address{Net: network, Text: target}}, nil
}

// Read receives one.
func (d *datagram) Read(into []byte) (int, error) {
	if d.closed {
		return 0, net.ErrClosed
	}
	timeout, err := d.ReadTimeout()
	if err != nil {
		return 0, err
	}
	most := uint32(min(len(into), stream.Most))
	bytes, err := stream.Receive(
		func() stream.Received { return d.host.Receive(most, timeout) },
		func() host.Receiving { return d.host.BeginReceive(most, timeout) },
		host.DatagramEndReceive,
		net.ErrClosed,
	)
	return copy(into, bytes), err
}

// Write sends one; it never waits.
func (d *datagram) Write(bytes []byte) (int, error) {
	if d.closed {
		return 0, net.ErrClosed
	}
	if result := d.host.Send(bytes); result.IsErr() {
		return 0, stream.Lift(result.Err(), net.ErrClosed)
	}
	return len(bytes), nil
}

// Close closes it; a read that is under way ends.
func (d *datagram) Close() error {
	if d.closed {
		return net.ErrClosed
	}
	d.closed = true
	d.host.Close()
	return nil
}

func (d *datagram) LocalAddr() net.Addr  { return stream.Address{Net: d.remote.Net} }
func (d *datagram) RemoteAddr() net.Addr { return d.remote }
