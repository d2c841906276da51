// Package timers starts what outlives the request: timers, which call the plugin's phase timer, in an
// instance that need not be this one, and jobs that go on in this one ([Afterwards]). What one waits for
// inside a handler is [phasor.Sleep].
package timers

import (
	"context"
	"errors"
	"time"

	"phasor"
	"phasor/internal/afterwards"
	"phasor/internal/export"
	"phasor/internal/wait"
	host "phasor/internal/wit/phasor_plugin_timers"
	witTypes "phasor/internal/wit/types"
)

// Errors of a timer that cannot be started.
var (
	// ErrTooMany says that the plugin has as many timers pending as its limits allow.
	ErrTooMany = errors.New("too many pending timers")
	// ErrExiting says that the worker is leaving; only a delay of nothing is taken.
	ErrExiting = errors.New("the worker is exiting")
)

// An ID is a timer that was started.
type ID uint64

func lift(result witTypes.Result[uint64, host.TimerError]) (ID, error) {
	switch {
	case result.IsOk():
		return ID(result.Ok()), nil
	case result.Err() == host.TimerErrorTooMany:
		return 0, ErrTooMany
	default:
		return 0, ErrExiting
	}
}

// After calls the phase timer once, after a delay; the token tells it which timer fired.
func After(delay time.Duration, token uint64) (ID, error) {
	return lift(host.Start(wait.Milliseconds(delay), 0, token))
}

// Every calls the phase timer after each period, of one millisecond at least.
func Every(period time.Duration, token uint64) (ID, error) {
	each := max(wait.Milliseconds(period), 1)
	return lift(host.Start(each, each, token))
}

// Afterwards calls a job in this instance as soon as the running handler has returned, without a request.
// The instance serves nobody else until then, and a job lasts as long as a request may.
func Afterwards(job func(ctx context.Context)) error {
	// A plugin without a handler of its own serves the phase for its jobs.
	if export.Timer == nil {
		phasor.Timer(func(context.Context, phasor.TimerEvent) error { return nil })
	}
	if result := afterwards.Leave(job); result.IsErr() {
		return ErrTooMany
	}
	return nil
}

// Cancel ends a timer; false when it is gone already.
func Cancel(timer ID) bool {
	return host.Cancel(uint64(timer))
}
