// The phase init in Go: what it leaves in memory is there in every instance.
package main

import (
	"crypto/rand"
	"errors"
	"strings"

	"phasor"
	"phasor/config"
)

var words map[string]int

func init() {
	phasor.Init(func() error {
		text := config.JSON()
		if strings.Contains(text, "refuse") {
			return errors.New("this configuration is refused")
		}
		words = map[string]int{}
		for _, word := range strings.Split(text, `"`) {
			words[word]++
		}
		return nil
	})
	phasor.Content(func(r *phasor.Request) error {
		if r.Path() == "/random" {
			return r.Text(rand.Text())
		}
		if words["same"] == 2 && words["other"] == 1 {
			return r.Text("as init left it\n")
		}
		return errors.New("init's memory is gone")
	})
}

func main() {}
