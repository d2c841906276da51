// Package errorlog writes to the error log. What the log's level would drop is not formatted.
package errorlog

import (
	"fmt"

	host "phasor/internal/wit/phasor_plugin_error_log"
)

// A Level is one of nginx's: the lower, the more severe.
type Level uint8

// The levels.
const (
	Emerg  = Level(host.LevelEmerg)
	Alert  = Level(host.LevelAlert)
	Crit   = Level(host.LevelCrit)
	Error  = Level(host.LevelError)
	Warn   = Level(host.LevelWarn)
	Notice = Level(host.LevelNotice)
	Info   = Level(host.LevelInfo)
	Debug  = Level(host.LevelDebug)
)

// Write writes a line when the log's level lets it through.
func Write(level Level, message string) {
	host.Write(host.Level(level), message)
}

// Enabled tells whether the log writes lines of this level.
func Enabled(level Level) bool {
	return level <= Level(host.MaxLevel())
}

// Printf writes a line of a level.
func Printf(level Level, format string, values ...any) {
	if Enabled(level) {
		Write(level, fmt.Sprintf(format, values...))
	}
}

// Errorf writes a line of level `error`.
func Errorf(format string, values ...any) { Printf(Error, format, values...) }

// Warnf writes a line of level `warn`.
func Warnf(format string, values ...any) { Printf(Warn, format, values...) }

// Noticef writes a line of level `notice`.
func Noticef(format string, values ...any) { Printf(Notice, format, values...) }

// Infof writes a line of level `info`.
func Infof(format string, values ...any) { Printf(Info, format, values...) }

// Debugf writes a line of level `debug`.
func Debugf(format string, values ...any) { Printf(Debug, format, values...) }
