// Package core is pure.
package core

import (
	"math/rand"
	mr "math/rand/v2"
	"os" // want: core must not import os
	"time"

	_ "example.com/house/shelf" // want: core must not import shelf
	"example.com/house/shell"   // want: core must not import shell. It may import core/inner
)

var now = time.Now // want: core must not use time.Now

func bad(c chan int, d time.Duration) {
	go close(c) // want: start a goroutine
	select {    // want: must not select
	case <-c:
	default:
	}
	_ = rand.Intn(7)   // want: core must not use math/rand.Intn
	_ = mr.N(d)        // want: core must not use math/rand/v2.N
	_ = os.Args        // the import is the problem; it is told once
	_ = shell.Time{}   // so is this one
	mr.Shuffle(0, nil) // want: core must not use math/rand/v2.Shuffle
}

func good(seed uint64, at time.Time) *mr.Rand {
	at.Add(time.Second).Sub(at)
	return mr.New(mr.NewPCG(seed, 0))
}
