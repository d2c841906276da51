package phasor

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"phasor/internal/afterwards"
	"phasor/internal/export"
	"phasor/internal/wait"
	balancer "phasor/internal/wit/phasor_plugin_balancer"
	bodyfilter "phasor/internal/wit/phasor_plugin_body_filter"
	certificate "phasor/internal/wit/phasor_plugin_certificate"
	manifest "phasor/internal/wit/phasor_plugin_manifest"
	types "phasor/internal/wit/phasor_plugin_types"
	witTypes "phasor/internal/wit/types"
)

// A Handler serves a phase of a request. Its error says how it goes on: none or [Next], with the
// following handler; a [Verdict], as that says; any other fails the request with 500, and its text is
// logged. After an answer was sent as a whole (see [Request.Send]), no error means that it stands.
type Handler func(r *Request) error

// A Verdict is what a handler answers. It is an error only so that a handler can return it as one.
type Verdict int

const (
	// Next goes on with the following handler of this phase, or the following phase.
	Next Verdict = iota
	// Done goes on with the following phase.
	Done
	exit
)

// Exit ends the request with a status and its error page; Exit(0) with the answer that was sent.
func Exit(status int) Verdict {
	return exit + Verdict(status)
}

// Error describes the verdict.
func (v Verdict) Error() string {
	switch v {
	case Next:
		return "next"
	case Done:
		return "done"
	default:
		return fmt.Sprintf("exit(%d)", int(v-exit))
	}
}

func (v Verdict) lower() types.Verdict {
	switch v {
	case Next:
		return types.MakeVerdictNext()
	case Done:
		return types.MakeVerdictDone()
	default:
		return types.MakeVerdictExit(uint16(v - exit))
	}
}

// Calls a handler; a panic is an error with its trace, as in a server of net/http.
func guard(call func() error) (err error) {
	defer func() {
		if reason := recover(); reason != nil {
			err = fmt.Errorf("panic: %v\n\n%s", reason, debug.Stack())
		}
	}()
	return call()
}

// Calls a handler that has a request.
func serve(call func(r *Request) error) (*Request, error) {
	r := &Request{}
	err := guard(func() error { return call(r) })
	r.end()
	wait.End()
	return r, err
}

// Calls a handler that has none.
func run(call func() error) error {
	err := guard(call)
	wait.End()
	return err
}

func nothing(err error) export.Nothing {
	if err != nil {
		return witTypes.Err[witTypes.Unit, string](err.Error())
	}
	return witTypes.Ok[witTypes.Unit, string](witTypes.Unit{})
}

func verdict(handler Handler) func() export.Verdict {
	return func() export.Verdict {
		r, err := serve(handler)
		var verdict Verdict
		switch {
		case err == nil && r.answered:
			verdict = Exit(0)
		case err != nil && !errors.As(err, &verdict):
			return witTypes.Err[types.Verdict, string](err.Error())
		}
		return witTypes.Ok[types.Verdict, string](verdict.lower())
	}
}

// The tool looks for these functions by their names, so they must not be inlined.

// Init is called once, when a generation is built; what it leaves in memory is what every instance
// starts from. There is no network.
//
//go:noinline
func Init(handler func() error) {
	export.Init = func() export.Nothing { return nothing(run(handler)) }
}

// InitWorker is called when an instance starts in a worker.
//
//go:noinline
func InitWorker(handler func() error) {
	export.InitWorker = func() export.Nothing { return nothing(run(handler)) }
}

// ExitWorker is called when an instance leaves its worker.
//
//go:noinline
func ExitWorker(handler func() error) {
	export.ExitWorker = func() export.Nothing { return nothing(run(handler)) }
}

// ClientHello is called when a TLS handshake begins; an error refuses it. The name is empty when the
// client gives none.
//
//go:noinline
func ClientHello(handler func(serverName string) error) {
	export.ClientHello = func(serverName witTypes.Option[string]) export.Nothing {
		return nothing(run(func() error { return handler(serverName.SomeOr("")) }))
	}
}

// A CertifiedKey is a certificate's chain and its key, both PEM.
type CertifiedKey = certificate.CertifiedKey

// Certificate is called when a TLS handshake needs a certificate; nil leaves the configured one in place.
//
//go:noinline
func Certificate(handler func(serverName string) (*CertifiedKey, error)) {
	export.Certificate = func(serverName witTypes.Option[string]) export.Certified {
		var key *CertifiedKey
		err := run(func() (err error) {
			key, err = handler(serverName.SomeOr(""))
			return err
		})
		if err != nil {
			return witTypes.Err[witTypes.Option[CertifiedKey], string](err.Error())
		}
		return witTypes.Ok[witTypes.Option[CertifiedKey], string](optional(key))
	}
}

// ServerRewrite is called before the route is found.
//
//go:noinline
func ServerRewrite(handler Handler) { export.ServerRewrite = verdict(handler) }

// Set computes a variable of the route, by its name; nil leaves it unset.
//
//go:noinline
func Set(handler func(r *Request, name string) ([]byte, error)) {
	export.Set = func(name string) export.Computed {
		var value []byte
		_, err := serve(func(r *Request) (err error) {
			value, err = handler(r, name)
			return err
		})
		if err != nil {
			return witTypes.Err[witTypes.Option[[]byte], string](err.Error())
		}
		return witTypes.Ok[witTypes.Option[[]byte], string](some(value))
	}
}

