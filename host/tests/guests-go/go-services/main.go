// Every phase of a request in Go, and the host's services; the path says what.
package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"phasor"
	"phasor/config"
	"phasor/errorlog"
	"phasor/shareddict"
	"phasor/timers"
)

type settings struct {
	Greeting string
	Limits   []int
}

// Read once, by the first request of an instance.
var conf = sync.OnceValues(config.Read[settings])

func init() {
	phasor.Manifest(phasor.Description{Name: "go-services", Version: "1.2.3"})
	phasor.InitWorker(func() error {
		errorlog.Noticef("an instance of %s starts", config.PluginName())
		return nil
	})
	phasor.ServerRewrite(func(r *phasor.Request) error { return r.SetHeader("X-First", "server_rewrite") })
	phasor.Set(func(r *phasor.Request, name string) ([]byte, error) {
		return []byte(name + " of " + r.Method()), nil
	})
	phasor.Rewrite(rewrite)
	phasor.Access(func(r *phasor.Request) error {
		if r.Path() == "/answered" {
			return r.Text("access answers\n")
		}
		return nil
	})
	phasor.Precontent(func(r *phasor.Request) error {
		r.SetValue("precontent", []byte("seen"))
		return nil
	})
	phasor.Content(content)
	phasor.HeaderFilter(func(r *phasor.Request) error {
		return r.Response().SetHeader("X-Filtered", "yes")
	})
	phasor.BodyFilter(func(r *phasor.Request, chunk *phasor.Chunk) error {
		if r.Path() == "/upper" {
			chunk.Replace([]byte(strings.ToUpper(string(chunk.Bytes))))
		}
		return nil
	})
	phasor.Log(func(r *phasor.Request) error {
		errorlog.Noticef("served %s with %d", r.Path(), r.Response().Status())
		return nil
	})
	phasor.Timer(func(ctx context.Context, event phasor.TimerEvent) error {
		if err := phasor.Sleep(ctx, time.Millisecond); err != nil {
			return err
		}
		dict, err := shareddict.Open("d")
		if err != nil {
			return err
		}
		return dict.Set("fired", float64(event.Token))
	})
}

func main() {}

func rewrite(r *phasor.Request) error {
	if r.Path() == "/old" {
		return r.Reroute("/new?" + r.Variable("args"))
	}
	return nil
}

func content(r *phasor.Request) error {
	text, err := service(r)
	if err != nil {
		text = fmt.Sprintf("error: %v", err)
	}
	if text == "" {
		return nil
	}
	return r.Text(text + "\n")
}

func service(r *phasor.Request) (string, error) {
	ctx := r.Context()
	path, rest, _ := strings.Cut(r.Path()[1:], "/")
	switch path {
	case "new", "upper":
		conf, err := conf()
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("%s %d %s %s %q %s", conf.Greeting, conf.Limits, r.Header("X-First"), r.Value("precontent"),
			r.Args()["a"], r.Variable("mine")), nil
	case "echo":
		body, err := r.ReadBody()
		return string(body), err
	case "pieces":
		return "", pieces(r)
	case "dict":
		return dict(ctx)
	case "barred":
		_, err := shareddict.Open("other")
		return "", err
	case "timer":
		return timer()
	case "fired":
		return fired(ctx)
	case "cache":
		return cached(ctx, r, rest)
	case "lock":
		return locks(ctx)
	case "http":
		return fetch(ctx, r)
	case "socket":
		return socket(ctx, r)
	case "inner":
		return inner(ctx)
	case "redis":
		return commands(ctx)
	case "both":
		return both(ctx)
	case "channel":
		return channel(ctx)
	case "away":
		return away(ctx)
	default:
		return "", errors.New("what?")
	}
}

// The answer in pieces, with a wait between them.
func pieces(r *phasor.Request) error {
	answer := r.Response()
	if err := answer.SetStatus(203); err != nil {
		return err
	}
	for count := range 3 {
		if _, err := fmt.Fprintf(answer, "piece %d\n", count); err != nil {
			return err
		}
		if err := phasor.Sleep(r.Context(), 0); err != nil {
			return err
		}
	}
	return answer.Finish()
}

func dict(ctx context.Context) (string, error) {
	dict, err := shareddict.Open("d")
	if err != nil {
		return "", err
	}
	dict.FlushAll()
	var seen []string
	note := func(value any, err error) {
		if bytes, is := value.([]byte); is {
			value = string(bytes)
		}
		seen = append(seen, fmt.Sprint(value, "/", err))
	}
	note(nil, dict.Set("a", "text"))
	note(dict.Get("a"))
	note(dict.Get("none"))
	note(nil, dict.Add("a", 1))
	note(dict.IncrFrom("n", 2, 40, time.Minute))
	note(dict.Incr("a", 1))
	note(dict.CompareAndSwap("n", 42, true, 0))
	note(dict.Get("n"))
	note(dict.Push(shareddict.Left, "l", 1.5))
	note(dict.Pop(shareddict.Right, "l"))
	note(nil, dict.SetFor("short", "x", time.Hour))
	left, err := dict.TTL("short")
	note(left > 59*time.Minute, err)
	note(len(dict.Keys(0)), nil)
	// One goroutine waits for what another one sets.
	go func() {
		_ = phasor.Sleep(ctx, 5*time.Millisecond)
		_ = dict.Set("later", "here")
	}()
	note(dict.Wait(ctx, "later", nil, time.Minute))
	// One adds when the other has deleted.
	note(dict.AddInTurn(ctx, "turn", "first", 0, 0))
	note(dict.AddInTurn(ctx, "turn", "second", 0, time.Millisecond))
	go func() {
		_ = phasor.Sleep(ctx, 5*time.Millisecond)
		_ = dict.Delete("turn")
	}()
	note(dict.AddInTurn(ctx, "turn", "third", time.Hour, time.Minute))
	return strings.Join(seen, " "), nil
}

func timer() (string, error) {
	dict, err := shareddict.Open("d")
	if err != nil {
		return "", err
	}
	_ = dict.Delete("fired")
	// It begins when the handler has returned.
	_, err = timers.After(time.Millisecond, 7)
	return "started", err
}

func fired(ctx context.Context) (string, error) {
	dict, err := shareddict.Open("d")
	if err != nil {
		return "", err
	}
	if _, err := dict.Wait(ctx, "fired", nil, time.Minute); err != nil {
		return "", err
	}
	value, err := dict.Get("fired")
	return fmt.Sprint("timer ", value), err
}
