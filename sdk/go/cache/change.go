package cache

import (
	"context"
	"time"

	"phasor/internal/wait"
	host "phasor/internal/wit/phasor_plugin_cache"
	operation "phasor/internal/wit/phasor_plugin_operation"
	witTypes "phasor/internal/wit/types"
)

type changed = witTypes.Result[host.Stamp, host.CacheError]

func change(ctx context.Context, whole func() changed, begin func() *operation.Operation) (host.Stamp, error) {
	result, err := wait.Call(ctx, whole, begin, host.EndChange)
	if err != nil {
		return host.Stamp{}, err
	}
	if result.IsErr() {
		return host.Stamp{}, lift(result.Err())
	}
	return result.Ok(), nil
}

// Peeked is what the process's memory holds.
type Peeked[T any] struct {
	// Value may be nil: that there is none is an answer, too.
	Value *T
	// Remaining is the time left; nil is for ever, negative is over.
	Remaining *time.Duration
}

// Peek looks in the process's memory only, and asks nobody; nil when nothing is there. With stale it
// gives an expired value, too.
func (c *Cache[T]) Peek(key string, stale bool) *Peeked[T] {
	option := host.Peek(c.id, []byte(key), stale)
	if option.IsNone() {
		return nil
	}
	found, peeked := option.Some(), &Peeked[T]{}
	if found.Value.IsSome() {
		value, err := c.codec.Decode(found.Value.Some())
		if err != nil {
			return nil
		}
		peeked.Value = value
	}
	if found.Remaining.IsSome() {
		left := time.Duration(found.Remaining.Some()) * time.Millisecond
		peeked.Remaining = &left
	}
	return peeked
}

// Set stores; every worker sees it when this returns. A nil says that there is none.
func (c *Cache[T]) Set(ctx context.Context, key string, value *T, options Options) error {
	bytes, err := c.encoded(value)
	if err != nil {
		return err
	}
	c.copies.forget(key)
	name, lowered := []byte(key), options.lower()
	stamp, err := change(ctx,
		func() changed { return host.Set(c.id, name, bytes, lowered) },
		func() *operation.Operation { return host.BeginSet(c.id, name, bytes, lowered) },
	)
	if err == nil {
		c.copies.keep(key, value, stamp)
	}
	return err
}

// Delete takes a key away; every worker sees it when this returns.
func (c *Cache[T]) Delete(ctx context.Context, key string) error {
	c.copies.forget(key)
	_, err := change(ctx,
		func() changed { return host.Delete(c.id, []byte(key)) },
		func() *operation.Operation { return host.BeginDelete(c.id, []byte(key)) },
	)
	return err
}

// Purge empties this cache, and no other; every worker sees it when this returns.
func (c *Cache[T]) Purge(ctx context.Context) error {
	c.copies = newCopies[T](uint32(c.copies.most))
	_, err := change(ctx,
		func() changed { return host.Purge(c.id) },
		func() *operation.Operation { return host.BeginPurge(c.id) },
	)
	return err
}

// Answers of routes (`cache` on a route); one of the fields says which.
type Answers struct {
	// Key is a URI, and all answers of it.
	Key string
	// Prefix is what their keys begin with.
	Prefix string
	// Tag is named in their Surrogate-Key or Cache-Tag.
	Tag string
}

func (a Answers) lower() host.Answers {
	switch {
	case a.Key != "":
		return host.MakeAnswersKey([]byte(a.Key))
	case a.Prefix != "":
		return host.MakeAnswersPrefix([]byte(a.Prefix))
	default:
		return host.MakeAnswersTagged([]byte(a.Tag))
	}
}

// PurgeAnswers purges answers of routes that this cache keeps; no worker serves them when this returns.
func (c *Cache[T]) PurgeAnswers(ctx context.Context, answers Answers) error {
	lowered := answers.lower()
	_, err := change(ctx,
		func() changed { return host.PurgeAnswers(c.id, lowered) },
		func() *operation.Operation { return host.BeginPurgeAnswers(c.id, lowered) },
	)
	return err
}

// Counters are what was counted since the process started, by name: see docs/cache.md.
func (c *Cache[T]) Counters() map[string]uint64 {
	counters := map[string]uint64{}
	for _, counter := range host.Counters(c.id) {
		counters[counter.F0] = counter.F1
	}
	return counters
}
