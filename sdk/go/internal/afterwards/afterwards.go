// Package afterwards holds what is to run in this instance when the call has returned. It stands apart,
// because the package phasor runs what the package timers takes.
package afterwards

import (
	"context"

	host "phasor/internal/wit/phasor_plugin_timers"
	witTypes "phasor/internal/wit/types"
)

// A Job is what is to run.
type Job = func(ctx context.Context)

var (
	jobs = map[uint64]Job{}
	next = uint64(1) << 63
)

// Leave has the host call the phase timer in this instance.
func Leave(job Job) witTypes.Result[witTypes.Unit, host.TimerError] {
	result := host.StartHere(next)
	if result.IsOk() {
		jobs[next] = job
		next++
	}
	return result
}

// Take is the job of a token, once.
func Take(token uint64) (Job, bool) {
	job, there := jobs[token]
	delete(jobs, token)
	return job, there
}
