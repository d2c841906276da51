// Package shareddict is the shared dicts (`[shared.NAME]`): values that all workers see. It needs
// `allow.shared`.
package shareddict

import (
	"context"
	"time"

	"phasor/internal/wait"
	operation "phasor/internal/wit/phasor_plugin_operation"
	host "phasor/internal/wit/phasor_plugin_shared_dict"
	witTypes "phasor/internal/wit/types"
)

// An Error says why an operation failed, with OpenResty's text.
type Error uint8

// The errors.
const (
	ErrUnknownDict = Error(host.DictErrorUnknownDict)
	ErrRefused     = Error(host.DictErrorRefused)
	ErrNotFound    = Error(host.DictErrorNotFound)
	ErrExists      = Error(host.DictErrorExists)
	ErrNoMemory    = Error(host.DictErrorNoMemory)
	ErrNotANumber  = Error(host.DictErrorNotANumber)
	ErrIsAList     = Error(host.DictErrorIsAList)
	ErrNotAList    = Error(host.DictErrorNotAList)
	ErrInvalid     = Error(host.DictErrorInvalid)
	ErrBusy        = Error(host.DictErrorBusy)
)

func (e Error) Error() string {
	return [...]string{
		"no such dict", "`allow.shared` does not name the dict", "not found", "exists", "no memory",
		"not a number", "value is a list", "value not a list", "invalid key or value", "too many waits",
	}[e]
}

// A Value is nil, a bool, a float64 or a []byte. What is stored may also be a string or an int.
type Value any

func lower(value Value) (host.Value, error) {
	switch value := value.(type) {
	case nil:
		return host.MakeValueNil(), nil
	case bool:
		return host.MakeValueBoolean(value), nil
	case float64:
		return host.MakeValueNumber(value), nil
	case int:
		return host.MakeValueNumber(float64(value)), nil
	case string:
		return host.MakeValueBytes([]byte(value)), nil
	case []byte:
		return host.MakeValueBytes(value), nil
	default:
		return host.MakeValueNil(), ErrInvalid
	}
}

func lift(value host.Value) Value {
	switch value.Tag() {
	case host.ValueBoolean:
		return value.Boolean()
	case host.ValueNumber:
		return value.Number()
	case host.ValueBytes:
		return value.Bytes()
	default:
		return nil
	}
}

func outcome[T any](result witTypes.Result[T, host.DictError]) (value T, err error) {
	if result.IsErr() {
		return value, Error(result.Err())
	}
	return result.Ok(), nil
}

func failure[T any](result witTypes.Result[T, host.DictError]) error {
	_, err := outcome(result)
	return err
}

// An Entry is a value with what stands beside it.
type Entry struct {
	Value Value
	// Flags are the caller's own.
	Flags uint32
	// Stale tells whether it has expired.
	Stale bool
}

// A Mode is how to store.
type Mode = host.Mode

// The modes.
const (
	ModeSet     = host.ModeSet
	ModeSafeSet = host.ModeSafeSet
	ModeAdd     = host.ModeAdd
	ModeSafeAdd = host.ModeSafeAdd
	ModeReplace = host.ModeReplace
)

// A Side is where a list is pushed to or popped from.
type Side = host.Side

// The sides.
const (
	Left  = host.SideLeft
	Right = host.SideRight
)

// A Dict was found once by name; keep it.
type Dict struct {
	host *host.Dict
}

// Open finds a dict by its name in the configuration.
func Open(name string) (*Dict, error) {
	dict, err := outcome(host.DictOpen(name))
	if err != nil {
		return nil, err
	}
	return &Dict{dict}, nil
}

// Get is the live value under a key; nil when there is none.
func (d *Dict) Get(key string) (Value, error) {
	entry, err := outcome(d.host.Get([]byte(key), false))
	if err != nil || entry.IsNone() {
		return nil, err
	}
	return lift(entry.Some().Value), nil
}

// GetStale is the value with its flags, also when it has expired and is still there; nil when there is none.
func (d *Dict) GetStale(key string) (*Entry, error) {
	entry, err := outcome(d.host.Get([]byte(key), true))
	if err != nil || entry.IsNone() {
		return nil, err
	}
	found := entry.Some()
	return &Entry{lift(found.Value), found.Flags, found.Stale}, nil
}

// Set stores a value for ever.
func (d *Dict) Set(key string, value Value) error {
	_, err := d.Store(ModeSet, key, value, 0, 0)
	return err
}

// SetFor stores a value for a time.
func (d *Dict) SetFor(key string, value Value, ttl time.Duration) error {
	_, err := d.Store(ModeSet, key, value, ttl, 0)
	return err
}

// Add stores a value if there is no live one under the key.
func (d *Dict) Add(key string, value Value) error {
	_, err := d.Store(ModeAdd, key, value, 0, 0)
	return err
}

// Store stores in any way; no time to live is for ever. True when other live entries were evicted.
func (d *Dict) Store(mode Mode, key string, value Value, ttl time.Duration, flags uint32) (bool, error) {
	given, err := lower(value)
	if err != nil {
		return false, err
	}
	return outcome(d.host.Store(mode, []byte(key), given, wait.Millis(ttl), flags))
}

