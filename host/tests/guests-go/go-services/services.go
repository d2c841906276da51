package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"phasor"
	"phasor/cache"
	"phasor/cosocket"
	"phasor/httpclient"
	"phasor/lock"
	"phasor/redis"
	"phasor/subrequest"
)

type product struct {
	Name  string
	Price int
}

var (
	products *cache.Cache[product]
	asked    int
)

func cached(ctx context.Context, r *phasor.Request, key string) (string, error) {
	if products == nil {
		opened, err := cache.Open[product]("products")
		if err != nil {
			return "", err
		}
		products = opened
	}
	switch key {
	case "set":
		return "set", products.Set(ctx, "lamp", &product{"lamp", 7}, cache.Options{})
	case "delete":
		return "deleted", products.Delete(ctx, "lamp")
	case "none":
		none, err := products.Get(ctx, "none", func(context.Context) (*product, error) { return nil, nil })
		return fmt.Sprint(none), err
	case "fails":
		_, err := products.Get(ctx, "fails", func(context.Context) (*product, error) {
			return nil, errors.New("the source is away")
		})
		return "", err
	case "flood":
		return flood(ctx)
	case "background":
		return background(ctx)
	case "bulk":
		return bulk(ctx), nil
	case "opposite":
		return opposite(ctx)
	case "purge":
		return "purged", products.PurgeAnswers(ctx, cache.Answers{
			Key: r.Arg("key"), Prefix: r.Arg("prefix"), Tag: r.Arg("tag"),
		})
	}
	found, err := products.GetWith(ctx, key, cache.Options{}, load)
	if err != nil {
		return "", err
	}
	level := map[cache.Level]string{cache.Instance: "instance", cache.Memory: "memory", cache.Callback: "source"}
	return fmt.Sprint(*found.Value, " from ", level[found.Level]), nil
}

func newer(ctx context.Context) (cache.Fresh[product], error) {
	err := phasor.Sleep(ctx, 5*time.Millisecond)
	return cache.Fresh[product]{Value: &product{"lamp", 9}}, err
}

func load(ctx context.Context) (cache.Fresh[product], error) {
	asked++
	err := phasor.Sleep(ctx, 5*time.Millisecond)
	return cache.Fresh[product]{Value: &product{"lamp", 5}}, err
}

// The older value is the answer, and the new one comes when that has left.
func background(ctx context.Context) (string, error) {
	brief, late := time.Millisecond, time.Minute
	if err := products.Set(ctx, "later", &product{"lamp", 1}, cache.Options{TTL: &brief}); err != nil {
		return "", err
	}
	if err := phasor.Sleep(ctx, 20*time.Millisecond); err != nil {
		return "", err
	}
	found, err := products.GetBackground(ctx, "later", cache.Options{}, late, newer)
	if err != nil {
		return "", err
	}
	return fmt.Sprint(*found.Value, " ", found.Stale), nil
}

// Twenty goroutines ask for a key; one of them asks the source.
func flood(ctx context.Context) (string, error) {
	_ = products.Delete(ctx, "flood")
	before := asked
	errs := make(chan error)
	for range 20 {
		go func() {
			_, err := products.GetWith(ctx, "flood", cache.Options{}, load)
			errs <- err
		}()
	}
	for range 20 {
		if err := <-errs; err != nil {
			return "", err
		}
	}
	return fmt.Sprint("asked ", asked-before), nil
}

// Brings all that lack with one call.
func bring(_ context.Context, missing []string) []cache.Brought[product] {
	asked++
	var brought []cache.Brought[product]
	for _, key := range missing {
		var one cache.Brought[product]
		switch {
		case key == "bad":
			one.Err = errors.New("down")
		case key != "absent":
			one.Value = &product{key, len(key)}
		}
		brought = append(brought, one)
	}
	return brought
}

