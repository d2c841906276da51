// Leaves its mark in every phase of a request: a value collects the phases' names, the header filter
// shows them in X-Phases. With ?exit=PHASE that phase answers 418, with ?fail=PHASE it fails, with
// ?panic=PHASE it panics. An instance says in the log when it starts and leaves.
package main

import (
	"context"
	"errors"

	"phasor"
	"phasor/errorlog"
	"phasor/timers"
	"phasor/worker"
)

const trail = "phases"

var ready bool

func init() {
	phasor.Init(func() error {
		ready = true
		return nil
	})
	phasor.InitWorker(func() error {
		errorlog.Noticef("starts in worker %d, after init: %t", worker.ID(), ready)
		return nil
	})
	phasor.ExitWorker(func() error {
		errorlog.Noticef("leaves worker %d", worker.ID())
		return nil
	})
	phasor.ServerRewrite(mark("server_rewrite", nil))
	phasor.Set(func(r *phasor.Request, name string) ([]byte, error) {
		return []byte(name + " from the plugin"), mark("set", nil)(r)
	})
	phasor.Rewrite(mark("rewrite", nil))
	phasor.Access(mark("access", nil))
	phasor.Precontent(mark("precontent", nil))
	phasor.Content(mark("content", func(r *phasor.Request) error {
		if r.Arg("timer") != "" {
			_, err := timers.After(0, 42)
			return errors.Join(err, r.Text("set\n"))
		}
		return r.Text("region: " + r.Variable("region") + "\n")
	}))
	phasor.HeaderFilter(mark("header_filter", func(r *phasor.Request) error {
		// The body filter adds a line: the length that the content handler knew is wrong now.
		answer := r.Response()
		return errors.Join(answer.SetHeader("X-Phases", string(r.Value(trail))), answer.RemoveHeader("Content-Length"))
	}))
	phasor.BodyFilter(func(r *phasor.Request, chunk *phasor.Chunk) error {
		if !chunk.Last {
			return nil
		}
		chunk.Replace(append(chunk.Bytes, "filtered\n"...))
		return mark("body_filter", nil)(r)
	})
	phasor.Log(mark("log", func(r *phasor.Request) error {
		errorlog.Noticef("phases: %s status: %d", r.Value(trail), r.Response().Status())
		return nil
	}))
	phasor.Timer(func(_ context.Context, event phasor.TimerEvent) error {
		errorlog.Noticef("timer %d, premature: %t", event.Token, event.Premature)
		return errors.New("a timer fails on purpose")
	})
}

func main() {}

// Appends a phase to the trail, does what the query asks of it, and then what is left to do.
func mark(phase string, then phasor.Handler) phasor.Handler {
	return func(r *phasor.Request) error {
		seen := r.Value(trail)
		if len(seen) > 0 {
			seen = append(seen, ' ')
		}
		r.SetValue(trail, append(seen, phase...))
		args := r.Args()
		switch phase {
		case args.Get("exit"):
			return phasor.Exit(418)
		case args.Get("done"):
			return phasor.Done
		case args.Get("fail"):
			return errors.New(phase + " fails on purpose")
		case args.Get("panic"):
			panic(phase + " panics on purpose")
		}
		if then == nil {
			return nil
		}
		return then(r)
	}
}
