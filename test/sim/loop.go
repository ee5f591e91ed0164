package sim

import (
	"container/heap"
	"context"
	"fmt"
	"hash/fnv"
	"io"
	"iter"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"time"

	"github.com/commutatordb/commutator/internal/task"
)

// loop owns time and decides who runs: one task at a time, chosen by the seed among those that could go on. Time passes when
// nobody can, and a little with every step.
type loop struct {
	rng     *rand.Rand
	now     time.Duration // since the start
	seq     uint64
	events  events
	procs   []*proc // in the order of their start
	current *simTask
	able    []*simTask // that could go on when last looked through
	idle    []*routine // whose tasks have ended

	steps int
	trace uint64    // hash of everything that happened
	out   io.Writer // gets a line for each, if not nil
}

const (
	// stepTakes is how far time moves with every step, so that a loop that never waits is seen.
	stepTakes = 3 * time.Microsecond
	// maxSteps ends a seed that goes on and on.
	maxSteps = 5_000_000
)

// epoch is when the simulated world begins: a minute, a day and a year end while it is busy.
var epoch = time.Date(2025, 12, 31, 23, 59, 52, 0, time.UTC)

type event struct {
	at  time.Duration
	seq uint64
	do  func()
	off *bool    // nobody waits for it any more
	to  *machine // whose tasks it may wake, and those of no other machine; or
	of  *proc    // the process of which; neither: anybody's
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].seq < e[j].seq
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	old := *e
	x := old[len(old)-1]
	old[len(old)-1] = event{}
	*e = old[:len(old)-1]
	return x
}

func newLoop(seed uint64, out io.Writer) *loop {
	return &loop{rng: rand.New(rand.NewPCG(seed, 0x5eed)), trace: fnvOffset, out: out}
}

const (
	fnvOffset = 14695981039346656037
	fnvPrime  = 1099511628211
)

// note adds numbers to the trace's hash.
func (l *loop) note(kind byte, words ...uint64) {
	h := (l.trace ^ uint64(kind)) * fnvPrime
	h = (h ^ uint64(l.now)) * fnvPrime
	for _, w := range words {
		h = (h ^ w) * fnvPrime
	}
	l.trace = h
}

// say writes a line of the trace, and adds it to the hash. It is for what is rare; note is for the rest.
func (l *loop) say(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	h := fnv.New64a()
	io.WriteString(h, line)
	l.note('s', h.Sum64())
	if l.out != nil {
		fmt.Fprintf(l.out, "%12.6f %s\n", l.now.Seconds(), line)
	}
}

// tracef writes a line of the trace that is not part of the hash: what it tells is noted elsewhere.
func (l *loop) tracef(format string, args ...any) {
	if l.out != nil {
		fmt.Fprintf(l.out, "%12.6f %s\n", l.now.Seconds(), fmt.Sprintf(format, args...))
	}
}

// after has do called in the loop, when d has passed. It must not wait.
func (l *loop) after(d time.Duration, do func()) {
	l.seq++
	heap.Push(&l.events, event{at: l.now + d, seq: l.seq, do: do})
}

// arrive is after for what concerns one machine alone.
func (l *loop) arrive(d time.Duration, to *machine, do func()) {
	l.seq++
	heap.Push(&l.events, event{at: l.now + d, seq: l.seq, do: do, to: to})
}

// between is a random duration in [lo, hi).
func (l *loop) between(lo, hi time.Duration) time.Duration {
	if hi <= lo {
		return lo
	}
	return lo + time.Duration(l.rng.Int64N(int64(hi-lo)))
}

// chance is true p times out of 1.
func (l *loop) chance(p float64) bool { return l.rng.Float64() < p }

// simTask is one goroutine of the simulated world.
type simTask struct {
	id       uint64
	proc     *proc
	on       *routine
	f        func()
	over     bool
	killed   bool
	tells    bool // where it stands, and waits on
	waits    bool // for one of the following
	c        <-chan struct{}
	ended    <-chan struct{} // its context's
	deadline time.Duration   // 0: none
	woken    task.Woken
}

// routine is what tasks run on, one after the other: a coroutine that keeps its stack.
type routine struct {
	task  *simTask
	next  func() (struct{}, bool)
	stop  func()
	yield func(struct{}) bool
}