// Incr adds to a number that is there, and gives the new one.
func (d *Dict) Incr(key string, by float64) (float64, error) {
	number, err := outcome(d.host.Incr([]byte(key), by, witTypes.None[float64](), 0))
	return number.F0, err
}

// IncrFrom is Incr of a number that, when it is absent, begins with init and lives for ttl (none: for
// ever): a counter per window.
func (d *Dict) IncrFrom(key string, by, init float64, ttl time.Duration) (float64, error) {
	number, err := outcome(d.host.Incr([]byte(key), by, witTypes.Some(init), wait.Millis(ttl)))
	return number.F0, err
}

// CompareAndSwap stores the new value if what is there equals the old one, in one step; nil stands for
// "nothing" in both. False when something else is there.
func (d *Dict) CompareAndSwap(key string, old, new Value, ttl time.Duration) (bool, error) {
	from, err := lower(old)
	if err != nil {
		return false, err
	}
	to, err := lower(new)
	if err != nil {
		return false, err
	}
	return outcome(d.host.CompareAndSwap([]byte(key), from, to, wait.Millis(ttl), 0))
}

// Wait waits until what is under a key is another value than seen, expiry included, or until Wake
// chooses this waiter; false when the time is over before. It may end early.
func (d *Dict) Wait(ctx context.Context, key string, seen Value, timeout time.Duration) (bool, error) {
	last, err := lower(seen)
	if err != nil {
		return false, err
	}
	result, err := wait.Call(ctx,
		func() witTypes.Result[bool, host.DictError] {
			return host.Wait(d.host, []byte(key), last, wait.Millis(timeout))
		},
		func() *operation.Operation {
			return host.BeginWait(d.host, []byte(key), last, wait.Millis(timeout))
		},
		host.EndWait,
	)
	if err != nil {
		return false, err
	}
	return outcome(result)
}

// AddInTurn stores a value as soon as nothing is under the key, for ttl (nothing is for ever). Those who
// wait here for the same key have their turns in the order in which they came; false when the time is
// over before.
func (d *Dict) AddInTurn(ctx context.Context, key string, value Value, ttl, timeout time.Duration) (bool, error) {
	given, err := lower(value)
	if err != nil {
		return false, err
	}
	life, most := wait.Millis(ttl), wait.Millis(timeout)
	result, err := wait.Call(ctx,
		func() witTypes.Result[bool, host.DictError] {
			return host.AddInTurn(d.host, []byte(key), given, life, most)
		},
		func() *operation.Operation {
			return host.BeginAddInTurn(d.host, []byte(key), given, life, most)
		},
		host.EndWait,
	)
	if err != nil {
		return false, err
	}
	return outcome(result)
}

// Wake wakes the one that waits for a key longest; false when nobody does.
func (d *Dict) Wake(key string) bool { return d.host.Wake([]byte(key)) }

// Delete takes an entry away.
func (d *Dict) Delete(key string) error { return failure(d.host.Delete([]byte(key))) }

// TTL is the time that is left; nothing is for ever.
func (d *Dict) TTL(key string) (time.Duration, error) {
	left, err := outcome(d.host.Ttl([]byte(key)))
	return time.Duration(left) * time.Millisecond, err
}

// Expire gives an entry a new time to live; nothing is for ever.
func (d *Dict) Expire(key string, ttl time.Duration) error {
	return failure(d.host.Expire([]byte(key), wait.Millis(ttl)))
}

// Push pushes onto a list, and gives its length.
func (d *Dict) Push(side Side, key string, value Value) (int, error) {
	given, err := lower(value)
	if err != nil {
		return 0, err
	}
	length, err := outcome(d.host.Push(side, []byte(key), given))
	return int(length), err
}

// Pop pops from a list; nil when it is empty.
func (d *Dict) Pop(side Side, key string) (Value, error) {
	value, err := outcome(d.host.Pop(side, []byte(key)))
	if err != nil || value.IsNone() {
		return nil, err
	}
	return lift(value.Some()), nil
}

// ListLen is a list's length; 0 when there is none.
func (d *Dict) ListLen(key string) (int, error) {
	length, err := outcome(d.host.Len([]byte(key)))
	return int(length), err
}

// FlushAll expires everything at once.
func (d *Dict) FlushAll() { d.host.FlushAll() }

// FlushExpired frees at most so many expired entries (0: all), and says how many.
func (d *Dict) FlushExpired(most uint32) int { return int(d.host.FlushExpired(most)) }

// Keys are at most so many keys (0: all).
func (d *Dict) Keys(most uint32) []string {
	keys := d.host.GetKeys(most)
	list := make([]string, len(keys))
	for place, key := range keys {
		list[place] = string(key)
	}
	return list
}

// Capacity is the configured size in bytes.
func (d *Dict) Capacity() uint64 { return d.host.Capacity() }

// FreeSpace is the bytes that are free.
func (d *Dict) FreeSpace() uint64 { return d.host.FreeSpace() }
