package api

import (
	"fmt"
	"slices"
	"strings"

	"github.com/commutatordb/commutator/table"
)

// maxTags is how many tags a table may have. Source: Developer Guide, "Quotas".
const maxTags = 50

// Tags that tell how writes of several regions meet: the table's mode, and behind the colon that of one
// top-level attribute.
const (
	tagMode          = "commutator:conflict-resolution"
	tagAttributeMode = tagMode + ":"
)

func (c *constraints) tags(list []tagShape) {
	for i, t := range list {
		at := fmt.Sprintf("tags.%d.member.", i+1)
		if t.Key == nil {
			c.required(at + "key")
		} else {
			c.length(*t.Key, at+"key", 1, 128)
		}
		if t.Value == nil {
			c.required(at + "value")
		} else {
			c.length(*t.Value, at+"value", 0, 256)
		}
	}
}

// addTags sets tags, each in place of one with the same key, and what follows from them.
func addTags(d *table.Definition, list []tagShape) error {
	for _, t := range list {
		if strings.HasPrefix(*t.Key, "aws:") {
			return invalid("One or more parameter values were invalid: Tag keys must not begin with aws: %s", *t.Key)
		}
		i, found := findTag(d, *t.Key)
		if found {
			d.Tags[i].Value = *t.Value
		} else {
			d.Tags = slices.Insert(d.Tags, i, table.Tag{Key: *t.Key, Value: *t.Value})
		}
		if !strings.HasPrefix(*t.Key, tagMode) {
			continue
		}
		mode := table.Mode(*t.Value)
		if mode != table.Merge && mode != table.LastWriterWins {
			return invalid("One or more parameter values were invalid: the tag %s must be %s or %s, not %q", *t.Key, table.Merge, table.LastWriterWins, *t.Value)
		}
		if !setMode(&d.Schema.Modes, *t.Key, mode) {
			return invalid("One or more parameter values were invalid: the tag %s is neither %s nor %s and an attribute's name", *t.Key, tagMode, tagAttributeMode)
		}
	}
	if len(d.Tags) > maxTags {
		return invalid("One or more parameter values were invalid: Too many tags: a table may have %d", maxTags)
	}
	return nil
}

// removeTags takes tags away, and what followed from them.
func removeTags(d *table.Definition, keys []string) {
	for _, key := range keys {
		if i, ok := findTag(d, key); ok {
			d.Tags = slices.Delete(d.Tags, i, i+1)
			setMode(&d.Schema.Modes, key, "")
		}
	}
}

func findTag(d *table.Definition, key string) (int, bool) {
	return slices.BinarySearchFunc(d.Tags, key, func(t table.Tag, key string) int { return strings.Compare(t.Key, key) })
}

// setMode sets what the tag with this key stands for, and tells whether it stands for anything. Tags are
// a replica's own while modes are the same in all, so modes that came from elsewhere are left alone.
func setMode(m *table.Modes, key string, mode table.Mode) bool {
	if key == tagMode {
		m.Table = mode
		return true
	}
	name, ok := strings.CutPrefix(key, tagAttributeMode)
	if !ok || name == "" {
		return false
	}
	i, found := slices.BinarySearchFunc(m.Attributes, name, func(a table.AttributeMode, name string) int { return strings.Compare(a.Name, name) })
	switch {
	case found && mode == "":
		m.Attributes = slices.Delete(m.Attributes, i, i+1)
	case found:
		m.Attributes[i].Mode = mode
	case mode != "":
		m.Attributes = slices.Insert(m.Attributes, i, table.AttributeMode{Name: name, Mode: mode})
	}
	return true
}

// tableOfARN returns the name of the table that a tag operation means.
func (h *Handler) tableOfARN(arn *string) (string, error) {
	var c constraints
	if arn == nil {
		c.required("resourceArn")
		return "", c.err()
	}
	c.length(*arn, "resourceArn", 1, 1283)
	if err := c.err(); err != nil {
		return "", err
	}
	name := nameOfTable(*arn)
	if name == *arn || name == "" {
		return "", invalid("Invalid TableArn: Invalid ResourceArn provided as input %s", shorten(*arn))
	}
	if *arn != h.tableARN(h.cfg.Region.Name(), name) {
		return "", errNoResource(*arn)
	}
	return name, nil
}