func (l *loop) routine() *routine {
	if n := len(l.idle); n > 0 {
		r := l.idle[n-1]
		l.idle = l.idle[:n-1]
		return r
	}
	r := &routine{}
	r.next, r.stop = iter.Pull(func(yield func(struct{}) bool) {
		r.yield = yield
		for r.run() && yield(struct{}{}) {
		}
	})
	return r
}

// run runs the routine's task to its end. It returns false when the task was killed.
func (r *routine) run() (whole bool) {
	t := r.task
	defer func() {
		t.over = true
		if p := recover(); p != nil {
			if _, ok := p.(killed); !ok {
				panic(p)
			}
		}
	}()
	t.f()
	return !t.killed
}

// retire ends the routines that have no task.
func (l *loop) retire() {
	for _, r := range l.idle {
		r.stop()
	}
	l.idle = nil
}

// killed is what a task of a process that has been killed ends with.
type killed struct{}

// proc is one process: what lives and dies together. It is the task.Runtime of what runs in it.
type proc struct {
	l      *loop
	name   string
	dead   bool
	paused bool
	skew   time.Duration // of its wall clock
	grain  time.Duration // how long it stands still, to go on in one step; 0: never
	onKill func()

	tasks   []*simTask // in the order of their start; ended ones are taken out now and then
	ended   int
	touched bool          // some of its tasks may be able to go on that were not when they were last looked through
	next    time.Duration // the first deadline among them, as of then; below 0 for none
}

var _ task.Runtime = (*proc)(nil)

func (l *loop) process(name string) *proc {
	p := &proc{l: l, name: name, next: -1}
	l.procs = append(slices.DeleteFunc(l.procs, func(p *proc) bool { return p.dead }), p)
	return p
}

// touch has the process's tasks looked through again.
func (p *proc) touch() {
	if p != nil {
		p.touched = true
	}
}

func (l *loop) touchAll() {
	for _, p := range l.procs {
		p.touched = true
	}
}

// Now is the process's wall clock.
func (p *proc) Now() time.Time { return epoch.Add((p.l.now + p.skew).Truncate(p.grain)) }

// Go is task.Runtime's.
func (p *proc) Go(f func()) {
	if p.dead {
		return
	}
	l := p.l
	l.seq++
	p.tasks = append(p.tasks, &simTask{id: l.seq, proc: p, f: f})
	p.touched = true
}

// Wait is task.Runtime's.
func (p *proc) Wait(ctx context.Context, c <-chan struct{}, d time.Duration) task.Woken {
	t := p.l.current
	if t == nil || t.proc != p {
		panic("sim: " + p.name + ": waiting outside of a task of its own")
	}
	t.waits, t.c, t.ended, t.deadline = true, c, ctx.Done(), 0
	if d > 0 {
		t.deadline = p.l.now + d
	}
	p.l.park(t)
	return t.woken
}

// Yield is task.Runtime's.
func (p *proc) Yield() {
	t := p.l.current
	p.l.park(t)
}

func (l *loop) park(t *simTask) {
	for {
		if t.killed || !t.on.yield(struct{}{}) || t.killed {
			panic(killed{})
		}
		if !t.tells {
			return
		}
		t.tells = false
		l.tracef("task %d of %s:\n%s", t.id, t.proc.name, debug.Stack())
	}
}

// stacks writes where a process's tasks stand into the trace.
func (l *loop) stacks(p *proc) {
	if l.out == nil {
		return
	}
	for _, t := range p.tasks {
		if !t.over && t.on != nil && t != l.current {
			t.tells = true
			t.on.next()
		}
	}
}

// WithTimeout is task.Runtime's.
func (p *proc) WithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	off := new(bool)
	p.l.seq++
	heap.Push(&p.l.events, event{at: p.l.now + d, seq: p.l.seq, do: func() { cancel(context.DeadlineExceeded) }, off: off, of: p})
	return ctx, func() {
		*off = true
		cancel(context.Canceled)
	}
}

// kill ends the process at once: none of its tasks runs on. It may be called by one of them, whose own end it is.
func (p *proc) kill() {
	if p.dead {
		return
	}
	p.dead = true
	own := false
	for _, t := range p.tasks {
		if t.over {
			continue
		}
		t.killed = true
		if t == p.l.current {
			own = true
			continue
		}
		current := p.l.current
		p.l.current = t
		if t.on != nil {
			t.on.stop()
		}
		p.l.current = current
		t.over = true
	}
	if p.onKill != nil {
		p.onKill()
	}
	if own {
		panic(killed{})
	}
}