// Rewrite is called when the route is known; URI and headers may change.
//
//go:noinline
func Rewrite(handler Handler) { export.Rewrite = verdict(handler) }

// Access lets the request in, or answers.
//
//go:noinline
func Access(handler Handler) { export.Access = verdict(handler) }

// Precontent may answer before the content handler does.
//
//go:noinline
func Precontent(handler Handler) { export.Precontent = verdict(handler) }

// Content makes the answer.
//
//go:noinline
func Content(handler Handler) { export.Content = verdict(handler) }

// A Choice is the peer to try, and how.
type Choice struct {
	// Peer is HOST:PORT; empty leaves the choice to the upstream's own method.
	Peer string
	// Timeouts replace the upstream's when there are some.
	Timeouts *Timeouts
	// MoreTries than the upstream allows by itself.
	MoreTries uint32
}

// Timeouts are those of one try.
type Timeouts struct {
	Connect, Send, Read time.Duration
}

func (c Choice) lower() balancer.Choice {
	choice := balancer.Choice{MoreTries: c.MoreTries}
	if c.Peer != "" {
		choice.Peer = witTypes.Some(c.Peer)
	}
	if t := c.Timeouts; t != nil {
		choice.Timeouts = witTypes.Some(witTypes.Tuple3[uint32, uint32, uint32]{
			F0: wait.Milliseconds(t.Connect), F1: wait.Milliseconds(t.Send), F2: wait.Milliseconds(t.Read),
		})
	}
	return choice
}

// Balancer is called before each try of an upstream peer; the tries count from 0.
//
//go:noinline
func Balancer(handler func(r *Request, try uint32) (Choice, error)) {
	export.Balancer = func(try uint32) export.Chosen {
		var choice Choice
		_, err := serve(func(r *Request) (err error) {
			choice, err = handler(r, try)
			return err
		})
		if err != nil {
			return witTypes.Err[balancer.Choice, string](err.Error())
		}
		return witTypes.Ok[balancer.Choice, string](choice.lower())
	}
}

// HeaderFilter is called with the answer's head, before it is sent.
//
//go:noinline
func HeaderFilter(handler Handler) { export.HeaderFilter = verdict(handler) }

// A Chunk is a piece of the answer's body. It goes on unchanged unless it is replaced.
type Chunk struct {
	// Bytes may be empty when it is the last.
	Bytes []byte
	// Last is true once, with the end of the body.
	Last     bool
	replaced bool
	by       []byte
}

// Replace puts these bytes in its place; none of them drops it.
func (c *Chunk) Replace(by []byte) {
	c.replaced, c.by = true, by
}

// BodyFilter is called with each chunk of the answer's body, and its end.
//
//go:noinline
func BodyFilter(handler func(r *Request, chunk *Chunk) error) {
	export.BodyFilter = func(bytes []byte, last bool) export.Filtered {
		chunk := &Chunk{Bytes: bytes, Last: last}
		_, err := serve(func(r *Request) error { return handler(r, chunk) })
		switch {
		case err != nil:
			return witTypes.Err[bodyfilter.ChunkVerdict, string](err.Error())
		case chunk.replaced:
			return witTypes.Ok[bodyfilter.ChunkVerdict, string](bodyfilter.MakeChunkVerdictReplace(chunk.by))
		default:
			return witTypes.Ok[bodyfilter.ChunkVerdict, string](bodyfilter.MakeChunkVerdictPass())
		}
	}
}

// Log is called after the answer has left, whatever happened.
//
//go:noinline
func Log(handler func(r *Request) error) {
	export.Log = func() export.Nothing {
		_, err := serve(handler)
		return nothing(err)
	}
}

// A TimerEvent is a timer that fires.
type TimerEvent struct {
	// Token is what the timer was started with.
	Token uint64
	// Premature is true when the worker leaves before the time has come.
	Premature bool
}

// Timer is called when a timer of the plugin fires: see the package timers.
//
//go:noinline
func Timer(handler func(ctx context.Context, event TimerEvent) error) {
	export.Timer = func(token uint64, premature bool) export.Nothing {
		return nothing(run(func() error {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			if job, there := afterwards.Take(token); there {
				job(ctx)
				return nil
			}
			return handler(ctx, TimerEvent{token, premature})
		}))
	}
}

// A Description is what a plugin says of itself.
type Description struct {
	// Name is the plugin's own name.
	Name string
	// Version is its version.
	Version string
	// ConfigSchema is a JSON schema of its configuration; empty when anything goes.
	ConfigSchema string
}

// Manifest says what the plugin is; its configuration is checked by it before anything serves.
//
//go:noinline
func Manifest(description Description) {
	export.Manifest = func() manifest.Description { return manifest.Description(description) }
}

func optional[T any](value *T) witTypes.Option[T] {
	if value == nil {
		return witTypes.None[T]()
	}
	return witTypes.Some(*value)
}

func some(value []byte) witTypes.Option[[]byte] {
	if value == nil {
		return witTypes.None[[]byte]()
	}
	return witTypes.Some(value)
}
