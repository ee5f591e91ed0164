// Shell begins its comment in the wrong way.
package shell // want: the package comment of shell should begin with "Package shell "

import (
	_ "example.com/house/core"
	_ "example.com/house/shell"
	_ "example.com/house/wire/v1" // want: shell must not import wire/v1
	_ "example.com/other"
	"os"
	"time"
)

type Time struct{}

func ok() { go func() { time.Sleep(time.Until(time.Now())); os.Exit(1) }() }
