// Package redis speaks with Redis by its name in the configuration (`[redis.NAME]`). It needs
// `allow.redis`.
//
// All requests of a worker share one connection to each Redis: commands go out as they come, and
// each caller gets its own reply.
package redis

import (
	"context"
	"fmt"

	"phasor/internal/wait"
	operation "phasor/internal/wit/phasor_plugin_operation"
	host "phasor/internal/wit/phasor_plugin_redis"
	witTypes "phasor/internal/wit/types"
)

// A Kind tells errors apart.
type Kind uint8

// Why there is no reply.
const (
	// Timeout: no reply in time; the command may have been carried out.
	Timeout = Kind(host.RedisErrorTimeout)
	// Unavailable: the server cannot be reached, or the connection broke.
	Unavailable = Kind(host.RedisErrorUnavailable)
	// BreakerOpen: the server was away just now and is not asked: nothing was sent.
	BreakerOpen = Kind(host.RedisErrorBreakerOpen)
	// Busy: as many commands wait as may: nothing was sent.
	Busy = Kind(host.RedisErrorBusy)
	// Refused: `allow.redis` does not cover it: nothing was sent.
	Refused = Kind(host.RedisErrorRefused)
	// UnknownRedis: there is no `[redis.NAME]`.
	UnknownRedis = Kind(host.RedisErrorUnknownRedis)
	// TooLarge: the reply is longer than the limit.
	TooLarge = Kind(host.RedisErrorTooLarge)
	// Invalid: it cannot be sent on a shared connection.
	Invalid = Kind(host.RedisErrorInvalid)
	// Failed: what Redis says, `WRONGTYPE …`.
	Failed = Kind(host.RedisErrorFailed)
)

// An Error says why there is no reply. Take it out of an error with [errors.As].
type Error struct {
	Kind Kind
	// Text is more about it; may be empty.
	Text string
}

func (e *Error) Error() string {
	name := [...]string{
		"timeout", "unavailable", "breaker open", "busy", "refused", "unknown redis", "too large", "invalid", "failed",
	}[e.Kind]
	if e.Kind == Failed {
		return e.Text
	}
	if e.Text == "" {
		return "redis: " + name
	}
	return "redis: " + name + ": " + e.Text
}

func lift(e host.RedisError) error {
	kind, text := Kind(e.Tag()), ""
	switch kind {
	case Unavailable:
		text = e.Unavailable()
	case Refused:
		text = e.Refused()
	case TooLarge:
		text = fmt.Sprintf("more than %d bytes", e.TooLarge())
	case Invalid:
		text = e.Invalid()
	case Failed:
		text = e.Failed()
	}
	return &Error{kind, text}
}

// An Argument of a command is a string or bytes.
type Argument interface{ ~string | ~[]byte }

func words[A Argument](arguments []A) [][]byte {
	words := make([][]byte, len(arguments))
	for place, argument := range arguments {
		words[place] = []byte(argument)
	}
	return words
}

type one = witTypes.Result[host.Reply, host.RedisError]
type many = witTypes.Result[[]host.Reply, host.RedisError]

func single(result one, err error) (Reply, error) {
	if err != nil {
		return Reply{}, err
	}
	if result.IsErr() {
		return Reply{}, lift(result.Err())
	}
	return reply(result.Ok()), nil
}

func several(result many, err error) ([]Reply, error) {
	if err != nil {
		return nil, err
	}
	if result.IsErr() {
		return nil, lift(result.Err())
	}
	replies := make([]Reply, len(result.Ok()))
	for place, one := range result.Ok() {
		replies[place] = reply(one)
	}
	return replies, nil
}

// Command sends one command: its name, then its arguments.
func Command[A Argument](ctx context.Context, redis string, arguments ...A) (Reply, error) {
	command := words(arguments)
	return single(wait.Call(ctx,
		func() one { return host.Command(redis, command) },
		func() *operation.Operation { return host.BeginCommand(redis, command) },
		host.EndCommand,
	))
}

// Get is the string under a key, and whether there is one.
func Get(ctx context.Context, redis, key string) (string, bool, error) {
	reply, err := Command(ctx, redis, "GET", key)
	text, there := reply.Text()
	return text, there, err
}

// Pipeline sends several commands in one round trip; the error of one is its reply.
func Pipeline[A Argument](ctx context.Context, redis string, commands ...[]A) ([]Reply, error) {
	list := lower(commands)
	return several(wait.Call(ctx,
		func() many { return host.Pipeline(redis, list) },
		func() *operation.Operation { return host.BeginPipeline(redis, list) },
		host.EndPipeline,
	))
}

// Transaction sends several commands between MULTI and EXEC: no other client's comes between them.
func Transaction[A Argument](ctx context.Context, redis string, commands ...[]A) ([]Reply, error) {
	list := lower(commands)
	return several(wait.Call(ctx,
		func() many { return host.Transaction(redis, list) },
		func() *operation.Operation { return host.BeginTransaction(redis, list) },
		host.EndPipeline,
	))
}

func lower[A Argument](commands [][]A) [][][]byte {
	list := make([][][]byte, len(commands))
	for place, command := range commands {
		list[place] = words(command)
	}
	return list
}

// Eval runs a Lua script in Redis: by its digest, and by its text where the server does not have it.
func Eval[A Argument](ctx context.Context, redis, script string, keys []string, arguments ...A) (Reply, error) {
	body, names, values := []byte(script), words(keys), words(arguments)
	return single(wait.Call(ctx,
		func() one { return host.Eval(redis, body, names, values) },
		func() *operation.Operation { return host.BeginEval(redis, body, names, values) },
		host.EndCommand,
	))
}

// A Message is what came on a channel.
type Message struct {
	Channel string
	// Pattern is the one that fitted; empty when it was subscribed by name.
	Pattern string
	Payload []byte
}

// A Subscription gives the messages of channels, on a connection of its own. Close it.
type Subscription struct {
	host *host.Subscription
}

// Subscribe subscribes to channels and to patterns of channels.
func Subscribe(ctx context.Context, redis string, channels, patterns []string) (*Subscription, error) {
	names, globs := words(channels), words(patterns)
	result, err := wait.Call(ctx,
		func() witTypes.Result[*host.Subscription, host.RedisError] {
			return host.SubscriptionSubscribe(redis, names, globs)
		},
		func() *operation.Operation { return host.SubscriptionBeginSubscribe(redis, names, globs) },
		host.SubscriptionEndSubscribe,
	)
	if err != nil {
		return nil, err
	}
	if result.IsErr() {
		return nil, lift(result.Err())
	}
	return &Subscription{result.Ok()}, nil
}

// Next waits for a message. An error that is not the context's ends the subscription.
func (s *Subscription) Next(ctx context.Context) (Message, error) {
	result, err := wait.Call(ctx, s.host.Next, s.host.BeginNext, host.SubscriptionEndNext)
	if err != nil {
		return Message{}, err
	}
	if result.IsErr() {
		return Message{}, lift(result.Err())
	}
	message := result.Ok()
	return Message{
		Channel: string(message.Channel),
		Pattern: string(message.Pattern.SomeOr(nil)),
		Payload: message.Payload,
	}, nil
}

// Close ends the subscription.
func (s *Subscription) Close() error {
	s.host.Drop()
	return nil
}
