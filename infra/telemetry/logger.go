// Package telemetry is what operators see of a process: structured logs and metrics.
package telemetry

import (
	"fmt"
	"io"
	"log/slog"
)

// Logger returns a logger that writes lines of the format "json" or "text" from level ("debug", "info", "warn", "error") up to w.
func Logger(w io.Writer, format, level string) (*slog.Logger, error) {
	var lowest slog.Level
	if err := lowest.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("telemetry: log level %q: use debug, info, warn or error", level)
	}
	options := &slog.HandlerOptions{Level: lowest}
	switch format {
	case "json":
		return slog.New(slog.NewJSONHandler(w, options)), nil
	case "text":
		return slog.New(slog.NewTextHandler(w, options)), nil
	default:
		return nil, fmt.Errorf("telemetry: log format %q: use json or text", format)
	}
}
