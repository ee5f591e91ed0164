package api

import (
	"fmt"
	"slices"
	"strings"

	"github.com/commutatordb/commutator/item"
	"github.com/commutatordb/commutator/table"
)

// Limits of a table's indexes. Source: Developer Guide, "Quotas".
const (
	maxLocalIndexes    = 5
	maxGlobalIndexes   = 20
	maxIncluded        = 20  // attributes that one index includes
	maxIncludedInTable = 100 // the same over all its indexes
	maxKeyParts        = 4   // attributes of each kind in a global index's key
)

func (c *constraints) definitions(list []attributeDefinition) {
	for i, a := range list {
		at := fmt.Sprintf("attributeDefinitions.%d.member.", i+1)
		if a.AttributeType == nil {
			c.required(at + "attributeType")
		} else {
			c.enum(*a.AttributeType, at+"attributeType", "B", "N", "S")
		}
		if a.AttributeName == nil {
			c.required(at + "attributeName")
		} else {
			c.length(*a.AttributeName, at+"attributeName", 1, 255)
		}
	}
}

// keySchema checks a key schema; most is how many elements it may have, 0 for no limit.
func (c *constraints) keySchema(list []keySchemaElement, at string, most int) {
	c.count(len(list), at, 1, most)
	for i, k := range list {
		at := fmt.Sprintf("%s.%d.member.", at, i+1)
		if k.AttributeName == nil {
			c.required(at + "attributeName")
		} else {
			c.length(*k.AttributeName, at+"attributeName", 1, 255)
		}
		if k.KeyType == nil {
			c.required(at + "keyType")
		} else {
			c.enum(*k.KeyType, at+"keyType", "HASH", "RANGE")
		}
	}
}

// index checks an index; mostKeys is as of keySchema.
func (c *constraints) index(x *indexShape, at string, mostKeys int) {
	if x.Projection == nil {
		c.required(at + "projection")
	} else {
		if x.Projection.ProjectionType != nil {
			c.enum(*x.Projection.ProjectionType, at+"projection.projectionType", "ALL", "INCLUDE", "KEYS_ONLY")
		}
		if x.Projection.NonKeyAttributes != nil {
			c.count(len(x.Projection.NonKeyAttributes), at+"projection.nonKeyAttributes", 1, maxIncluded)
			c.lengths(x.Projection.NonKeyAttributes, at+"projection.nonKeyAttributes", 1, 255)
		}
	}
	c.indexName(x.IndexName, at+"indexName")
	c.throughput(x.ProvisionedThroughput, at+"provisionedThroughput")
	if x.KeySchema == nil {
		c.required(at + "keySchema")
	} else {
		c.keySchema(x.KeySchema, at+"keySchema", mostKeys)
	}
}

func (c *constraints) indexName(name *string, at string) {
	if name == nil {
		c.required(at)
	} else {
		c.wholeName(*name, at)
	}
}

// attributeKinds are attribute definitions.
type attributeKinds []table.Attribute

func definedKinds(list []attributeDefinition) (attributeKinds, error) {
	var out attributeKinds
	for _, a := range list {
		if out.find(*a.AttributeName) != nil {
			return nil, invalid("Attribute Name is duplicated: %s", *a.AttributeName)
		}
		out = append(out, table.Attribute{Name: *a.AttributeName, Kind: item.KindOf(*a.AttributeType)})
	}
	return out, nil
}

func (k attributeKinds) find(name string) *table.Attribute {
	for i := range k {
		if k[i].Name == name {
			return &k[i]
		}
	}
	return nil
}

// list writes the names as the service does: in the order of a Java HashSet made for as many.
func (k attributeKinds) list() string {
	size := 1
	for size < len(k) {
		size *= 2
	}
	return hashed(names(k), size)
}

func names(list []table.Attribute) []string {
	var out []string
	for _, a := range list {
		out = append(out, a.Name)
	}
	return out
}

// hashed writes names in the order in which a Java HashSet of so many buckets has them once they were put into it one by one.
// Source: answers of the service, recorded in public.
func hashed(names []string, buckets int) string {
	hash := func(s string) uint32 {
		var h uint32
		for _, r := range s {
			h = 31*h + uint32(r)
		}
		return h ^ h>>16
	}
	for len(names)*4 > buckets*3 {
		buckets *= 2
	}
	names = slices.Clone(names)
	slices.SortStableFunc(names, func(a, b string) int {
		return int(hash(a)&uint32(buckets-1)) - int(hash(b)&uint32(buckets-1))
	})
	return strings.Join(names, ", ")
}

// schemaNames are the attributes' names in a key schema.
func schemaNames(schema []keySchemaElement) []string {
	var out []string
	for _, e := range schema {
		out = append(out, *e.AttributeName)
	}
	return out
}

