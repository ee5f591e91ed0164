package api

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

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

// checkTags checks tags that are to be set. All of them are, or none.
func checkTags(list []tagShape) error {
	var keys []string
	for _, t := range list {
		if err := checkTagKey(t.Key); err != nil {
			return err
		}
		switch {
		case t.Value == nil:
			return invalid("The Tag Value provided is invalid, Value: null")
		case utf8.RuneCountInString(*t.Value) > 256 || !isTagText(*t.Value):
			return invalid("The Tag Value provided is invalid, Value: %s", shorten(*t.Value))
		case strings.HasPrefix(*t.Key, "aws:"):
			return invalid("Tag Key cannot be prefixed with aws:, Key: %s", *t.Key)
		case slices.Contains(keys, *t.Key):
			return invalid("Duplicate Tag Keys provided as input: Duplicate Tag Key found %s", *t.Key)
		}
		keys = append(keys, *t.Key)
	}
	return nil
}

// checkTagKey checks one key. An attribute's name, in a tag of ours, may be any.
func checkTagKey(key *string) error {
	switch {
	case key == nil:
		return invalid("The Tag Key provided is invalid, Key: null")
	case *key == "" || utf8.RuneCountInString(*key) > 128 || !isTagText(*key) && !strings.HasPrefix(*key, tagAttributeMode):
		return invalid("The Tag Key provided is invalid, Key: %s", shorten(*key))
	}
	return nil
}

// isTagText tells whether tags may have the text. Source: Developer Guide, "Tagging restrictions".
func isTagText(s string) bool {
	for _, r := range s {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.IsSpace(r) && !strings.ContainsRune("+-=._:/@", r) {
			return false
		}
	}
	return true
}

// addTags sets tags, each in place of one with the same key, and what follows from them.
func addTags(d *table.Definition, list []tagShape) error {
	for _, t := range list {
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
			return parameter("the tag %s must be %s or %s, not %q", *t.Key, table.Merge, table.LastWriterWins, *t.Value)
		}
		if !setMode(&d.Schema.Modes, *t.Key, mode) {
			return parameter("the tag %s is neither %s nor %s and an attribute's name", *t.Key, tagMode, tagAttributeMode)
		}
	}
	if len(d.Tags) > maxTags {
		return errTooManyTags()
	}
	return nil
}

func errTooManyTags() error {
	return invalid("Number of Tags exceed the current limit for the provided ResourceArn")
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
	parts := strings.SplitN(*arn, ":", 6)
	switch {
	case parts[0] != "arn" || len(parts) == 1:
		return "", parameter("ARNs must start with 'arn:': %s", shorten(*arn))
	case len(parts) < 6 || parts[2] != "dynamodb":
		return "", parameter("Provided Arn is not a DynamoDB resource arn: %s", shorten(*arn))
	case strings.Contains(parts[5], "/index/"):
		return "", parameter("Invalid resource arn provided, only table or stream is accepted. Provided resource arn: %s", shorten(*arn))
	}
	name, ok := strings.CutPrefix(parts[5], "table/")
	if !ok || name == "" || strings.Contains(name, "/") || parts[3] != h.cfg.Region.Name() {
		return "", invalid("Invalid TableArn: Invalid ResourceArn provided as input %s", shorten(*arn))
	}
	if *arn != h.tableARN(h.cfg.Region.Name(), name) {
		return "", errNoResource(*arn)
	}
	return name, nil
}
