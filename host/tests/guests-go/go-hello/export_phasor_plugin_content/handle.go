// Package export_phasor_plugin_content is the phase `content`. `/sleep?ms=N` waits in the host
// before it answers; `/strings?n=N` asks the host for as many strings, so that tests can show that
// the collector and the host's strings get along.
package export_phasor_plugin_content

import (
	"fmt"
	"strconv"
	"strings"

	"wit_component/phasor_plugin_context"
	"wit_component/phasor_plugin_request"
	"wit_component/phasor_plugin_response"
	"wit_component/phasor_plugin_timers"
	"wit_component/phasor_plugin_types"
	"wit_component/wit/types"
)

type outcome = witTypes.Result[phasor_plugin_types.Verdict, string]

// Handle is called for each request.
func Handle() outcome {
	uri := phasor_plugin_request.Uri()
	path, query, _ := strings.Cut(uri, "?")
	switch path[strings.LastIndex(path, "/")+1:] {
	case "sleep":
		phasor_plugin_timers.Sleep(uint32(number(query, "ms")))
		return answer("awake\n")
	case "strings":
		return count(uri, number(query, "n"))
	case "panic":
		panic("the plugin panics")
	case "error":
		return witTypes.Err[phasor_plugin_types.Verdict, string]("an error on purpose")
	default:
		key := phasor_plugin_context.Get("key").SomeOr(nil)
		return answer(fmt.Sprintf("hello from Go, %s\n", key))
	}
}

// Each turn takes a string from the host, keeps some, and must find them unchanged.
func count(uri string, turns uint64) outcome {
	kept := make([]string, 1024)
	for turn := range turns {
		kept[turn%1024] = phasor_plugin_request.Uri()
		if old := kept[(turn*7919)%1024]; old != "" && old != uri {
			return witTypes.Err[phasor_plugin_types.Verdict, string]("a string has changed: " + old)
		}
	}
	return answer(fmt.Sprintf("%d strings\n", turns))
}

func answer(text string) outcome {
	headers := []witTypes.Tuple2[string, []uint8]{{F0: "content-type", F1: []uint8("text/plain")}}
	sent := phasor_plugin_response.Send(200, headers, []uint8(text))
	if sent.IsErr() {
		return witTypes.Err[phasor_plugin_types.Verdict, string](fmt.Sprintf("response.send: %v", sent.Err()))
	}
	return witTypes.Ok[phasor_plugin_types.Verdict, string](phasor_plugin_types.MakeVerdictExit(0))
}

// A query argument as a number; 0 when there is none.
func number(query, name string) uint64 {
	for _, pair := range strings.Split(query, "&") {
		if key, value, _ := strings.Cut(pair, "="); key == name {
			number, _ := strconv.ParseUint(value, 10, 31)
			return number
		}
	}
	return 0
}
