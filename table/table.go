// Package table owns what a table is: its schema, its indexes, which bytes are an item's key, and which
// index rows an item has, as pure functions of schema and item. It also owns the global-table file
// (globaltable.go).
//
// It leaves expressions to package expr, merging to package crdt, and where anything is kept to package
// region and below.
//
// Invariants: a Schema is valid once made and never changes afterwards: a change makes
// a new one. An index row is a function of (schema, item) alone and carries no time of its own.
package table

import "github.com/commutatordb/commutator/item"

// Attribute is a key attribute of a table or an index: its name and its type (S, N or B).
type Attribute struct {
	Name string
	Kind item.Kind
}

// Projection says which attributes an index row carries beside the index's and the table's keys.
type Projection string

// The projections, spelled as the API spells them.
const (
	ProjectAll     Projection = "ALL"
	ProjectKeys    Projection = "KEYS_ONLY"
	ProjectInclude Projection = "INCLUDE"
)

// Index is a secondary index. A local one shares the table's partition key (Hash holds it) and has one
// Range attribute; a global one has up to four of each, Range possibly none.
type Index struct {
	ID         uint32 // within the table; never reused
	Name       string
	Global     bool
	Hash       []Attribute
	Range      []Attribute
	Projection Projection
	Include    []string // attributes of ProjectInclude, as the client gave them

	// Backfilling is true while rows for older items are still being written. Such an index is kept up
	// to date by every write, and may not be read yet.
	Backfilling bool `json:",omitempty"`

	// Deleting is true from when the index is to go until it is gone. It is kept up to date until then, and may not be
	// read any more.
	Deleting bool `json:",omitempty"`

	Throughput Throughput
	OnDemand   Throughput `json:",omitzero"` // as of a Definition
	Warm       Throughput `json:",omitzero"`
	Scaled     Scaled     `json:",omitzero"`
}

// Schema is what a partition must know of its table to apply a command: the same in every replica.
type Schema struct {
	Name    string
	Hash    Attribute
	Range   Attribute // Name "" in a table without a sort key
	Indexes []Index   // in order of creation

	// Modes names what merges and what the last writer wins; package crdt knows what they mean.
	Modes Modes

	// Solo is true while the table has no replica in another region: no write can meet one that it has
	// not seen, so every record is stored folded.
	Solo bool

	// Fences are for regions whose earlier incarnations nothing is taken from any more.
	Fences []Fence `json:",omitempty"`

	// Closed says that nothing is written here any more: the other regions have given up what this one has.
	Closed bool `json:",omitempty"`
}

// Fenced tells whether nothing is taken any more from an incarnation of a region.
func (s *Schema) Fenced(region string, incarnation uint16) bool {
	for _, f := range s.Fences {
		if f.Region == region {
			return incarnation < f.Incarnation
		}
	}
	return false
}

// Mode is how writes of several regions meet.
type Mode string

// The modes. "" means Merge, the default.
const (
	Merge          Mode = "Merge"
	LastWriterWins Mode = "LastWriterWins"
)

// Modes is a table's mode and what some top-level attributes have instead.
type Modes struct {
	Table      Mode
	Attributes []AttributeMode `json:",omitempty"` // sorted by name
}

// AttributeMode gives one top-level attribute a mode of its own.
type AttributeMode struct {
	Name string
	Mode Mode
}

// HasRange tells whether the table has a sort key.
func (s *Schema) HasRange() bool { return s.Range.Name != "" }

// Index returns the named index, or nil.
func (s *Schema) Index(name string) *Index {
	for i := range s.Indexes {
		if s.Indexes[i].Name == name {
			return &s.Indexes[i]
		}
	}
	return nil
}

// has tells whether the schema has this very index.
func (s *Schema) has(x *Index) bool {
	have := s.Index(x.Name)
	return have != nil && have.ID == x.ID
}

// KeyNames returns the names of the table's key attributes, partition key first.
func (s *Schema) KeyNames() []string {
	if s.HasRange() {
		return []string{s.Hash.Name, s.Range.Name}
	}
	return []string{s.Hash.Name}
}

// KeyAttributes returns the table's key attributes, partition key first.
func (s *Schema) KeyAttributes() []Attribute {
	if s.HasRange() {
		return []Attribute{s.Hash, s.Range}
	}
	return []Attribute{s.Hash}
}

// KeyAttributes returns the index's key attributes, the hash ones first.
func (x *Index) KeyAttributes() []Attribute {
	return append(append([]Attribute(nil), x.Hash...), x.Range...)
}
