package sim

import (
	"fmt"
	"io"
	"strings"
)

// faultKind names one way of breaking something.
type faultKind int

const (
	faultLoss faultKind = iota
	faultDup
	faultLate
	faultCutLoss
	faultCutStream
	faultBreak
	faultGap
	faultSwap
	faultRepeat
	faultCorrupt
	faultCutOneWay
	faultCutPair
	faultCutNode
	faultCutRegion
	faultFlap
	faultCrash
	faultCrashInWrite
	faultCrashEarly
	faultWriteFails
	faultStop
	faultCrashPromised
	faultFlip
	faultPause
	faultSkew
	faultCoarse
	faultJump
	faultRegionDown
	faultReplicaGone
	faultNodeLost
	faultNodeGoes
	faultNodeDrained
	faultGivenUp
	faultLogFull
	faultRemoved
	faultOldDisk
	faultSlow
	faultSchema
	faultSeedCut
	faultStoreSlow
	faultStoreError
	faultStoreCut
	faultStoreFlip
	faultStoreStale
	faultClientLoss
	faultSplit
	faultMerge
	faultMoved
	faultFlush
	faultCompact
	faultKinds
)

var faultNames = [faultKinds]string{
	"message lost", "message twice", "message late", "message into a cut", "stream into a cut", "stream broken", "batch missing", "batches swapped", "batch twice",
	"frame corrupt", "cut one way", "cut between two", "node cut off", "region cut off", "link flapping", "crash", "crash in a write", "crash soon after start", "write fails",
	"stop in good order", "crash behind a promise", "disk bit flip", "pause", "clock skew", "clock coarse", "clock jump", "region down", "replica removed", "node loses its disk", "node let go", "node drained", "region given up", "change log at its bound", "region removed by force", "old disk", "slow region", "two changes of a table at once", "seed cut off", "archive slow", "archive error", "archive object short", "archive bit flip", "archive stale",
	"client's message lost", "split by hand", "merged by hand", "moved by hand", "flush", "compaction",
}

// cell names one cell of what the generator has reached: an operation, a family of faults that was at work, and an outcome.
func cell(op opKind, family string, o outcome) string {
	return opNames[op] + " / " + family + " / " + outcomeNames[o]
}

// Counts is what a run, or many, have done.
type Counts struct {
	Seeds, Replayed int
	Faults          [faultKinds]int
	Ops             [opKinds][4]int // by outcome
	Checked         int             // operations checked for linearizability
	Compared        int             // items compared between regions
	Explained       int             // items explained from the history
	Again           int             // changes that one region alone had when it was given up
	Lost            int             // changes that one region alone had when it lost its disk
	Verified        int             // pairs of regions that have found themselves equal
	Audited         int             // times that the replicas of a group were held against each other
	Cells           map[string]int
	Steps           int
	Partitions      [maxPartitions]int // regions whose tables have one partition, two, and so on
	Splits          int                // partitions that were cut off others
	Merges          int                // partitions that have taken in others
	FlipsRefused    int                // bit flips on a disk that the node refused, at its start or when it read everything back
	FlipsHarmless   int                // those with which it went on
	SimSeconds      float64
}

func newCounts() *Counts { return &Counts{Cells: map[string]int{}} }

func (c *Counts) fault(k faultKind) { c.Faults[k]++ }

// Total is the number of faults.
func (c *Counts) Total() (n int) {
	for _, k := range c.Faults {
		n += k
	}
	return n
}

// Add adds what another run has done.
func (c *Counts) Add(o *Counts) {
	c.Seeds += o.Seeds
	c.Replayed += o.Replayed
	for i := range c.Faults {
		c.Faults[i] += o.Faults[i]
	}
	for i := range c.Ops {
		for j := range c.Ops[i] {
			c.Ops[i][j] += o.Ops[i][j]
		}
	}
	c.Checked += o.Checked
	c.Compared += o.Compared
	c.Explained += o.Explained
	c.Verified += o.Verified
	c.Audited += o.Audited
	c.Again += o.Again
	for k, n := range o.Cells {
		c.Cells[k] += n
	}
	c.Steps += o.Steps
	for i, n := range o.Partitions {
		c.Partitions[i] += n
	}
	c.FlipsRefused += o.FlipsRefused
	c.FlipsHarmless += o.FlipsHarmless
	c.Splits += o.Splits
	c.Merges += o.Merges
	c.SimSeconds += o.SimSeconds
}

