// Asks three back ends at once: for all that answer in time, or for the first.
package main

import (
	"context"
	"fmt"
	"path"
	"strings"
	"sync"
	"time"

	"phasor"
	"phasor/config"
	"phasor/httpclient"
)

// The plugin's config table, read by the first request of an instance.
var settings = sync.OnceValues(config.Read[struct {
	BackEnds []string `json:"back_ends"`
}])

// How long a back end may take.
const patience = 500 * time.Millisecond

func init() {
	phasor.Content(func(r *phasor.Request) error {
		settings, err := settings()
		if err != nil {
			return err
		}
		if r.Path() == "/go/first" {
			return first(r, settings.BackEnds)
		}
		return all(r, settings.BackEnds)
	})
}

func main() {}

func ask(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	answer, err := httpclient.Get(url).Send(ctx)
	if err != nil {
		return "", err
	}
	return string(answer.Body), nil
}

func all(r *phasor.Request, backEnds []string) error {
	lines := make([]string, len(backEnds))
	var group sync.WaitGroup
	for place, url := range backEnds {
		group.Go(func() {
			text, err := ask(r.Context(), url)
			if err != nil {
				text = fmt.Sprintf("%s: %v", path.Base(url), err)
			}
			lines[place] = text + "\n"
		})
	}
	group.Wait()
	return r.Text(strings.Join(lines, ""))
}

// Who fails is not the first. The context cancels what the others wait for.
func first(r *phasor.Request, backEnds []string) error {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	answers := make(chan string, len(backEnds))
	var group sync.WaitGroup
	for _, url := range backEnds {
		group.Go(func() {
			if text, err := ask(ctx, url); err == nil {
				answers <- text
			}
		})
	}
	go func() {
		group.Wait()
		close(answers)
	}()
	if text, some := <-answers; some {
		return r.Text(text)
	}
	return r.Send(502, nil, []byte("nobody answers"))
}
