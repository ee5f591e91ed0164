package table

import "slices"

// Defined returns the attributes that any key of the table or of its indexes has, each once, in order of
// first use: what the API calls attribute definitions.
func (s *Schema) Defined() []Attribute {
	out := s.KeyAttributes()
	for i := range s.Indexes {
		for _, a := range s.Indexes[i].KeyAttributes() {
			if !slices.Contains(out, a) {
				out = append(out, a)
			}
		}
	}
	return out
}

// NextIndexID returns an id that no index of the schema has, above them all.
func (s *Schema) NextIndexID() uint32 {
	id := uint32(0)
	for i := range s.Indexes {
		id = max(id, s.Indexes[i].ID)
	}
	return id + 1
}
