package table

import (
	"cmp"
	"reflect"
	"slices"
	"strings"
)

// Override is what the replica of one region has other than the table. It is shared like the settings that it overrides, and a
// change of such a setting, made in whichever region, takes it away. Source: Developer Guide, "How global tables work".
type Override struct {
	Region       string
	Read         int64           `json:",omitempty"` // provisioned units; 0: the table's
	MaxRead      int64           `json:",omitempty"` // the most on demand; 0: the table's
	Class        string          `json:",omitempty"`
	ClassChanged int64           `json:",omitempty"` // ms since the Unix epoch
	KeyID        string          `json:",omitempty"` // of the encryption key, as the client gave it
	Indexes      []IndexOverride `json:",omitempty"` // sorted by name
}

// IndexOverride is an Override of a global index.
type IndexOverride struct {
	Name          string
	Read, MaxRead int64 `json:",omitempty"`
}

// Index returns the override of an index, which is added where there is none.
func (o *Override) Index(name string) *IndexOverride {
	i, ok := slices.BinarySearchFunc(o.Indexes, name, func(x IndexOverride, name string) int { return strings.Compare(x.Name, name) })
	if !ok {
		o.Indexes = slices.Insert(o.Indexes, i, IndexOverride{Name: name})
	}
	return &o.Indexes[i]
}

// Override changes what the replica of a region overrides.
func (d *Definition) Override(region string, change func(*Override)) {
	i, ok := slices.BinarySearchFunc(d.Overrides, region, func(o Override, region string) int { return strings.Compare(o.Region, region) })
	if !ok {
		d.Overrides = slices.Insert(d.Overrides, i, Override{Region: region})
	}
	change(&d.Overrides[i])
	d.tidyOverrides()
}

// OverrideNoMore changes what all replicas override.
func (d *Definition) OverrideNoMore(change func(*Override)) {
	for i := range d.Overrides {
		change(&d.Overrides[i])
	}
	d.tidyOverrides()
}

// tidyOverrides drops those that override nothing.
func (d *Definition) tidyOverrides() {
	for i := range d.Overrides {
		o := &d.Overrides[i]
		o.Indexes = slices.DeleteFunc(o.Indexes, func(x IndexOverride) bool { return x.Read == 0 && x.MaxRead == 0 })
		if len(o.Indexes) == 0 {
			o.Indexes = nil
		}
	}
	d.Overrides = slices.DeleteFunc(d.Overrides, func(o Override) bool { return reflect.DeepEqual(o, Override{Region: o.Region}) })
	if len(d.Overrides) == 0 {
		d.Overrides = nil
	}
}

// In returns the definition as it is in force in a region: with what its replica overrides. It may be d itself and must not be
// changed.
func (d *Definition) In(region string) *Definition {
	i := slices.IndexFunc(d.Overrides, func(o Override) bool { return o.Region == region })
	if i < 0 {
		return d
	}
	o := &d.Overrides[i]
	c := d.Clone()
	override := func(provisioned, most *int64, read, maxRead int64) {
		if d.Billing == Provisioned {
			*provisioned = cmp.Or(read, *provisioned)
		} else {
			*most = cmp.Or(maxRead, *most)
		}
	}
	override(&c.Throughput.Read, &c.OnDemand.Read, o.Read, o.MaxRead)
	for _, x := range o.Indexes {
		if have := c.Schema.Index(x.Name); have != nil {
			override(&have.Throughput.Read, &have.OnDemand.Read, x.Read, x.MaxRead)
		}
	}
	if o.Class != "" {
		c.Class, c.ClassChanged = o.Class, o.ClassChanged
	}
	if o.KeyID != "" && c.SSE != nil {
		c.SSE.KeyID = o.KeyID
	}
	return c
}

func cloneOverrides(list []Override) []Override {
	list = slices.Clone(list)
	for i := range list {
		list[i].Indexes = slices.Clone(list[i].Indexes)
	}
	return list
}
