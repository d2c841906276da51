// Package cache is the tiered cache (`[cache.NAME]`): decoded values in the instance, bytes in the
// process and behind it, and a source that is asked once however many want the value. It needs
// `allow.cache`.
//
//	var products *cache.Cache[Product]
//
//	product, err := products.Get(ctx, "42", func(ctx context.Context) (*Product, error) {
//		return load(ctx, 42)
//	})
//
// An open [Cache] keeps decoded values; hold it in a package variable to profit by that. A kept value
// is given only while the host says that nothing has changed it, in any worker. It is shared: do not
// change what it points to.
package cache

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	"phasor/errorlog"
	"phasor/internal/wait"
	host "phasor/internal/wit/phasor_plugin_cache"
	operation "phasor/internal/wit/phasor_plugin_operation"
	witTypes "phasor/internal/wit/types"
	"phasor/timers"
)

// A Kind tells errors apart.
type Kind uint8

// Why there is neither a value nor a flight.
const (
	// UnknownCache: there is no such cache.
	UnknownCache = Kind(host.CacheErrorUnknownCache)
	// Refused: `allow.cache` does not name it.
	Refused = Kind(host.CacheErrorRefused)
	// Timeout: another's flight took longer than the caller would wait.
	Timeout = Kind(host.CacheErrorTimeout)
	// Busy: as many wait as may.
	Busy = Kind(host.CacheErrorBusy)
	// InvalidKey: the key is empty or longer than 64 KiB.
	InvalidKey = Kind(host.CacheErrorInvalidKey)
	// TooLarge: the value is longer than the cache takes.
	TooLarge = Kind(host.CacheErrorTooLarge)
	// Lost: the flight is not the caller's any more.
	Lost = Kind(host.CacheErrorLost)
	// Source: whoever had the flight gave up, for this reason.
	Source = Kind(host.CacheErrorSource)
)

// An Error says why there is no value. Take it out of an error with [errors.As].
type Error struct {
	Kind Kind
	// Text is more about it; may be empty.
	Text string
}

func (e *Error) Error() string {
	name := [...]string{
		"no such cache", "`allow.cache` does not name the cache", "timeout", "too many wait",
		"the key is empty or too long", "too large", "lost", "source",
	}[e.Kind]
	if e.Text == "" {
		return "cache: " + name
	}
	return "cache: " + name + ": " + e.Text
}

func lift(e host.CacheError) error {
	switch kind := Kind(e.Tag()); kind {
	case TooLarge:
		return &Error{kind, fmt.Sprintf("more than %d bytes", e.TooLarge())}
	case Source:
		return &Error{kind, e.Source()}
	default:
		return &Error{kind, ""}
	}
}

// A Codec makes bytes of values and values of bytes. What cannot be decoded is fetched anew.
type Codec[T any] struct {
	Encode func(value *T) ([]byte, error)
	Decode func(bytes []byte) (*T, error)
}

// JSON is the codec of a cache that was opened without one.
func JSON[T any]() Codec[T] {
	return Codec[T]{
		Encode: func(value *T) ([]byte, error) { return json.Marshal(value) },
		Decode: func(bytes []byte) (*T, error) {
			value := new(T)
			return value, json.Unmarshal(bytes, value)
		},
	}
}

// Bytes is the codec of a cache of bytes as they are.
func Bytes() Codec[[]byte] {
	return Codec[[]byte]{
		Encode: func(value *[]byte) ([]byte, error) { return *value, nil },
		Decode: func(bytes []byte) (*[]byte, error) { return &bytes, nil },
	}
}

// Options are what a call wants otherwise than `[cache.NAME]` says; nil is what that says.
type Options struct {
	// TTL is how long a value lives; nothing is for ever.
	TTL *time.Duration
	// NegativeTTL is how long it is remembered that there is none.
	NegativeTTL *time.Duration
	// Stale is how long past its time a value may still serve when its source fails.
	Stale *time.Duration
	// Retry is how long the source of a stale value is left alone after it failed.
	Retry *time.Duration
	// Wait is how long to wait for another's flight.
	Wait *time.Duration
}

func optional(time *time.Duration) witTypes.Option[uint64] {
	if time == nil {
		return witTypes.None[uint64]()
	}
	return witTypes.Some(wait.Millis(*time))
}

func (o Options) lower() host.Options {
	return host.Options{
		Ttl:         optional(o.TTL),
		NegativeTtl: optional(o.NegativeTTL),
		Stale:       optional(o.Stale),
		Retry:       optional(o.Retry),
		Wait:        optional(o.Wait),
	}
}