// Several keys at once: kept, found, twice the same, without a value, with a source that fails.
func bulk(ctx context.Context) string {
	_ = products.Set(ctx, "mine", &product{"mine", 1}, cache.Options{})
	asked = 0
	var seen []string
	for range 2 {
		for _, one := range products.GetBulk(ctx, []string{"a", "mine", "bad", "absent", "a"}, cache.Options{}, bring) {
			seen = append(seen, fmt.Sprint(one.Value, one.Level == cache.Callback, one.Err))
		}
	}
	few := products.GetBulk(ctx, []string{"few"}, cache.Options{}, func(context.Context, []string) []cache.Brought[product] { return nil })
	over, cancel := context.WithCancel(ctx)
	cancel()
	gone := products.GetBulk(over, []string{"gone"}, cache.Options{}, bring)
	return fmt.Sprint(strings.Join(seen, ", "), "; asked ", asked, "; ", few[0].Err, "; ", gone[0].Err)
}

// Goroutines that bring what the others want, in all orders, do not wait for each other.
func opposite(ctx context.Context) (string, error) {
	errs := make(chan error)
	for place := range 10 {
		go func() {
			keys := []string{"left", "right", fmt.Sprint("own ", place)}
			if place%2 == 0 {
				keys[0], keys[1] = keys[1], keys[0]
			}
			source := func(ctx context.Context, missing []string) []cache.Brought[product] {
				_ = phasor.Sleep(ctx, time.Millisecond)
				return bring(ctx, missing)
			}
			var err error
			for _, one := range products.GetBulk(ctx, keys, cache.Options{}, source) {
				err = errors.Join(err, one.Err)
			}
			errs <- err
		}()
	}
	var err error
	for range 10 {
		err = errors.Join(err, <-errs)
	}
	return "none waited", err
}

func locks(ctx context.Context) (string, error) {
	table, err := lock.Open("doors")
	if err != nil {
		return "", err
	}
	first, err := table.Acquire(ctx, "front")
	if err != nil {
		return "", err
	}
	at := make(chan uint64)
	go func() {
		second, err := table.Acquire(ctx, "front")
		if err != nil {
			at <- 0
			return
		}
		at <- second.Fencing()
		_ = second.Release()
	}()
	_ = phasor.Sleep(ctx, 5*time.Millisecond)
	soon := 10 * time.Millisecond
	_, late := table.AcquireWith(ctx, "front", lock.Options{Wait: &soon})
	number := first.Fencing()
	if err := first.Renew(nil); err != nil {
		return "", err
	}
	if err := first.Release(); err != nil {
		return "", err
	}
	next := <-at > number
	moment := time.Millisecond
	slow, err := table.AcquireWith(ctx, "back", lock.Options{Hold: &moment})
	if err != nil {
		return "", err
	}
	follower, err := table.Acquire(ctx, "back")
	if err != nil {
		return "", err
	}
	return fmt.Sprint(late, ", then the next: ", next, "; too late: ", slow.Renew(nil), ", ", slow.Release(),
		"; in time: ", follower.Release()), nil
}

func fetch(ctx context.Context, r *phasor.Request) (string, error) {
	origin := "http://127.0.0.1:" + r.Variable("server_port")
	answer, err := httpclient.Post(origin+"/echo", []byte("a body")).Send(ctx)
	if err != nil {
		return "", err
	}
	response, err := httpclient.Get(origin + "/pieces").Open(ctx)
	if err != nil {
		return "", err
	}
	defer response.Close()
	body, err := io.ReadAll(response)
	if err != nil {
		return "", err
	}
	_, refused := httpclient.Get("http://example.com/").Send(ctx)
	return fmt.Sprintf("%d %q, %d %q, %v", answer.Status, answer.Body, response.Status, body, refused), nil
}

