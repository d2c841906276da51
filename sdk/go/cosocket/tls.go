package cosocket

import (
	"context"
	"time"

	"phasor/internal/wait"
	host "phasor/internal/wit/phasor_plugin_cosocket"
	witTypes "phasor/internal/wit/types"
)

// TLS is how a handshake goes. What is left out is the configuration's.
type TLS struct {
	// ServerName is sent to the server and looked for in its certificate; empty: neither.
	ServerName string
	// Insecure takes any certificate: whoever stands between can read and change everything.
	Insecure bool
	// Authorities are believed alone (PEM).
	Authorities []byte
	// Certificate and Key are shown to a server that asks; both PEM, the certificate followed by
	// those that vouch for it.
	Certificate, Key []byte
	// Timeout is for all of it; none is a minute.
	Timeout time.Duration
}

func (t TLS) lower() host.TlsOptions {
	if t.Timeout <= 0 {
		t.Timeout = time.Minute
	}
	options := host.TlsOptions{Timeout: wait.Milliseconds(t.Timeout), Verify: !t.Insecure}
	if t.ServerName != "" {
		options.ServerName = witTypes.Some(t.ServerName)
	}
	if t.Authorities != nil {
		options.Authorities = witTypes.Some(t.Authorities)
	}
	if t.Certificate != nil {
		options.Identity = witTypes.Some(host.TlsIdentity{Certificate: t.Certificate, Key: t.Key})
	}
	return options
}

// A Session is what a server gave to resume a connection with. It lives as long as the instance.
type Session = host.TlsSession

// Handshake makes the connection speak TLS; it does nothing when it does already, as out of a pool.
// A session of an earlier connection to the same server, or nil, may spare a part of it. Any failure
// closes the connection.
func (c *Conn) Handshake(ctx context.Context, tls TLS, session *Session) error {
	options, earlier := tls.lower(), witTypes.None[*Session]()
	if session != nil {
		earlier = witTypes.Some(session)
	}
	result, err := wait.Call(ctx,
		func() witTypes.Result[witTypes.Unit, host.SocketError] {
			return c.stream.Host.Handshake(options, earlier)
		},
		func() *host.Operation { return c.stream.Host.BeginHandshake(options, earlier) },
		host.StreamEndHandshake,
	)
	if err != nil {
		return err
	}
	if result.IsErr() {
		return failed("handshake", c.RemoteAddr().Network(), result.Err())
	}
	return nil
}

// Session is what a later handshake can resume; nil without TLS.
func (c *Conn) Session() *Session {
	return c.stream.Host.Session().SomeOr(nil)
}