// Fresh is what a source gave.
type Fresh[T any] struct {
	// Value may be nil: that there is none is remembered, too.
	Value *T
	// TTL is the value's own; nil is the cache's.
	TTL *time.Duration
	// Pass gives it to all who wait, and stores nothing.
	Pass bool
}

// A Level is where a value was.
type Level uint8

// The levels.
const (
	// Memory of the process.
	Memory = Level(host.LevelMemory)
	// Disk of this machine.
	Disk = Level(host.LevelDisk)
	// Remote is Redis.
	Remote = Level(host.LevelRemote)
	// Callback is the source.
	Callback = Level(host.LevelCallback)
	// Instance is this instance itself.
	Instance = Level(host.LevelCallback + 1)
)

// Found is a value, and where it came from.
type Found[T any] struct {
	// Value may be nil: that there is none is an answer, too.
	Value *T
	// Level is where it was.
	Level Level
	// Stale: past its time to live, and given because that is allowed now.
	Stale bool
}

// Key makes several parts one key in which they cannot run into each other.
func Key(parts ...string) string {
	var key []byte
	for _, part := range parts {
		key = binary.LittleEndian.AppendUint64(key, uint64(len(part)))
		key = append(key, part...)
	}
	return string(key)
}

// A Cache of the configuration, with the values that this instance has decoded.
type Cache[T any] struct {
	id     uint32
	codec  Codec[T]
	copies copies[T]
}

// Open opens a cache by name; its values are JSON.
func Open[T any](name string) (*Cache[T], error) {
	return OpenWith(name, JSON[T]())
}

// OpenWith opens a cache by name, with a codec of your own.
func OpenWith[T any](name string, codec Codec[T]) (*Cache[T], error) {
	result := host.Open(name)
	if result.IsErr() {
		return nil, lift(result.Err())
	}
	opened := result.Ok()
	return &Cache[T]{opened.Id, codec, newCopies[T](opened.Items)}, nil
}

// Get is the value, or what the source gives; one at a time asks the source of a key, all others wait
// for what it gives. A source that gives nil says that there is none.
func (c *Cache[T]) Get(ctx context.Context, key string, source func(ctx context.Context) (*T, error)) (*T, error) {
	found, err := c.GetWith(ctx, key, Options{}, func(ctx context.Context) (Fresh[T], error) {
		value, err := source(ctx)
		return Fresh[T]{Value: value}, err
	})
	return found.Value, err
}

type outcome = witTypes.Result[host.Outcome, host.CacheError]

// GetWith is Get with options, from a source that may say how long its value lives; it tells where
// the value was.
func (c *Cache[T]) GetWith(
	ctx context.Context, key string, options Options, source func(ctx context.Context) (Fresh[T], error),
) (Found[T], error) {
	return c.find(ctx, key, options, source, func(flight *host.Flight) (Found[T], error) {
		return c.fly(ctx, key, flight, source)
	})
}

// What an instance or a level has; who gets the flight does miss.
func (c *Cache[T]) find(
	ctx context.Context, key string, options Options, source func(ctx context.Context) (Fresh[T], error),
	miss func(flight *host.Flight) (Found[T], error),
) (Found[T], error) {
	if found, there := c.kept(key); there {
		return found, nil
	}
	outcome, err := c.look(ctx, key, options)
	switch {
	case err != nil:
		return Found[T]{}, err
	case outcome.Tag() == host.OutcomeMiss:
		return miss(outcome.Miss())
	}
	if found, err := c.decoded(key, outcome.Hit()); err == nil {
		return found, nil
	}
	return c.RenewWith(ctx, key, options, source)
}

// GetBackground is GetWith that does not wait either when the flight is this caller's: where the older
// value may serve (`revalidate`, `refresh_ahead`, `stale`), and is over for no longer than late, it is
// given at once, and the source is called in this instance afterwards ([timers.Afterwards]), with a
// context that is not the request's.
func (c *Cache[T]) GetBackground(
	ctx context.Context, key string, options Options, late time.Duration,
	source func(ctx context.Context) (Fresh[T], error),
) (Found[T], error) {
	return c.find(ctx, key, options, source, func(flight *host.Flight) (Found[T], error) {
		old, serves := c.meanwhile(key, flight, late)
		if !serves {
			return c.fly(ctx, key, flight, source)
		}
		err := timers.Afterwards(func(ctx context.Context) {
			if _, err := c.fly(ctx, key, flight, source); err != nil {
				errorlog.Errorf("cache: a refresh in the background failed: %v", err)
			}
		})
		if err != nil {
			errorlog.Warnf("cache: no refresh in the background: %v", err)
			return c.fly(ctx, key, flight, source)
		}
		return old, nil
	})
}