func socket(ctx context.Context, r *phasor.Request) (string, error) {
	conn, err := cosocket.Dial(ctx, "tcp", "127.0.0.1:"+r.Variable("server_port"))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	// It reads before it writes: both at the same time.
	type line struct {
		text string
		err  error
	}
	first := make(chan line)
	reader := bufio.NewReader(conn)
	go func() {
		text, err := reader.ReadString('\n')
		first <- line{text, err}
	}()
	_ = phasor.Sleep(ctx, time.Millisecond)
	if _, err := io.WriteString(conn, "GET /fixed HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		return "", err
	}
	got := <-first
	if got.err != nil {
		return "", got.err
	}
	for line := ""; line != "\r\n"; {
		if line, err = reader.ReadString('\n'); err != nil {
			return "", err
		}
	}
	body := make([]byte, 5)
	if _, err := io.ReadFull(reader, body); err != nil {
		return "", err
	}
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	_, late := conn.Read(make([]byte, 1))
	return fmt.Sprintf("%s %q, then late: %v", strings.TrimSpace(got.text), body, errors.Is(late, os.ErrDeadlineExceeded)), nil
}

func inner(ctx context.Context) (string, error) {
	answers := make(chan string)
	for _, target := range []string{"/new?a=1", "@leaf"} {
		go func() {
			answer, err := subrequest.Get(target).Send(ctx)
			if err != nil {
				answers <- err.Error()
				return
			}
			answers <- fmt.Sprintf("%d %s", answer.Status, answer.Body)
		}()
	}
	one, two := <-answers, <-answers
	if one > two {
		one, two = two, one
	}
	_, err := subrequest.Get("/barred/inner").Send(ctx)
	return fmt.Sprintf("%q %q %v", one, two, err), nil
}

func commands(ctx context.Context) (string, error) {
	set, err := redis.Command(ctx, "main", "SET", "one", "1")
	if err != nil {
		return "", err
	}
	one, there, err := redis.Get(ctx, "main", "one")
	if err != nil {
		return "", err
	}
	_, wrong := redis.Command(ctx, "main", "LPUSH", "one", "1")
	_, denied := redis.Command(ctx, "main", "FLUSHALL")
	script, err := redis.Eval(ctx, "main", "return {KEYS[1], {1, 2}}", []string{"k"}, "a")
	if err != nil {
		return "", err
	}
	many, err := redis.Pipeline(ctx, "main", []string{"INCR", "n"}, []string{"GET", "none"})
	if err != nil {
		return "", err
	}
	key, _ := script.List()[0].Text()
	number, _ := script.List()[1].List()[1].Integer()
	return fmt.Sprint(set.Value, " ", one, there, " ", wrong, " ", denied, " ", key, number, " ", many[0].Value, many[1].Value), nil
}

// Ten goroutines ask at the same time.
func both(ctx context.Context) (string, error) {
	errs := make(chan error)
	for place := range 10 {
		go func() {
			key := fmt.Sprint("key:", place)
			if _, err := redis.Command(ctx, "main", "SET", key, key); err != nil {
				errs <- err
				return
			}
			value, _, err := redis.Get(ctx, "main", key)
			if err == nil && value != key {
				err = errors.New("another's answer: " + value)
			}
			errs <- err
		}()
	}
	for range 10 {
		if err := <-errs; err != nil {
			return "", err
		}
	}
	return "ten", nil
}

func channel(ctx context.Context) (string, error) {
	news, err := redis.Subscribe(ctx, "main", []string{"news"}, nil)
	if err != nil {
		return "", err
	}
	defer news.Close()
	if _, err := redis.Command(ctx, "main", "PUBLISH", "news", "hello"); err != nil {
		return "", err
	}
	message, err := news.Next(ctx)
	if err != nil {
		return "", err
	}
	soon, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	_, none := news.Next(soon)
	return fmt.Sprintf("%s: %s, then %v", message.Channel, message.Payload, none), nil
}

// Redis is not there: the error says so.
func away(ctx context.Context) (string, error) {
	_, err := redis.Command(ctx, "main", "GET", "one")
	var failure *redis.Error
	if !errors.As(err, &failure) {
		return "", errors.New("no error of Redis")
	}
	switch failure.Kind {
	case redis.Unavailable, redis.BreakerOpen, redis.Timeout:
		return "away", nil
	}
	return "", err
}
