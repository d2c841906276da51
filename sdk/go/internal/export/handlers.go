// Package export is what the host calls: the phases' exported functions are generated, and each
// calls its handler, a variable here. The package phasor sets those that the plugin asks for.
package export

import (
	balancer "phasor/internal/wit/phasor_plugin_balancer"
	bodyfilter "phasor/internal/wit/phasor_plugin_body_filter"
	certificate "phasor/internal/wit/phasor_plugin_certificate"
	manifest "phasor/internal/wit/phasor_plugin_manifest"
	types "phasor/internal/wit/phasor_plugin_types"
	witTypes "phasor/internal/wit/types"
)

// The outcomes of the phases.
type (
	// Nothing is what phases without a verdict give.
	Nothing = witTypes.Result[witTypes.Unit, string]
	// Verdict is what the phases of a request give.
	Verdict = witTypes.Result[types.Verdict, string]
	// Filtered is what becomes of a piece of the answer's body.
	Filtered = witTypes.Result[bodyfilter.ChunkVerdict, string]
	// Chosen is what a balancer gives.
	Chosen = witTypes.Result[balancer.Choice, string]
	// Certified is what a handshake gets.
	Certified = witTypes.Result[witTypes.Option[certificate.CertifiedKey], string]
	// Computed is a variable's value.
	Computed = witTypes.Result[witTypes.Option[[]byte], string]
)

// The handlers.
var (
	Manifest      func() manifest.Description
	Init          func() Nothing
	InitWorker    func() Nothing
	ExitWorker    func() Nothing
	ClientHello   func(serverName witTypes.Option[string]) Nothing
	Certificate   func(serverName witTypes.Option[string]) Certified
	ServerRewrite func() Verdict
	Set           func(name string) Computed
	Rewrite       func() Verdict
	Access        func() Verdict
	Precontent    func() Verdict
	Content       func() Verdict
	Balancer      func(try uint32) Chosen
	HeaderFilter  func() Verdict
	BodyFilter    func(chunk []byte, last bool) Filtered
	Log           func() Nothing
	Timer         func(token uint64, premature bool) Nothing
)
