package replication

import (
	"slices"
	"strconv"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/internal/mutant"
)

// Stability computes, for one table in one region, up to which time everything is stable: the region
// holds everything up to it, and all that may still arrive has seen everything up to it.
//
// That is so for a time T when, for every member region, the latest progress received on each of its
// streams covers T for every member's writes; receiving it behind the changes it covers is what makes
// both halves true. Source: MERGE.md, "Stable, and folding".
type Stability struct {
	own     string
	members []string            // other regions, all that count
	streams map[string][]uint64 // member -> its partitions
	heard   map[string]Progress // StreamName-like key -> latest progress, applied
	fences  map[string]bool     // FenceName -> this region has settled it
}

// FenceName is what stands in a Progress's Applied, with crdt.MaxHLC, for what is left of a region's incarnations before a given one:
// the origin has all that any region has of their writes, and no region will ever have more.
func FenceName(region string, incarnation uint16) string {
	return region + "#" + strconv.FormatUint(uint64(incarnation), 10)
}

// LeftName stands there likewise for a region whose replica is gone: the origin knows so, and had all that it wrote before it went. version tells
// apart the times that it went.
func LeftName(region string, version uint64) string {
	return region + "@" + strconv.FormatUint(version, 10)
}

// SetFences says, by FenceName and LeftName, which regions' incarnations were given up, and of which this region has all. While any member has
// not, nothing is stable beyond what was: what such an incarnation wrote may still arrive, and it waits for nobody.
func (s *Stability) SetFences(settled map[string]bool) { s.fences = settled }

// NewStability returns a Stability that has heard nothing yet, so that nothing is stable.
func NewStability(own string) *Stability {
	return &Stability{own: own, streams: map[string][]uint64{}, heard: map[string]Progress{}}
}

// SetMembers says which other regions count, and which partitions each has. What was heard of those that
// still count stays.
func (s *Stability) SetMembers(partitions map[string][]uint64) {
	s.members = s.members[:0]
	heard := map[string]Progress{}
	for region, ids := range partitions {
		s.members = append(s.members, region)
		for _, id := range ids {
			key := StreamName(region, 0, id)
			if p, ok := s.heard[key]; ok {
				heard[key] = p
			}
		}
	}
	s.streams, s.heard = partitions, heard
}

// Heard takes a progress received from a region's partition, behind changes that have all been applied.
func (s *Stability) Heard(region string, partition uint64, p Progress) {
	s.heard[StreamName(region, 0, partition)] = p
}

// Applied returns, by region, up to which time this region has applied all of that region's writes: what
// it tells the others. Regions not heard from are missing.
func (s *Stability) Applied() map[string]crdt.HLC {
	out := make(map[string]crdt.HLC, len(s.members))
	for _, region := range s.members {
		if h, ok := s.clock(region); ok {
			out[region] = h
		}
	}
	for name, settled := range s.fences {
		if settled {
			out[name] = crdt.MaxHLC
		}
	}
	return out
}

// AppliedOf is Applied of one of a region's partitions, of which it is enough to know what it had before it was cut; 0 for one not heard from.
// Of one that the region does not have, as far as is known here, it is that of all of them.
func (s *Stability) AppliedOf(region string, partition uint64) crdt.HLC {
	if !slices.Contains(s.streams[region], partition) {
		if clock, ok := s.clock(region); ok {
			return clock
		}
		return 0
	}
	return s.heard[StreamName(region, 0, partition)].Clock
}

// clock is the least clock heard on a region's streams. There is none as long as they do not say of every key that it is one's: another
// partition may have been cut off that is not known here, and what it has written may be older than what all others have come to.
func (s *Stability) clock(region string) (crdt.HLC, bool) {
	var least crdt.HLC
	var ranges []Range
	for i, id := range s.streams[region] {
		p, ok := s.heard[StreamName(region, 0, id)]
		if !ok {
			return 0, false
		}
		ranges = append(ranges, p.Range)
		if i == 0 || p.Clock < least {
			least = p.Clock
		}
	}
	return least, Covers(ranges) || mutant.On(mutant.CutOffUnknown) && len(ranges) > 0
}

// Passed tells whether all changes of a region's partition up to a number of its change log have been applied, as far as it has said.
func (s *Stability) Passed(region string, partition, seq uint64) bool {
	p, ok := s.heard[StreamName(region, 0, partition)]
	return ok && p.Seq >= seq
}

// Reached returns how far a member has come by what was heard of it: of its own clock, and of this region's writes. It is 0 before that.
func (s *Stability) Reached(member string) crdt.HLC {
	at, ok := s.clock(member)
	if !ok {
		return 0
	}
	for _, id := range s.streams[member] {
		at = min(at, s.heard[StreamName(member, 0, id)].Applied[s.own])
	}
	return at
}

// Stable returns the greatest time known to be stable, given this region's own clock; 0 while some member
// has not been heard from. A region without others is stable up to its own clock.
func (s *Stability) Stable(clock crdt.HLC) crdt.HLC {
	stable := clock
	for _, settled := range s.fences {
		if !settled && !mutant.On(mutant.FoldUnsettled) {
			return 0
		}
	}
	for _, member := range s.members {
		if mutant.On(mutant.StableWithoutMember) && member == slices.Max(s.members) {
			continue
		}
		if _, ok := s.clock(member); !ok && !mutant.On(mutant.StableOfOneStream) {
			return 0
		}
		for _, id := range s.streams[member] {
			p, ok := s.heard[StreamName(member, 0, id)]
			if !ok {
				return 0
			}
			if mutant.On(mutant.StableOfOneStream) && id != s.streams[member][0] {
				continue
			}
			// The member's own writes, and this region's and every other's as the member has applied them.
			stable = min(stable, p.Clock, p.Applied[s.own])
			for name := range s.fences {
				if p.Applied[name] == 0 && !mutant.On(mutant.FoldUnsettled) {
					return 0
				}
			}
			for _, other := range s.members {
				if other != member && !mutant.On(mutant.StableWithoutApplied) {
					stable = min(stable, p.Applied[other])
				}
			}
		}
	}
	if mutant.On(mutant.FoldEarly) {
		stable += crdt.At(3000, 0)
	}
	return stable
}