// What may serve while a flight brings a new value.
func (c *Cache[T]) meanwhile(key string, flight *host.Flight, late time.Duration) (Found[T], bool) {
	stale := flight.Stale()
	if stale.IsNone() {
		return Found[T]{}, false
	}
	old := stale.Some()
	if old.Remaining.IsSome() && old.Remaining.Some() <= -late.Milliseconds() {
		return Found[T]{}, false
	}
	found, err := c.decoded(key, old)
	return found, err == nil
}

// Looks in all levels; what memory has costs no operation.
func (c *Cache[T]) look(ctx context.Context, key string, options Options) (host.Outcome, error) {
	if err := ctx.Err(); err != nil {
		return host.Outcome{}, err
	}
	looking := host.BeginGet(c.id, []byte(key), options.lower())
	if looking.Tag() == host.LookingNow {
		return host.MakeOutcomeHit(looking.Now()), nil
	}
	op := looking.Later()
	if !wait.Alone() {
		if err := wait.For(ctx, op); err != nil {
			return host.Outcome{}, err
		}
	}
	result := host.EndGet(op)
	if result.IsErr() {
		return host.Outcome{}, lift(result.Err())
	}
	return result.Ok(), nil
}

// RenewWith asks the source although a value is there, and stores what it gives.
func (c *Cache[T]) RenewWith(
	ctx context.Context, key string, options Options, source func(ctx context.Context) (Fresh[T], error),
) (Found[T], error) {
	name, lowered := []byte(key), options.lower()
	result, err := wait.Call(ctx,
		func() outcome { return host.Renew(c.id, name, lowered) },
		func() *operation.Operation { return host.BeginRenew(c.id, name, lowered) },
		host.EndGet,
	)
	switch {
	case err != nil:
		return Found[T]{}, err
	case result.IsErr():
		return Found[T]{}, lift(result.Err())
	case result.Ok().Tag() == host.OutcomeMiss:
		return c.fly(ctx, key, result.Ok().Miss(), source)
	}
	return c.decoded(key, result.Ok().Hit())
}

// What this instance has, if nothing has changed it.
func (c *Cache[T]) kept(key string) (Found[T], bool) {
	kept, there := c.copies.find(key)
	if there && host.Fresh(c.id, kept.stamp.Slot, kept.stamp.Version, kept.stamp.Until) {
		return Found[T]{kept.value, Instance, false}, true
	}
	return Found[T]{}, false
}

func (c *Cache[T]) decoded(key string, found host.Found) (Found[T], error) {
	var value *T
	if found.Value.IsSome() {
		var err error
		if value, err = c.codec.Decode(found.Value.Some()); err != nil {
			return Found[T]{}, &Error{Source, "what was stored is no such value: " + err.Error()}
		}
	}
	// What is stale is said to be so each time.
	if !found.Stale {
		c.copies.keep(key, value, found.Stamp)
	}
	return Found[T]{value, Level(found.Level), found.Stale}, nil
}

func (c *Cache[T]) encoded(value *T) (witTypes.Option[[]byte], error) {
	if value == nil {
		return witTypes.None[[]byte](), nil
	}
	bytes, err := c.codec.Encode(value)
	return witTypes.Some(bytes), err
}

// Brings the value. A source that panics, or whose goroutine ends, hands the flight to the next in line.
func (c *Cache[T]) fly(
	ctx context.Context, key string, flight *host.Flight, source func(ctx context.Context) (Fresh[T], error),
) (Found[T], error) {
	defer flight.Drop()
	fresh, err := source(ctx)
	var bytes witTypes.Option[[]byte]
	if err == nil {
		bytes, err = c.encoded(fresh.Value)
	}
	if err != nil {
		if old := flight.Fail(err.Error()); old.IsSome() {
			return c.decoded(key, old.Some())
		}
		return Found[T]{}, err
	}
	if fresh.Pass {
		c.copies.forget(key)
		if result := flight.Pass(bytes); result.IsErr() {
			return Found[T]{}, lift(result.Err())
		}
		return Found[T]{fresh.Value, Callback, false}, nil
	}
	ttl := optional(fresh.TTL)
	result, err := wait.Call(ctx,
		func() changed { return flight.Fill(bytes, ttl) },
		func() *operation.Operation { return flight.BeginFill(bytes, ttl) },
		host.FlightEndFill,
	)
	// Not stored (too long, or changed meanwhile): the caller has its value even so.
	if err == nil && result.IsOk() {
		c.copies.keep(key, fresh.Value, result.Ok())
	} else {
		c.copies.forget(key)
	}
	return Found[T]{fresh.Value, Callback, false}, nil
}
