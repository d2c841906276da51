// Package lock is locks with an owner, a longest hold and a line in which waiters stand
// (`[lock.NAME]`). It needs `allow.lock`.
package lock

import (
	"context"
	"time"

	"phasor/internal/wait"
	host "phasor/internal/wit/phasor_plugin_lock"
	operation "phasor/internal/wit/phasor_plugin_operation"
	witTypes "phasor/internal/wit/types"
)

// An Error says why a lock was not got, or is not held any more.
type Error uint8

// The errors.
const (
	ErrUnknownTable = Error(host.LockErrorUnknownTable)
	ErrRefused      = Error(host.LockErrorRefused)
	ErrTimeout      = Error(host.LockErrorTimeout)
	ErrBusy         = Error(host.LockErrorBusy)
	ErrLost         = Error(host.LockErrorLost)
	ErrInvalidName  = Error(host.LockErrorInvalidName)
	ErrUnavailable  = Error(host.LockErrorUnavailable)
)

func (e Error) Error() string {
	return [...]string{
		"no such table of locks", "`allow.lock` does not name the table", "timeout", "too many wait", "the lock was lost",
		"the lock's name is empty or too long", "the Redis of the locks is unavailable",
	}[e]
}

// Locks are a table of them, `[lock.NAME]`; the locks in it have names of the plugin's own.
type Locks struct {
	table uint32
}

// Open finds a table by name.
func Open(name string) (Locks, error) {
	result := host.Open(name)
	if result.IsErr() {
		return Locks{}, Error(result.Err())
	}
	return Locks{result.Ok()}, nil
}

// Options are what a call wants otherwise than `[lock.NAME]` says; nil is what that says.
type Options struct {
	// Hold is the longest that the lock is held.
	Hold *time.Duration
	// Wait is the longest to wait for it; nothing is one look.
	Wait *time.Duration
}

func optional(time *time.Duration) witTypes.Option[uint32] {
	if time == nil {
		return witTypes.None[uint32]()
	}
	return witTypes.Some(wait.Milliseconds(*time))
}

// A Guard is a held lock: release it. What traps, or whose client leaves, gives it back too.
type Guard struct {
	host *host.Guard
}

// Acquire waits in line for a lock.
func (l Locks) Acquire(ctx context.Context, name string) (*Guard, error) {
	return l.AcquireWith(ctx, name, Options{})
}

// AcquireWith is Acquire with options.
func (l Locks) AcquireWith(ctx context.Context, name string, options Options) (*Guard, error) {
	hold, most := optional(options.Hold), optional(options.Wait)
	result, err := wait.Call(ctx,
		func() witTypes.Result[*host.Guard, host.LockError] {
			return host.Acquire(l.table, []byte(name), hold, most)
		},
		func() *operation.Operation { return host.BeginAcquire(l.table, []byte(name), hold, most) },
		host.EndAcquire,
	)
	if err != nil {
		return nil, err
	}
	if result.IsErr() {
		return nil, Error(result.Err())
	}
	return &Guard{result.Ok()}, nil
}

// Fencing is the owner's number, greater than that of every owner before.
func (g *Guard) Fencing() uint64 { return g.host.Fencing() }

// Renew begins the hold anew; nil is the one it began with. [ErrUnavailable] when Redis does not say.
func (g *Guard) Renew(hold *time.Duration) error {
	if result := g.host.Renew(optional(hold)); result.IsErr() {
		return Error(result.Err())
	}
	return nil
}

// Release gives it back; [ErrLost] when it was not held until now. What Redis does not hear is sent later.
func (g *Guard) Release() error {
	if result := host.GuardRelease(g.host); result.IsErr() {
		return Error(result.Err())
	}
	return nil
}