// define refuses an index's key schema that has attributes without a definition.
func (k attributeKinds) define(schema []keySchemaElement) error {
	keys := schemaNames(schema)
	if slices.ContainsFunc(keys, func(name string) bool { return k.find(name) == nil }) {
		return parameter("Some index key attributes are not defined in AttributeDefinitions. Keys: [%s], AttributeDefinitions: [%s]", strings.Join(keys, ", "), k.list())
	}
	return nil
}

// keyParts are the attributes of one key.
type keyParts struct{ hash, sort []table.Attribute }

// tableKey makes the key of a table, or of a local index, whose attributes are all defined.
func (k attributeKinds) tableKey(schema []keySchemaElement) (keyParts, error) {
	var out keyParts
	switch keys := schemaNames(schema); {
	case len(keys) > 1 && keys[0] == keys[1]:
		return out, invalid("Both the Hash Key and the Range Key element in the KeySchema have the same name")
	case *schema[0].KeyType != "HASH":
		return out, invalid("Invalid KeySchema: The first KeySchemaElement is not a HASH key type")
	case len(keys) > 1 && *schema[1].KeyType != "RANGE":
		return out, invalid("Invalid KeySchema: The second KeySchemaElement is not a RANGE key type")
	}
	return k.parts(schema), nil
}

// globalKey makes the key of a global index, whose attributes are all defined.
func (k attributeKinds) globalKey(schema []keySchemaElement) (keyParts, error) {
	var out keyParts
	if *schema[0].KeyType != "HASH" {
		return out, invalid("Invalid KeySchema: The first KeySchemaElement is not a HASH key type")
	}
	keys := schemaNames(schema)
	for i, e := range schema {
		switch {
		case slices.Contains(keys[:i], keys[i]) && len(keys) == 2:
			return out, invalid("Both the Hash Key and the Range Key element in the KeySchema have the same name")
		case slices.Contains(keys[:i], keys[i]):
			return out, invalid("The KeySchema contains multiple key attributes with the same name")
		case i > 0 && *e.KeyType == "HASH" && *schema[i-1].KeyType == "RANGE":
			return out, parameter("All HASH key attributes must precede RANGE key attributes in the KeySchema")
		}
	}
	out = k.parts(schema)
	switch {
	case len(out.hash) > maxKeyParts:
		return out, parameter("The KeySchema exceeds the maximum allowed number of HASH key attributes")
	case len(out.sort) > maxKeyParts:
		return out, parameter("The KeySchema exceeds the maximum allowed number of RANGE key attributes")
	}
	return out, nil
}

func (k attributeKinds) parts(schema []keySchemaElement) keyParts {
	var out keyParts
	for _, e := range schema {
		if a := *k.find(*e.AttributeName); *e.KeyType == "HASH" {
			out.hash = append(out.hash, a)
		} else {
			out.sort = append(out.sort, a)
		}
	}
	return out
}

// setKeys makes the keys of a new table and of its indexes. Every definition must be of a key's attribute, and the other way round:
// that is checked before anything else of an index.
func (in *createTableInput) setKeys(d *table.Definition) error {
	kinds, err := definedKinds(in.AttributeDefinitions)
	if err != nil {
		return err
	}
	keys := schemaNames(in.KeySchema)
	undefined := slices.ContainsFunc(keys, func(name string) bool { return kinds.find(name) == nil })
	if len(kinds) < len(keys) || undefined && len(keys) == 2 {
		return invalid("Invalid KeySchema: Some index key attribute have no definition")
	}
	if err := kinds.define(in.KeySchema); err != nil {
		return err
	}
	parts, err := kinds.tableKey(in.KeySchema)
	if err != nil {
		return err
	}
	d.Schema.Hash = parts.hash[0]
	if len(parts.sort) > 0 {
		d.Schema.Range = parts.sort[0]
	}
	if in.LocalSecondaryIndexes == nil && in.GlobalSecondaryIndexes == nil {
		if len(keys) != len(kinds) {
			return parameter("Number of attributes in KeySchema does not exactly match number of attributes defined in AttributeDefinitions")
		}
		return nil
	}
	if in.LocalSecondaryIndexes != nil {
		switch {
		case len(in.LocalSecondaryIndexes) == 0:
			return parameter("List of LocalSecondaryIndexes is empty")
		case !d.Schema.HasRange():
			return parameter("Table KeySchema does not have a range key, which is required when specifying a LocalSecondaryIndex")
		}
	}
	if in.GlobalSecondaryIndexes != nil && len(in.GlobalSecondaryIndexes) == 0 {
		return parameter("List of GlobalSecondaryIndexes is empty")
	}
	if err := in.allUsed(kinds); err != nil {
		return err
	}
	return in.addIndexes(d, kinds)
}

