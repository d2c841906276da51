// Package phasor makes plugins of Phasor in Go. A plugin is a package main that says, in an init
// function, which phases it serves:
//
//	package main
//
//	import "phasor"
//
//	func init() {
//		phasor.Access(func(r *phasor.Request) error {
//			if r.Header("X-Key") == "" {
//				return phasor.Exit(401)
//			}
//			return nil
//		})
//		phasor.Content(func(r *phasor.Request) error {
//			return r.Text("hello\n")
//		})
//	}
//
//	func main() {}
//
// `phasor-go build . plugin.wasm` makes a component of it, with Go's own compiler. The component
// exports exactly the phases for which a function is called here, and imports exactly the host
// functions that are used.
//
// A call that takes time (Redis, HTTP, a sleep, a body to read) suspends its goroutine and nothing
// else: other goroutines of the plugin go on, and the worker serves other requests. Goroutines wait
// in the host at the same time, and a context ends what waits. A goroutine belongs to the request in
// which it was started: what it waits for ends with [context.Canceled] when the handler has returned.
//
// An instance serves one request at a time. Package variables live as long as the instance, which is
// used again for other requests of the same worker.
package phasor