// canRun tells whether a task could go on, and how a Wait would end: the reasons, as bits of task.Woken.
func (l *loop) canRun(t *simTask) (ways uint8) {
	if !t.waits {
		return 1 << task.Token
	}
	if len(t.c) > 0 || t.c != nil && cap(t.c) == 0 && isClosed(t.c) {
		ways |= 1 << task.Token
	}
	if t.deadline > 0 && t.deadline <= l.now {
		ways |= 1 << task.Late
	}
	if t.ended != nil && isClosed(t.ended) {
		ways |= 1 << task.Ended
	}
	return ways
}

// isClosed tells whether a channel without room for a token is closed: nobody sends on one.
func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// step lets one task go on, or time pass. It returns false when nothing will ever happen again.
func (l *loop) step() bool {
	for len(l.events) > 0 && (l.events[0].at <= l.now || l.events[0].off != nil && *l.events[0].off) {
		e := l.pop()
		if e.off != nil && *e.off {
			continue
		}
		e.do()
		switch {
		case e.to != nil:
			e.to.proc.touch()
		case e.of != nil:
			e.of.touch()
		default:
			l.touchAll()
		}
	}
	// Of those that could go on when they were last looked through, each goes on once, in a random order.
	for len(l.able) > 0 {
		i := l.rng.IntN(len(l.able))
		t := l.able[i]
		l.able[i] = l.able[len(l.able)-1]
		l.able = l.able[:len(l.able)-1]
		if t.over || t.proc.paused || t.proc.dead {
			continue
		}
		if ways := l.canRun(t); ways != 0 {
			l.resume(t, ways)
			l.now += stepTakes
			l.steps++
			return true
		}
	}
	next := time.Duration(-1)
	for _, p := range l.procs {
		if p.dead || p.paused {
			continue
		}
		if p.touched || p.next >= 0 && p.next <= l.now {
			l.look(p)
		}
		if p.next >= 0 && (next < 0 || p.next < next) {
			next = p.next
		}
	}
	if len(l.able) > 0 {
		return true
	}
	if len(l.events) > 0 && (next < 0 || l.events[0].at < next) {
		next = l.events[0].at
	}
	if next < 0 {
		return false
	}
	l.now = max(l.now, next)
	return true
}

// look finds those of a process's tasks that could go on, and when the first of the others could.
func (l *loop) look(p *proc) {
	p.next = -1
	able := len(l.able)
	for _, t := range p.tasks {
		if t.over {
			continue
		}
		if l.canRun(t) != 0 {
			l.able = append(l.able, t)
		} else if t.deadline > 0 && (p.next < 0 || t.deadline < p.next) {
			p.next = t.deadline
		}
	}
	p.touched = len(l.able) > able
}

func (l *loop) resume(t *simTask, ways uint8) {
	way := task.Woken(l.rng.IntN(3))
	for ways&(1<<way) == 0 {
		way = (way + 1) % 3
	}
	if way == task.Token && t.waits && len(t.c) > 0 {
		<-t.c
	}
	t.woken, t.waits, t.c, t.ended, t.deadline = way, false, nil, nil, 0
	l.note('t', t.id, uint64(way))
	l.current = t
	if t.on == nil {
		t.on = l.routine()
		t.on.task = t
	}
	t.on.next()
	l.current = nil
	p := t.proc
	p.touched = true
	if !t.over {
		return
	}
	if !t.killed {
		t.on.task = nil
		l.idle = append(l.idle, t.on)
	}
	t.f, t.on = nil, nil
	if p.ended++; p.ended > 16 && p.ended > len(p.tasks)/3 {
		p.tasks, p.ended = slices.DeleteFunc(p.tasks, func(t *simTask) bool { return t.over }), 0
	}
}

// runUntil steps until done says so or limit has passed. It tells whether done was reached.
func (l *loop) runUntil(limit time.Duration, done func() bool) bool {
	end := l.now + limit
	for !done() {
		if l.now >= end || l.steps >= maxSteps || !l.step() {
			return false
		}
	}
	return true
}

// Len is how many events are to come.
func (l *loop) Len() int { return len(l.events) }

func (l *loop) pop() event { return heap.Pop(&l.events).(event) }
