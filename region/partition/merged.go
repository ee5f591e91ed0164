package partition

import (
	"bytes"
	"slices"

	"github.com/commutatordb/commutator/internal/mutant"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/storage"
	"github.com/commutatordb/commutator/storage/keyenc"
)

// merged walks several runs of rows as if they were one, in the order of what stands behind their prefixes, which are of one length.
type merged struct {
	reverse bool
	prefix  int   // length
	runs    []run // those that stand at a row; the first one's comes first, and so on
	all     []*storage.Iter
	err     error // of the first run that could not be read; the walk ends there
}

type run struct {
	*storage.Iter
	of func(value []byte) bool // nil: every row counts
}

// add adds the run of a page's rows that have a prefix, and of which those count that of tells.
func (m *merged) add(r storage.Reader, prefix []byte, of func(value []byte) bool, p op.Page) {
	lower, upper := append(slices.Clone(prefix), p.From...), keyenc.End(prefix)
	if p.To != nil {
		upper = append(slices.Clone(prefix), p.To...)
	}
	it, err := r.Iter(lower, upper)
	if err != nil {
		m.fail(err)
		return
	}
	m.prefix, m.all = len(prefix), append(m.all, it)
	there := false
	if m.reverse {
		there = it.Last()
	} else {
		there = it.First()
	}
	if !there {
		m.fail(it.Err())
		return
	}
	at, _ := slices.BinarySearchFunc(m.runs, run{it, of}, m.compare)
	m.runs = slices.Insert(m.runs, at, run{it, of})
}

func (m *merged) fail(err error) {
	if m.err == nil {
		m.err = err
	}
}

func (m *merged) compare(a, b run) int {
	if m.reverse {
		a, b = b, a
	}
	return bytes.Compare(a.Key()[m.prefix:], b.Key()[m.prefix:])
}

func (m *merged) ok() bool { return m.err == nil && len(m.runs) > 0 }

// key is that of the row where the walk stands, without the prefix, and value the row's. Both are good until next.
func (m *merged) key() []byte   { return m.runs[0].Key()[m.prefix:] }
func (m *merged) value() []byte { return m.runs[0].Value() }

// counts tells whether the row is one of the page's.
func (m *merged) counts() bool { return m.runs[0].of == nil || m.runs[0].of(m.value()) }

func (m *merged) next() {
	it, there := m.runs[0], false
	if m.reverse {
		there = it.Prev()
	} else {
		there = it.Next()
	}
	if !there {
		m.fail(it.Err())
		m.runs = m.runs[1:]
		if mutant.On(mutant.RunLeftOut) {
			m.runs = nil
		}
		return
	}
	for i := 1; i < len(m.runs) && m.compare(m.runs[i-1], m.runs[i]) > 0; i++ {
		m.runs[i-1], m.runs[i] = m.runs[i], m.runs[i-1]
	}
}

func (m *merged) close() {
	for _, it := range m.all {
		m.fail(it.Close())
	}
}
