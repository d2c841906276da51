// Package config is the plugin's own configuration: the `config` table of its `[plugin.NAME]`.
package config

import (
	"encoding/json"

	host "phasor/internal/wit/phasor_plugin_config"
)

// Read gives the table as a value of your own type. Read it once, in the phase init or at the first
// request, and keep it.
func Read[T any]() (value T, err error) {
	err = json.Unmarshal([]byte(host.Json()), &value)
	return value, err
}

// JSON is the table as JSON.
func JSON() string {
	return host.Json()
}

// PluginName is the plugin's name in the configuration.
func PluginName() string {
	return host.PluginName()
}
