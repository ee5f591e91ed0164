package group

import (
	"context"
	"fmt"
	"log/slog"
)

// raftLogger passes raft's messages on; a broken invariant of raft's panics, as raft means it to.
type raftLogger struct{ l *slog.Logger }

func (r raftLogger) Debug(v ...any)                   {}
func (r raftLogger) Debugf(format string, v ...any)   {}
func (r raftLogger) Info(v ...any)                    { r.log(slog.LevelDebug, "", v) }
func (r raftLogger) Infof(format string, v ...any)    { r.log(slog.LevelDebug, format, v) }
func (r raftLogger) Warning(v ...any)                 { r.log(slog.LevelWarn, "", v) }
func (r raftLogger) Warningf(format string, v ...any) { r.log(slog.LevelWarn, format, v) }
func (r raftLogger) Error(v ...any)                   { r.log(slog.LevelError, "", v) }
func (r raftLogger) Errorf(format string, v ...any)   { r.log(slog.LevelError, format, v) }
func (r raftLogger) Fatal(v ...any)                   { panic("raft: " + fmt.Sprint(v...)) }
func (r raftLogger) Fatalf(format string, v ...any)   { panic("raft: " + fmt.Sprintf(format, v...)) }
func (r raftLogger) Panic(v ...any)                   { panic("raft: " + fmt.Sprint(v...)) }
func (r raftLogger) Panicf(format string, v ...any)   { panic("raft: " + fmt.Sprintf(format, v...)) }

func (r raftLogger) log(level slog.Level, format string, v []any) {
	ctx := context.Background()
	switch {
	case !r.l.Enabled(ctx, level):
	case format == "":
		r.l.Log(ctx, level, "raft: "+fmt.Sprint(v...))
	default:
		r.l.Log(ctx, level, "raft: "+fmt.Sprintf(format, v...))
	}
}
