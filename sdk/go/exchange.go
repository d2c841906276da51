package phasor

import (
	"context"
	"errors"
	"runtime"
	"time"

	"phasor/internal/wait"
	values "phasor/internal/wit/phasor_plugin_context"
	exchange "phasor/internal/wit/phasor_plugin_exchange"
	clock "phasor/internal/wit/phasor_plugin_time"
	timers "phasor/internal/wit/phasor_plugin_timers"
	variable "phasor/internal/wit/phasor_plugin_variable"
	witTypes "phasor/internal/wit/types"
)

// ID is 32 hexadecimal digits, the same as `$request_id`.
func (r *Request) ID() string {
	r.live()
	return exchange.Id()
}

// ConnectionInfo is who is at the other end, and where it came in.
type ConnectionInfo = exchange.ConnectionInfo

// Connection carries this request.
func (r *Request) Connection() ConnectionInfo {
	r.live()
	return exchange.Connection()
}

// Exec goes on as another request inside the server, when the handler returns: `@name` is a named
// route, anything else a URI.
func (r *Request) Exec(target string) error {
	r.live()
	if result := exchange.Exec(target); result.IsErr() {
		return errors.New(result.Err())
	}
	return nil
}

// Value is what a plugin has set for the others of this request; nil when none has.
func (r *Request) Value(name string) []byte {
	r.live()
	return values.Get(name).SomeOr(nil)
}

// SetValue sets a value for later handlers, of whatever plugin; nil takes it away.
func (r *Request) SetValue(name string, value []byte) {
	r.live()
	values.Set(name, some(value))
}

// Variable is one of nginx's variables, by name without `$`; empty when it is unset or unknown.
func (r *Request) Variable(name string) string {
	value, _ := r.LookupVariable(name)
	return value
}

// LookupVariable is a variable's value, and whether it has one.
func (r *Request) LookupVariable(name string) (string, bool) {
	r.live()
	return text(variable.Get(name))
}

// Variables gives several in one host call; what is unset is empty.
func (r *Request) Variables(names ...string) []string {
	r.live()
	list := make([]string, len(names))
	for place, value := range variable.GetMany(names) {
		list[place], _ = text(value)
	}
	return list
}

// Errors of a variable that cannot be set.
var (
	// ErrUnknownVariable says that no route declares it with `set`.
	ErrUnknownVariable = errors.New("no such variable: declare it with `set` on the route")
	// ErrReadOnly says that the server computes it.
	ErrReadOnly = errors.New("the variable is computed by the server")
)

// SetVariable sets a variable that the route declares with `set`, or one that nginx lets be set.
func (r *Request) SetVariable(name, value string) error {
	r.live()
	result := variable.Set(name, []byte(value))
	switch {
	case result.IsOk():
		return nil
	case result.Err() == variable.VariableErrorUnknown:
		return ErrUnknownVariable
	default:
		return ErrReadOnly
	}
}

// Now is the worker's time, taken once per turn of its loop; [time.Now] asks the system.
func Now() time.Time {
	return time.UnixMilli(int64(clock.Now()))
}

// CPU is processor time that the worker's thread has used; only differences mean something.
func CPU() time.Duration {
	return time.Duration(clock.Cpu())
}

// Sleep suspends the goroutine; nothing of a time lets others run first. It ends early with the
// context's error.
func Sleep(ctx context.Context, delay time.Duration) error {
	if delay <= 0 {
		runtime.Gosched()
		timers.Sleep(0)
		return ctx.Err()
	}
	_, err := wait.Call(ctx,
		func() (unit witTypes.Unit) { timers.Sleep(wait.Milliseconds(delay)); return unit },
		func() *timers.Operation { return timers.BeginSleep(wait.Milliseconds(delay)) },
		func(op *timers.Operation) (unit witTypes.Unit) { timers.EndSleep(op); return unit },
	)
	return err
}
