package cache

import (
	"context"
	"errors"

	"phasor/internal/wait"
	host "phasor/internal/wit/phasor_plugin_cache"
	operation "phasor/internal/wit/phasor_plugin_operation"
)

// One of the values that [Cache.GetBulk] was asked for.
type One[T any] struct {
	Found[T]
	// Err is why there is none.
	Err error
}

// Brought is what a source gave for one of several keys.
type Brought[T any] struct {
	Fresh[T]
	// Err fails this key and no other.
	Err error
}

// A Many brings several values at once, in the order of their keys.
type Many[T any] func(ctx context.Context, missing []string) []Brought[T]

var errTooFew = errors.New("the source gave too few results")

// A look-up that has begun, and the place of its key.
type asked struct {
	place     int
	operation *operation.Operation
}

// A flight that this caller has, and the place of its key.
type flying struct {
	place  int
	flight *host.Flight
}

// GetBulk is several keys at once, in their order. The source is called with the keys that this caller
// is to bring, all together; no flight of this caller is open while it waits for those of others, so
// two such calls do not wait for each other.
func (c *Cache[T]) GetBulk(ctx context.Context, keys []string, options Options, source Many[T]) []One[T] {
	results := make([]One[T], len(keys))
	if err := ctx.Err(); err != nil {
		for place := range results {
			results[place].Err = err
		}
		return results
	}
	var begun []asked
	defer func() {
		for _, asked := range begun {
			asked.operation.Drop()
		}
	}()
	lowered := options.lower()
	var wrong []int
	for place, key := range keys {
		if found, there := c.kept(key); there {
			results[place].Found = found
			continue
		}
		looking := host.BeginGet(c.id, []byte(key), lowered)
		if looking.Tag() == host.LookingLater {
			begun = append(begun, asked{place, looking.Later()})
			continue
		}
		var err error
		if results[place].Found, err = c.decoded(key, looking.Now()); err != nil {
			wrong = append(wrong, place)
		}
	}
	for len(begun) > 0 {
		var ready, later []asked
		var waiting []*operation.Operation
		for _, asked := range begun {
			if asked.operation.Ready() {
				ready = append(ready, asked)
			} else {
				later = append(later, asked)
				waiting = append(waiting, asked.operation)
			}
		}
		if len(ready) > 0 {
			begun = later
			c.settle(ctx, keys, options, ready, source, results)
		} else if err := wait.Any(ctx, waiting); err != nil {
			for _, asked := range begun {
				results[asked.place].Err = err
			}
			break
		}
	}
	c.again(ctx, keys, options, wrong, source, results)
	return results
}

// What cannot be decoded is fetched anew, when no flight is open.
func (c *Cache[T]) again(
	ctx context.Context, keys []string, options Options, wrong []int, source Many[T], results []One[T],
) {
	for _, place := range wrong {
		one := &results[place]
		one.Found, one.Err = c.RenewWith(ctx, keys[place], options, func(ctx context.Context) (Fresh[T], error) {
			return pick(source(ctx, keys[place:place+1]), 0)(ctx)
		})
	}
}

// Takes what was found, and brings what was not.
func (c *Cache[T]) settle(
	ctx context.Context, keys []string, options Options, ready []asked, source Many[T], results []One[T],
) {
	var flights []flying
	// A source that panics hands them to the next in line.
	defer func() {
		for _, own := range flights {
			own.flight.Drop()
		}
	}()
	var missing []string
	var wrong []int
	for _, asked := range ready {
		result, one := host.EndGet(asked.operation), &results[asked.place]
		switch {
		case result.IsErr():
			one.Err = lift(result.Err())
		case result.Ok().Tag() == host.OutcomeMiss:
			flights = append(flights, flying{asked.place, result.Ok().Miss()})
			missing = append(missing, keys[asked.place])
		default:
			var err error
			if one.Found, err = c.decoded(keys[asked.place], result.Ok().Hit()); err != nil {
				wrong = append(wrong, asked.place)
			}
		}
	}
	if len(flights) > 0 {
		brought := source(ctx, missing)
		for place, own := range flights {
			one := &results[own.place]
			one.Found, one.Err = c.fly(ctx, keys[own.place], own.flight, pick(brought, place))
		}
	}
	c.again(ctx, keys, options, wrong, source, results)
}

// One of several results as a source of its own.
func pick[T any](brought []Brought[T], place int) func(ctx context.Context) (Fresh[T], error) {
	return func(context.Context) (Fresh[T], error) {
		if place >= len(brought) {
			return Fresh[T]{}, errTooFew
		}
		return brought[place].Fresh, brought[place].Err
	}
}
