// Package worker is the worker that runs this instance, and the process around it.
package worker

import host "phasor/internal/wit/phasor_plugin_worker"

// ID counts from 0.
func ID() int { return int(host.Id()) }

// Count is how many workers there are.
func Count() int { return int(host.Count()) }

// PID is the process.
func PID() int { return int(host.Pid()) }

// Exiting tells whether the worker, or this generation, is draining.
func Exiting() bool { return host.Exiting() }

// Random is real randomness from the system.
func Random() uint64 { return host.Random() }

// Prefix is the configuration file's folder.
func Prefix() string { return host.Prefix() }