// Unreached returns the kinds of faults and the operations that never happened, and the cells of drawn families that should have and did not.
func (c *Counts) Unreached() (missing []string) {
	for i, n := range c.Faults {
		if n == 0 && faultKind(i) != faultMoved { // of a family that is not drawn
			missing = append(missing, "fault: "+faultNames[i])
		}
	}
	for i, n := range c.Partitions {
		if n == 0 {
			missing = append(missing, fmt.Sprintf("region: tables of %d partitions", i+1))
		}
	}
	for op := range opKinds {
		if c.Ops[op][done] == 0 {
			missing = append(missing, "operation: "+opNames[op]+": done")
		}
		for _, f := range drawnFamilies {
			if c.Cells[cell(op, f, done)] == 0 {
				missing = append(missing, "cell: "+opNames[op]+" during "+f+": done")
			}
		}
	}
	return missing
}

// Print writes what was done, for people.
func (c *Counts) Print(w io.Writer) {
	fmt.Fprintf(w, "%d seeds (%d replayed and identical), %.0f simulated hours, %d steps\n", c.Seeds, c.Replayed, c.SimSeconds/3600, c.Steps)
	fmt.Fprintf(w, "regions by the partitions of a table, from 1 on: %d\n", c.Partitions)
	fmt.Fprintf(w, "%d faults, %.0f a seed:", c.Total(), float64(c.Total())/float64(max(1, c.Seeds)))
	for i, n := range c.Faults {
		if i > 0 {
			fmt.Fprint(w, ",")
		}
		fmt.Fprintf(w, " %s %d", faultNames[i], n)
	}
	fmt.Fprintln(w)
	for op := range opKinds {
		var parts []string
		for o, n := range c.Ops[op] {
			if n > 0 {
				parts = append(parts, fmt.Sprintf("%s %d", outcomeNames[o], n))
			}
		}
		fmt.Fprintf(w, "  %-22s %s\n", opNames[op], strings.Join(parts, ", "))
	}
	fmt.Fprintf(w, "%d operations checked for linearizability, %d items compared between replicas, %d explained from the history, %d comparisons of a region's own with another, %d of a group's replicas\n", c.Checked, c.Compared, c.Explained, c.Verified, c.Audited)
	fmt.Fprintf(w, "%d changes that a region alone had when it was given up\n", c.Again)
	fmt.Fprintf(w, "%d bits flipped on disks: %d refused, %d harmless\n", c.FlipsRefused+c.FlipsHarmless, c.FlipsRefused, c.FlipsHarmless)
	fmt.Fprintf(w, "%d partitions cut off others, %d that have taken in others\n", c.Splits, c.Merges)
	fmt.Fprintf(w, "%d of %d cells of operation x fault family x outcome reached; by family:", len(c.Cells), int(opKinds)*len(familyNames)*len(outcomeNames))
	for _, f := range familyNames {
		n := 0
		for name := range c.Cells {
			if strings.Contains(name, " / "+f+" / ") {
				n++
			}
		}
		fmt.Fprintf(w, " %s %d", f, n)
	}
	fmt.Fprintln(w)
}

// tally is a run's figures for a file: names instead of numbers.
type tally struct {
	Seeds, Replayed, Faults             int
	FaultsBySite                        map[string]int
	OperationsByOutcome                 map[string]map[string]int
	OperationsCheckedForRegisters       int
	ItemsCompared, ItemsExplained       int
	DiskFlipsRefused, DiskFlipsHarmless int
	CellsReached, SchedulingSteps       int
	SimulatedHours                      float64
}

func (c *Counts) tally() tally {
	t := tally{
		Seeds: c.Seeds, Replayed: c.Replayed, Faults: c.Total(), FaultsBySite: map[string]int{}, OperationsByOutcome: map[string]map[string]int{},
		OperationsCheckedForRegisters: c.Checked, ItemsCompared: c.Compared, ItemsExplained: c.Explained, CellsReached: len(c.Cells), DiskFlipsRefused: c.FlipsRefused, DiskFlipsHarmless: c.FlipsHarmless,
		SchedulingSteps: c.Steps, SimulatedHours: c.SimSeconds / 3600,
	}
	for i, n := range c.Faults {
		t.FaultsBySite[faultNames[i]] = n
	}
	for op := range opKinds {
		by := map[string]int{}
		for o, n := range c.Ops[op] {
			by[outcomeNames[o]] = n
		}
		t.OperationsByOutcome[opNames[op]] = by
	}
	return t
}