// allUsed refuses keys of indexes that are not defined, and definitions that no key uses.
func (in *createTableInput) allUsed(kinds attributeKinds) error {
	used := schemaNames(in.KeySchema)
	for _, list := range [...][]indexShape{in.LocalSecondaryIndexes, in.GlobalSecondaryIndexes} {
		for i := range list {
			if err := kinds.define(list[i].KeySchema); err != nil {
				return err
			}
			for _, name := range schemaNames(list[i].KeySchema) {
				if !slices.Contains(used, name) {
					used = append(used, name)
				}
			}
		}
	}
	if len(used) < len(kinds) {
		return parameter("Some AttributeDefinitions are not used. AttributeDefinitions: [%s], keys used: [%s]", kinds.list(), hashed(used, 16))
	}
	return nil
}

// addIndexes makes the indexes of a new table. Their IDs are left to who stores the definition.
func (in *createTableInput) addIndexes(d *table.Definition, kinds attributeKinds) error {
	for i := range in.LocalSecondaryIndexes {
		if err := addLocalIndex(&d.Schema, kinds, &in.LocalSecondaryIndexes[i]); err != nil {
			return err
		}
	}
	if len(in.LocalSecondaryIndexes) > maxLocalIndexes {
		return parameter("Number of LocalSecondaryIndexes exceeds per-table limit of %d", maxLocalIndexes)
	}
	for i := range in.GlobalSecondaryIndexes {
		x := &in.GlobalSecondaryIndexes[i]
		if err := addGlobalIndex(d, kinds, x); err != nil {
			return err
		}
		if err := x.setCapacity(d, &d.Schema.Indexes[len(d.Schema.Indexes)-1]); err != nil {
			return err
		}
	}
	if len(in.GlobalSecondaryIndexes) > maxGlobalIndexes {
		return parameter("GlobalSecondaryIndex count exceeds the per-table limit of %d", maxGlobalIndexes)
	}
	return checkIncluded(&d.Schema)
}

func addLocalIndex(s *table.Schema, kinds attributeKinds, in *indexShape) error {
	keys, err := kinds.tableKey(in.KeySchema)
	switch {
	case err != nil:
		return err
	case len(keys.sort) == 0:
		return parameter("Index KeySchema does not have a range key for index: %s", *in.IndexName)
	case keys.hash[0] != s.Hash:
		return parameter("Index KeySchema does not have the same leading hash key as table KeySchema for index: %s. index hash key: %s, table hash key: %s", *in.IndexName, keys.hash[0].Name, s.Hash.Name)
	}
	return in.add(s, table.Index{Hash: keys.hash, Range: keys.sort})
}

func addGlobalIndex(d *table.Definition, kinds attributeKinds, in *indexShape) error {
	keys, err := kinds.globalKey(in.KeySchema)
	if err != nil {
		return err
	}
	return in.add(&d.Schema, table.Index{Global: true, Hash: keys.hash, Range: keys.sort})
}

// add checks an index's projection and name, and adds it.
func (in *indexShape) add(s *table.Schema, x table.Index) error {
	x.Name = *in.IndexName
	if err := setProjection(&x, in.Projection); err != nil {
		return err
	}
	if s.Index(x.Name) != nil {
		return parameter("Duplicate index name: %s", x.Name)
	}
	s.Indexes = append(s.Indexes, x)
	return nil
}

func setProjection(x *table.Index, p *projectionShape) error {
	if p.ProjectionType == nil {
		return parameter("Unknown ProjectionType: null")
	}
	x.Projection = table.Projection(*p.ProjectionType)
	x.Include = p.NonKeyAttributes
	switch {
	case x.Projection != table.ProjectInclude && len(x.Include) > 0:
		return parameter("ProjectionType is %s, but NonKeyAttributes is specified", x.Projection)
	case x.Projection == table.ProjectInclude && len(x.Include) == 0:
		return parameter("ProjectionType is INCLUDE, but NonKeyAttributes is not specified")
	}
	for i, name := range x.Include {
		if slices.Contains(x.Include[:i], name) {
			return parameter("Duplicate element in NonKeyAttributes: %s", name)
		}
	}
	return nil
}

// checkIncluded refuses more attributes in projections than a table may have.
func checkIncluded(s *table.Schema) error {
	included := 0
	for i := range s.Indexes {
		included += len(s.Indexes[i].Include)
	}
	if included > maxIncludedInTable {
		return parameter("Number of NonKeyAttributes exceeds per-table limit of %d", maxIncludedInTable)
	}
	return nil
}
