// Package wait joins Go's goroutines to the host's operations, so that several of them wait at once.
//
// A host function suspends the whole instance. So a goroutine that has to wait begins the operation
// only and parks; when no goroutine can run any more, the driver lets the host wait for all of them
// together, and for Go's own timers. A program without a second goroutine needs none of that: it
// calls the host's function in its waiting form.
package wait

import (
	"context"
	"runtime"
	"time"
	_ "unsafe" // for linkname

	operation "phasor/internal/wit/phasor_plugin_operation"
	timers "phasor/internal/wit/phasor_plugin_timers"
)

// When the next of Go's timers is to fire, on Go's own clock; the greatest number when there is none.
//
//go:linkname timeSleepUntil runtime.timeSleepUntil
func timeSleepUntil() int64

// Go's own clock.
//
//go:linkname nanotime runtime.nanotime
func nanotime() int64

const never = 1<<63 - 1

// A goroutine that waits for an operation.
type waiter struct {
	operation *operation.Operation
	// Receives true when the operation is ready, false when the handler has returned meanwhile.
	wake chan bool
}

var (
	parked  []*waiter
	driving bool
)

// The goroutines of a program that has started none of its own: the one that runs handlers.
const own = 1

// Alone tells whether nothing else could run while the whole instance waits.
func Alone() bool {
	return runtime.NumGoroutine() <= own && timeSleepUntil() == never
}

// Call carries out a host function that waits: in one call when nothing else could run meanwhile,
// else begun and ended. It ends early with the context's error; the operation is cancelled then.
func Call[T any](
	ctx context.Context,
	whole func() T,
	begin func() *operation.Operation,
	end func(*operation.Operation) T,
) (result T, err error) {
	if err := ctx.Err(); err != nil {
		return result, err
	}
	if Alone() {
		return whole(), nil
	}
	op := begin()
	if err := For(ctx, op); err != nil {
		return result, err
	}
	return end(op), nil
}

// For parks the goroutine until the operation is ready. On an error it has cancelled the operation.
func For(ctx context.Context, op *operation.Operation) error {
	if op.Ready() {
		return nil
	}
	own := &waiter{op, make(chan bool, 1)}
	parked = append(parked, own)
	if !driving {
		driving = true
		go drive()
	}
	select {
	case ready := <-own.wake:
		if ready {
			return nil
		}
		op.Drop()
		return context.Canceled
	case <-ctx.Done():
		leave(own)
		op.Drop()
		return ctx.Err()
	}
}

// Any parks the goroutine until one of the operations is ready, at least; there must be some. It
// cancels none of them.
func Any(ctx context.Context, operations []*operation.Operation) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if Alone() {
		operation.WaitAny(operations)
		return nil
	}
	// Each of them may wake this goroutine.
	wake := make(chan bool, len(operations))
	own := make([]*waiter, len(operations))
	for place, op := range operations {
		own[place] = &waiter{op, wake}
	}
	parked = append(parked, own...)
	if !driving {
		driving = true
		go drive()
	}
	defer func() {
		for _, waiter := range own {
			leave(waiter)
		}
	}()
	select {
	case ready := <-wake:
		if ready {
			return nil
		}
		return context.Canceled
	case <-ctx.Done():
		return ctx.Err()
	}
}

func leave(gone *waiter) {
	for place, waiter := range parked {
		if waiter == gone {
			parked = append(parked[:place], parked[place+1:]...)
			return
		}
	}
}

// End wakes all that wait: the handler has returned, and what it left behind must not wait on in
// another's request.
func End() {
	for _, waiter := range parked {
		waiter.wake <- false
	}
	parked = parked[:0]
	// What was woken runs until it waits again or ends.
	for turns := 0; turns < 4 && runtime.NumGoroutine() > own; turns++ {
		runtime.Gosched()
	}
}

// Lets the host wait whenever nothing else can run, as long as anybody is parked.
func drive() {
	for len(parked) > 0 {
		// The scheduler takes from its global queue, where this puts us, when the local one is
		// empty, and once in 61 turns all the same: so twice.
		runtime.Gosched()
		runtime.Gosched()
		turn()
	}
	driving = false
}

func turn() {
	if len(parked) == 0 {
		return
	}
	operations := make([]*operation.Operation, len(parked), len(parked)+1)
	for place, waiter := range parked {
		operations[place] = waiter.operation
	}
	if next := timeSleepUntil(); next != never {
		left := time.Duration(next - nanotime())
		if left <= 0 {
			// The scheduler fires it in the next round.
			return
		}
		clock := timers.BeginSleep(Milliseconds(left))
		defer clock.Drop()
		operations = append(operations, clock)
	}
	waiting := parked
	parked = nil
	ready := make([]bool, len(operations))
	for _, place := range operation.WaitAny(operations) {
		ready[place] = true
	}
	for place, waiter := range waiting {
		if ready[place] {
			waiter.wake <- true
		} else {
			parked = append(parked, waiter)
		}
	}
}

// Milliseconds rounds up, so that what is short is not nothing; more than the host can count is the most.
func Milliseconds(time time.Duration) uint32 {
	return uint32(min(Millis(time), 1<<32-1))
}

// Millis is Milliseconds for where the host counts further.
func Millis(time time.Duration) uint64 {
	if time <= 0 {
		return 0
	}
	return uint64((time + 999_999) / 1_000_000)
}
