package storage

import (
	"bytes"
	"slices"
)

// Row is a key and its value.
type Row struct{ Key, Value []byte }

// Pages are rows that are fetched some at a time, from elsewhere.
type Pages interface {
	// Fetch returns the first rows with keys in [lower, upper), or the last ones, from the greatest key down, and whether there are no more of
	// them. It returns at least one unless there is none.
	Fetch(lower, upper []byte, last bool) (rows []Row, all bool, err error)
}

// IterPages walks the rows of pages with keys in [lower, upper) as Iter walks a store's.
func IterPages(p Pages, lower, upper []byte) *Iter {
	return &Iter{paged: &paged{pages: p, lower: slices.Clone(lower), upper: slices.Clone(upper)}}
}

// paged is an Iter's place in its pages.
type paged struct {
	pages        Pages
	lower, upper []byte
	rows         []Row
	at           int  // of rows
	down         bool // rows go from the greatest key down
	all          bool // there are no more behind them
}

// fetch moves to the first row of what there is in [lower, upper), or to the last one.
func (p *paged) fetch(lower, upper []byte, last bool) (bool, error) {
	p.rows, p.at, p.down, p.all = nil, 0, last, true
	if bytes.Compare(lower, upper) >= 0 {
		return false, nil
	}
	var err error
	p.rows, p.all, err = p.pages.Fetch(lower, upper, last)
	return err == nil && len(p.rows) > 0, err
}

// step moves on by one, down or up.
func (p *paged) step(down bool) (bool, error) {
	if p.at >= len(p.rows) {
		return false, nil
	}
	key := p.rows[p.at].Key
	if down == p.down {
		p.at++
		if p.at < len(p.rows) || p.all {
			return p.at < len(p.rows), nil
		}
	}
	if down {
		return p.fetch(p.lower, key, true)
	}
	return p.fetch(append(slices.Clone(key), 0), p.upper, false)
}

func (p *paged) seekGE(key []byte) (bool, error) {
	if bytes.Compare(key, p.lower) < 0 {
		key = p.lower
	}
	return p.fetch(key, p.upper, false)
}

func (p *paged) seekLT(key []byte) (bool, error) {
	if bytes.Compare(key, p.upper) > 0 {
		key = p.upper
	}
	return p.fetch(p.lower, key, true)
}

// page takes where a paged walk has come to.
func (i *Iter) page(valid bool, err error) bool {
	if i.err == nil {
		i.err = err
	}
	if !valid || i.err != nil {
		return false
	}
	i.value = i.paged.rows[i.paged.at].Value
	return true
}
