// Package witTypes holds the shapes of the contract that Go has no types for: options, results and
// tuples. The generated bindings use them, and handlers do, too.
package witTypes

// Unit is the value of a result that has none.
type Unit struct{}

// Tags of an Option.
const (
	OptionNone = 0
	OptionSome = 1
)

// Option is a value, or none.
type Option[T any] struct {
	tag   uint8
	value T
}

// None is an option without a value.
func None[T any]() (none Option[T]) { return none }

// Some is an option with a value.
func Some[T any](value T) Option[T] { return Option[T]{OptionSome, value} }

// Tag tells which case it is.
func (o Option[T]) Tag() uint8 { return o.tag }

// IsSome tells whether there is a value.
func (o Option[T]) IsSome() bool { return o.tag == OptionSome }

// IsNone tells whether there is none.
func (o Option[T]) IsNone() bool { return o.tag == OptionNone }

// Some gives the value, and panics when there is none.
func (o Option[T]) Some() T {
	if o.tag != OptionSome {
		panic("an option without a value was asked for it")
	}
	return o.value
}

// SomeOr gives the value, or the other one when there is none.
func (o Option[T]) SomeOr(other T) T {
	if o.tag != OptionSome {
		return other
	}
	return o.value
}

// Tags of a Result.
const (
	ResultOk  = 0
	ResultErr = 1
)

// Result is an outcome, good or bad.
type Result[T any, E any] struct {
	tag uint8
	ok  T
	err E
}

// Ok is a good outcome.
func Ok[T any, E any](value T) Result[T, E] { return Result[T, E]{tag: ResultOk, ok: value} }

// Err is a bad outcome.
func Err[T any, E any](err E) Result[T, E] { return Result[T, E]{tag: ResultErr, err: err} }

// Tag tells which case it is.
func (r Result[T, E]) Tag() uint8 { return r.tag }

// IsOk tells whether the outcome is good.
func (r Result[T, E]) IsOk() bool { return r.tag == ResultOk }

// IsErr tells whether the outcome is bad.
func (r Result[T, E]) IsErr() bool { return r.tag == ResultErr }

// Ok gives the value, and panics when the outcome is bad.
func (r Result[T, E]) Ok() T {
	if r.tag != ResultOk {
		panic("a bad result was asked for its value")
	}
	return r.ok
}

// Err gives the error, and panics when the outcome is good.
func (r Result[T, E]) Err() E {
	if r.tag != ResultErr {
		panic("a good result was asked for its error")
	}
	return r.err
}

// Tuple2 is two values.
type Tuple2[A any, B any] struct {
	F0 A
	F1 B
}

// Tuple3 is three values.
type Tuple3[A any, B any, C any] struct {
	F0 A
	F1 B
	F2 C
}
