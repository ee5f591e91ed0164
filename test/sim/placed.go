package sim

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/commutatordb/commutator/region/partition"
	"github.com/commutatordb/commutator/storage"
	"github.com/commutatordb/commutator/table"
)

// In a region of more nodes than replicas each node holds some of the partitions. What a region shows is what all of them hold.

// placing is how a region of several nodes places its partitions.
type placing struct {
	nodes        int // that it has at most
	zones        uint64
	replaceAfter time.Duration
}

// drawPlacing draws it from a source of its own: what seeds were before there was any placing they still are, in regions of few nodes.
func drawPlacing(seed uint64, region int) placing {
	rng := rand.New(rand.NewPCG(seed, 28+uint64(region)))
	return placing{4 + rng.IntN(2), 1 + rng.Uint64N(3), time.Duration(2+rng.IntN(8)) * time.Second}
}

func (p placing) zone(node uint64) string { return fmt.Sprintf("z%d", node%p.zones) }

// holding tells whether a node is to hold a partition.
func (m *machine) holding(p *table.Partition) bool {
	return p.Nodes == nil || slices.Contains(p.Nodes, m.engine.Region().NodeID())
}

// votes tells whether a node is a voter of a partition's group, as far as it knows.
func (m *machine) votes(id uint64) bool {
	for _, t := range m.engine.Region().Tables() {
		for _, p := range t.Partitions() {
			if p.ID == id {
				voters, _ := p.Members()
				return slices.Contains(voters, m.engine.Region().NodeID())
			}
		}
	}
	return false
}

// partOf returns the partition that holds a key.
func partOf(d *table.Definition, key table.Key) *table.Partition {
	i := len(d.Partitions) - 1
	for i > 0 && bytes.Compare(d.Partitions[i].Start, key) > 0 {
		i--
	}
	return &d.Partitions[i]
}

// shown returns what a region's nodes show of a table, or why they do not agree.
func (r *regionOf) shown(name string) (items map[string]string, d *table.Definition, why string) {
	return r.gather(name, (*machine).items)
}

// kept returns the records that a region's nodes keep of a table's items, or why they do not agree.
func (r *regionOf) kept(name string) (records map[string]string, d *table.Definition, why string) {
	return r.gather(name, (*machine).records)
}

func (r *regionOf) gather(name string, from func(*machine, string) (map[uint64]map[string]string, *table.Definition, error)) (all map[string]string, d *table.Definition, why string) {
	all = map[string]string{}
	by, first := map[uint64]map[string]string{}, map[uint64]*machine{}
	for _, m := range r.nodes {
		held, of, err := from(m, name)
		if err != nil {
			return nil, nil, fmt.Sprintf("%s: %v", m.name, err)
		}
		if d = of; d == nil {
			continue
		}
		for _, p := range d.Partitions {
			switch have := by[p.ID]; {
			case !m.holding(&p) || !m.votes(p.ID): // it may be on its way there
			case have == nil:
				by[p.ID], first[p.ID] = held[p.ID], m
				maps.Copy(all, held[p.ID])
			default:
				if k := differs(have, held[p.ID]); k != "" {
					return nil, nil, fmt.Sprintf("%s differs from %s at %s of %s", m.name, first[p.ID].name, k, name)
				}
			}
		}
	}
	for _, p := range d.Partitions {
		if by[p.ID] == nil {
			return nil, nil, fmt.Sprintf("nobody in %s holds partition %d of %s", r.name, p.ID, name)
		}
	}
	return all, d, ""
}

// unequal says in which row two replicas of a region differ, which have applied the same, or which row a node has of what it does not hold; ""
// for none.
func (r *regionOf) unequal() string {
	type rows map[string]string
	all, orders := make([]rows, len(r.nodes)), make([][]string, len(r.nodes))
	installed := storage.InstalledKey(0)[:1]
	for i, m := range r.nodes {
		it, err := m.engine.Store().Iter(nil, nil)
		if err != nil {
			return fmt.Sprintf("%s: %v", m.name, err)
		}
		all[i] = rows{}
		for ok := it.First(); ok; ok = it.Next() {
			if bytes.HasPrefix(it.Key(), installed) {
				continue // each node's own
			}
			all[i][string(it.Key())] = string(it.Value())
			orders[i] = append(orders[i], string(it.Key()))
		}
		if err := it.Close(); err != nil {
			return fmt.Sprintf("%s: %v", m.name, err)
		}
	}
	compare := func(a, b int, order []string) string {
		for _, k := range order {
			if x, ok := all[a][k]; all[b][k] != x || !ok {
				return fmt.Sprintf("row %x is %x at %s and %x at %s", k, x, r.nodes[a].name, all[b][k], r.nodes[b].name)
			}
		}
		return ""
	}
	within := func(i int, from, to []byte) []string {
		lo, _ := slices.BinarySearch(orders[i], string(from))
		hi, _ := slices.BinarySearch(orders[i], string(to))
		return orders[i][lo:max(lo, hi)]
	}
	defs, err := r.nodes[0].engine.Region().Definitions()
	if err != nil {
		return err.Error()
	}
	seen := map[string]bool{} // rows of partitions
	for _, d := range defs {
		for _, p := range d.Partitions {
			first := slices.IndexFunc(r.nodes, func(m *machine) bool { return m.holding(&p) })
			if first < 0 {
				return fmt.Sprintf("nobody in %s holds partition %d", r.name, p.ID)
			}
			opened, err := partition.Open(partition.Config{ID: p.ID, Table: d.ID, Start: p.Start, End: p.End, Store: r.nodes[first].engine.Store()})
			if err != nil {
				return fmt.Sprintf("%s: %v", r.nodes[first].name, err)
			}
			for _, at := range opened.Ranges() {
				own := within(first, at[0], at[1])
				for _, k := range own {
					seen[k] = true
				}
				for i, m := range r.nodes {
					have := within(i, at[0], at[1])
					if !m.holding(&p) && len(have) > 0 {
						return fmt.Sprintf("%s has row %x of partition %d, which %v hold", m.name, have[0], p.ID, p.Nodes)
					} else if m.holding(&p) {
						if why := compare(first, i, append(slices.Clone(own), have...)); why != "" {
							return why
						}
					}
				}
			}
		}
	}
	for i := range r.nodes {
		rest := slices.DeleteFunc(slices.Concat(orders[0], orders[i]), func(k string) bool { return seen[k] })
		if why := compare(0, i, rest); why != "" {
			return why
		}
	}
	return ""
}

// unplaced says what is not held yet by who is to hold it, or by whom that is not as it is to be; "" for nothing.
func (r *regionOf) unplaced() string {
	for _, m := range r.nodes {
		if h := m.engine.Region().Health(); h.Moving > 0 || h.UnderReplicated > 0 {
			return fmt.Sprintf("%s: %+v", m.name, h)
		}
	}
	defs, err := r.nodes[0].engine.Region().Definitions()
	if err != nil {
		return err.Error()
	}
	for _, d := range defs {
		for _, p := range d.Partitions {
			if want := min(cmp.Or(r.replicas, replicas), len(r.nodes)); p.Nodes != nil && len(p.Nodes) != want || p.Nodes == nil && len(r.nodes) > cmp.Or(r.replicas, replicas) {
				return fmt.Sprintf("partition %d of %s is to be held by %v, of %d nodes", p.ID, d.Schema.Name, p.Nodes, len(r.nodes))
			}
		}
	}
	return ""
}

// replicas is how many nodes hold a partition if there are so many.
const replicas = 3
