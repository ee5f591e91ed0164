package core

import (
	"os"
	"time"

	"example.com/house/shell" // a test may import what is below the top
	"example.com/house/top"   // want: a test must not import top
)

var _ = []any{os.Args, time.Now, shell.Time{}, top.X}
