// The first component in Go that tests use: access and content, waits, faults. The path says what.
package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"phasor"
)

func init() {
	phasor.Access(access)
	phasor.Content(content)
}

func main() {}

// Lets in who brings the header `X-Key`.
func access(r *phasor.Request) error {
	key, there := r.LookupHeader("X-Key")
	if !there {
		return phasor.Exit(401)
	}
	r.SetValue("key", []byte(key))
	return nil
}

func content(r *phasor.Request) error {
	switch r.Path() {
	case "/sleep":
		if err := phasor.Sleep(r.Context(), time.Duration(number(r, "ms"))*time.Millisecond); err != nil {
			return err
		}
		return r.Text("awake\n")
	case "/ten":
		return ten(r)
	case "/late":
		return late(r)
	case "/mixed":
		return mixed(r)
	case "/left":
		return left(r)
	case "/strings":
		return count(r, number(r, "n"))
	case "/panic":
		panic("the plugin panics")
	case "/crash":
		go func() { panic("a goroutine panics") }()
		time.Sleep(time.Second)
		return nil
	case "/nil":
		var none *phasor.Request
		_ = none.Path()
		return nil
	case "/stuck":
		<-make(chan bool)
		return nil
	case "/error":
		return errors.New("an error on purpose")
	case "/grow":
		return grow()
	case "/loop":
		return loop()
	default:
		return r.Text(fmt.Sprintf("hello from Go, %s\n", r.Value("key")))
	}
}

// Ten goroutines wait at the same time.
func ten(r *phasor.Request) error {
	began := time.Now()
	var group sync.WaitGroup
	for range 10 {
		group.Go(func() { _ = phasor.Sleep(r.Context(), 100*time.Millisecond) })
	}
	group.Wait()
	return r.Text(fmt.Sprintf("%d\n", time.Since(began).Milliseconds()))
}

// A context ends a wait.
func late(r *phasor.Request) error {
	ctx, cancel := context.WithTimeout(r.Context(), 20*time.Millisecond)
	defer cancel()
	return r.Text(fmt.Sprintln(phasor.Sleep(ctx, time.Minute)))
}

// Go's own timers and channels fire while a goroutine waits in the host.
func mixed(r *phasor.Request) error {
	done := make(chan string, 3)
	go func() {
		_ = phasor.Sleep(r.Context(), 60*time.Millisecond)
		done <- "host"
	}()
	go func() {
		time.Sleep(30 * time.Millisecond)
		done <- "timer"
	}()
	go func() {
		for range 1000 {
			time.Sleep(0)
		}
		done <- "busy"
	}()
	return r.Text(<-done + " " + <-done + " " + <-done + "\n")
}

var ended = make(chan error, 1)

// A goroutine is left behind: its wait ends with the handler, and it cannot touch the next request.
func left(r *phasor.Request) error {
	select {
	case err := <-ended:
		return r.Text(fmt.Sprintln("the last one's wait ended:", err))
	default:
	}
	ctx := context.Background()
	go func() {
		ended <- phasor.Sleep(ctx, time.Hour)
		_ = r.Text("too late")
		ended <- errors.New("it used a request that was not its own")
	}()
	time.Sleep(10 * time.Millisecond)
	return r.Text("left\n")
}

// Each turn takes a string from the host, keeps some, and must find them unchanged.
func count(r *phasor.Request, turns int) error {
	uri := r.URI()
	kept := make([]string, 1024)
	for turn := range turns {
		kept[turn%1024] = r.URI()
		if old := kept[(turn*7919)%1024]; old != "" && old != uri {
			return errors.New("a string has changed: " + old)
		}
	}
	return r.Text(fmt.Sprintf("%d strings\n", turns))
}

func grow() error {
	var all [][]byte
	for {
		all = append(all, make([]byte, 1<<20))
	}
}

var sum int

func loop() error {
	for {
		sum++
	}
}

// A query argument as a number; 0 when there is none.
func number(r *phasor.Request, name string) int {
	number, _ := strconv.Atoi(r.Arg(name))
	return number
}
