// The shortest plugin in Go: one phase, one answer.
package main

import "phasor"

func init() {
	phasor.Content(func(r *phasor.Request) error {
		return r.Text("hello from Go\n")
	})
}

func main() {}
