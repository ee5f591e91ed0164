package sim

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"time"
)

// share is what one process of several is to simulate: every stride-th seed from From on, Seeds of them or until time is up.
type share struct {
	From, Seeds, Stride int
	Until               time.Time // zero: no limit
	Replay              int       // every how many seeds one is replayed
}

// chosenText is what must be said again to replay a seed.
func chosenText() (text string) {
	for _, name := range []string{"REGIONS", "NODES", "FAMILIES", "CHAOS"} {
		if v := os.Getenv(name); v != "" {
			text += " " + name + "=" + v
		}
	}
	return text
}

// report is what a process says after some seeds.
type report struct {
	Counts     *Counts
	Violations []string
	Last       uint64 // the last seed done
}

const (
	shareEnv = "SIM_SHARE"
	// reportEvery is after how many seeds a process reports.
	reportEvery = 20
	// enough is how many violations end a process.
	enough = 5
)

// work simulates a share, and writes a report as a line of JSON now and then. Each seed is run by run.
func (s share) work(out io.Writer, run func(seed uint64) Result) error {
	e := json.NewEncoder(out)
	r := report{Counts: newCounts()}
	bad := 0
	for i := range s.Seeds {
		if !s.Until.IsZero() && time.Now().After(s.Until) {
			break
		}
		seed := uint64(s.From + i*s.Stride)
		result := run(seed)
		r.Counts.Add(result.Count)
		r.Last = seed
		for _, v := range result.Violations {
			r.Violations = append(r.Violations, fmt.Sprintf("seed %d: %s (replay: make sim SEED=%d%s)", seed, v, seed, chosenText()))
		}
		if len(result.Violations) > 0 {
			bad++
		} else if i%s.Replay == 0 {
			r.Counts.Replayed++
			if again := run(seed); again.Trace != result.Trace {
				bad++
				r.Violations = append(r.Violations, fmt.Sprintf("seed %d: replayed, it is another: trace %016x, then %016x", seed, result.Trace, again.Trace))
			}
		}
		if (i+1)%reportEvery == 0 || bad >= enough {
			if err := e.Encode(r); err != nil {
				return err
			}
			r = report{Counts: newCounts()}
		}
		if bad >= enough {
			return nil
		}
	}
	return e.Encode(r)
}

// Many simulates many seeds in one process for each core: crypto/rand, which a seed rules, is a process's. It calls progress
// after each report, and returns what all have done and found.
func Many(ctx context.Context, s share, progress func(*Counts, []string)) (total *Counts, violations []string, err error) {
	total = newCounts()
	processes := min(runtime.NumCPU(), max(1, s.Seeds))
	var mu sync.Mutex
	var wg sync.WaitGroup
	errs := make([]error, processes)
	for i := range processes {
		part := s
		part.From, part.Stride = s.From+i, processes
		part.Seeds = (s.Seeds - i + processes - 1) / processes
		wg.Go(func() {
			errs[i] = part.elsewhere(ctx, func(r report) {
				mu.Lock()
				defer mu.Unlock()
				total.Add(r.Counts)
				violations = append(violations, r.Violations...)
				if progress != nil {
					progress(total, violations)
				}
			})
		})
	}
	wg.Wait()
	return total, violations, errors.Join(errs...)
}

// elsewhere has the share worked on by another process of this program.
func (s share) elsewhere(ctx context.Context, got func(report)) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	c := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestShare$", "-test.timeout=0")
	c.Env = append(os.Environ(), shareEnv+"="+string(b), "GOMAXPROCS=1")
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	if err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		return err
	}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var r report
		if len(lines.Bytes()) == 0 || lines.Bytes()[0] != '{' {
			continue // the test program's own lines
		}
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return errors.Join(fmt.Errorf("sim: a share's report: %w", err), c.Wait())
		}
		got(r)
	}
	return errors.Join(lines.Err(), c.Wait())
}
