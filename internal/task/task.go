// Package task is how code above the pure packages starts goroutines and waits: through a Runtime, which is Go's own in
// production and a seeded loop in the simulator (test/sim), where one task runs at a time and every choice is replayable.
//
// Only what waiting needs lives here. A channel of tokens stays a plain channel; whoever waits for one calls Wait instead of
// select. Nobody waits while holding a mutex: in the simulator nothing else would run.
package task

import (
	"context"
	"runtime"
	"sync"
	"time"
)

// Runtime starts tasks and lets them wait. Its methods are safe for concurrent use.
type Runtime interface {
	// Go runs f beside the caller. Whoever starts a task sees to it that it ends.
	Go(f func())
	// Wait returns when c has a token, which it takes, or is closed; when d has passed (0: never); or when ctx has ended.
	// c may be nil.
	Wait(ctx context.Context, c <-chan struct{}, d time.Duration) Woken
	// Yield lets others run first that could.
	Yield()
	// WithTimeout is context.WithTimeout.
	WithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc)
}

// Woken says why Wait has returned.
type Woken int

// What may end a Wait.
const (
	Token Woken = iota // c had one, or is closed
	Late               // the time has passed
	Ended              // the context has ended
)

// Goroutines is the Runtime of production.
var Goroutines Runtime = goroutines{}

type goroutines struct{}

func (goroutines) Go(f func()) { go f() }

func (goroutines) Yield() { runtime.Gosched() }

func (goroutines) WithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, d)
}

func (goroutines) Wait(ctx context.Context, c <-chan struct{}, d time.Duration) Woken {
	if d <= 0 {
		select {
		case <-c:
			return Token
		case <-ctx.Done():
			return Ended
		}
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-c:
		return Token
	case <-t.C:
		return Late
	case <-ctx.Done():
		return Ended
	}
}

// Poke puts a token into a channel of capacity one, if there is none in it.
func Poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Group runs tasks that end together: the first error ends the context of all. It is errgroup.Group over a Runtime.
type Group struct {
	rt     Runtime
	cancel context.CancelCauseFunc

	mu      sync.Mutex
	running int
	err     error
	idle    chan struct{} // gets a token when running falls to 0
}

// NewGroup returns a group and its tasks' context.
func NewGroup(ctx context.Context, rt Runtime) (*Group, context.Context) {
	ctx, cancel := context.WithCancelCause(ctx)
	return &Group{rt: rt, cancel: cancel, idle: make(chan struct{}, 1)}, ctx
}

// Go runs f beside the caller. It may be called by one of the group's own tasks, or before Wait.
func (g *Group) Go(f func() error) {
	g.mu.Lock()
	g.running++
	g.mu.Unlock()
	g.rt.Go(func() {
		err := f()
		g.mu.Lock()
		defer g.mu.Unlock()
		if err != nil && g.err == nil {
			g.err = err
			g.cancel(err)
		}
		if g.running--; g.running == 0 {
			Poke(g.idle)
		}
	})
}

// Wait returns once every task has ended: the first error, if any.
func (g *Group) Wait() error {
	for {
		g.mu.Lock()
		running, err := g.running, g.err
		g.mu.Unlock()
		if running == 0 {
			g.cancel(err)
			return err
		}
		g.rt.Wait(context.Background(), g.idle, 0)
	}
}
