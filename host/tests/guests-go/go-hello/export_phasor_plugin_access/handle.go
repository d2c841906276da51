// Package export_phasor_plugin_access is the phase `access`: it lets in who brings the header
// `x-key`, and answers 401 to the others.
package export_phasor_plugin_access

import (
	"wit_component/phasor_plugin_context"
	"wit_component/phasor_plugin_request"
	"wit_component/phasor_plugin_types"
	"wit_component/wit/types"
)

// Handle is called for each request.
func Handle() witTypes.Result[phasor_plugin_types.Verdict, string] {
	key := phasor_plugin_request.GetHeader("x-key")
	if key.IsNone() {
		return witTypes.Ok[phasor_plugin_types.Verdict, string](phasor_plugin_types.MakeVerdictExit(401))
	}
	phasor_plugin_context.Set("key", key)
	return witTypes.Ok[phasor_plugin_types.Verdict, string](phasor_plugin_types.MakeVerdictNext())
}
