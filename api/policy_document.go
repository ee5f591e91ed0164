package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// A policy document is kept in one form, whatever form it was given in, so that the same policy is known again: members in order,
// lists of one as their element, account ids as ARNs. Source: answers of the service, recorded in public.

// policyVersion is the version of a document that names none. It is shown, and is still another document than one that names it.
const policyVersion = "2008-10-17"

type policyDocument struct {
	Version   string            `json:",omitempty"`
	ID        string            `json:"Id,omitempty"`
	Statement []policyStatement `json:"-"`
}

// policyStatement's members stand in the order in which the service shows them. An absent one is nil.
type policyStatement struct {
	Sid          *string    `json:",omitempty"`
	Effect       string     `json:",omitempty"`
	Principal    *principal `json:",omitempty"`
	NotPrincipal *principal `json:",omitempty"`
	Action       oneOrMore  `json:",omitempty"`
	NotAction    oneOrMore  `json:",omitempty"`
	Resource     oneOrMore  `json:",omitempty"`
	NotResource  oneOrMore  `json:",omitempty"`

	Condition map[string]map[string]oneOrMore `json:",omitempty"`
}

// oneOrMore is a string, or a list of them.
type oneOrMore []string

// UnmarshalJSON takes either; numbers and booleans, which conditions may have, become strings.
func (o *oneOrMore) UnmarshalJSON(b []byte) error {
	var list []any
	if len(b) > 0 && b[0] == '[' {
		if err := json.Unmarshal(b, &list); err != nil {
			return err
		}
	} else {
		var one any
		if err := json.Unmarshal(b, &one); err != nil {
			return err
		}
		list = []any{one}
	}
	*o = oneOrMore{}
	for _, v := range list {
		if s, ok := v.(string); ok {
			*o = append(*o, s)
			continue
		}
		text, err := json.Marshal(v)
		if err != nil {
			return err
		}
		*o = append(*o, string(text))
	}
	return nil
}

// MarshalJSON writes a list of one as its element.
func (o oneOrMore) MarshalJSON() ([]byte, error) {
	if len(o) == 1 {
		return marshalPlain(o[0])
	}
	return marshalPlain([]string(o))
}

// principal is who a statement is about: everybody, or lists by kind.
type principal struct {
	all  bool
	bare string // a string that is not "*"
	by   map[string]oneOrMore
}

// UnmarshalJSON takes a string or an object.
func (p *principal) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		if err := json.Unmarshal(b, &p.bare); err != nil {
			return err
		}
		if p.all = p.bare == "*"; p.all {
			p.bare = ""
		}
		return nil
	}
	return json.Unmarshal(b, &p.by)
}

// MarshalJSON writes what UnmarshalJSON takes.
func (p principal) MarshalJSON() ([]byte, error) {
	if p.all {
		return []byte(`"*"`), nil
	}
	return marshalPlain(p.by)
}

// everybody tells whether the principal is whoever asks.
func (p *principal) everybody() bool { return p != nil && (p.all || slices.Contains(p.by["AWS"], "*")) }

var accountID = regexp.MustCompile(`^[0-9]{12}$`)

// normalize writes accounts as ARNs, each principal once. It tells whether all are what may be a principal.
func (p *principal) normalize() bool {
	if p == nil || p.by == nil {
		return true
	}
	list := oneOrMore{}
	for _, who := range p.by["AWS"] {
		if accountID.MatchString(who) {
			who = "arn:aws:iam::" + who + ":root"
		}
		if who != "*" && !strings.HasPrefix(who, "arn:") {
			return false
		}
		if !slices.Contains(list, who) {
			list = append(list, who)
		}
	}
	if p.by["AWS"] != nil {
		p.by["AWS"] = list
	}
	return true
}

func errPolicy(format string, args ...any) error {
	return parameter("Invalid policy document: "+format, args...)
}

// readPolicy parses and checks a policy of a table or of a stream.
func readPolicy(document string, ofStream bool) (*policyDocument, error) {
	if len(document) > maxPolicy {
		return nil, parameter("Maximum policy size of %d bytes exceeded", maxPolicy)
	}
	var given struct {
		Version, ID string
		Statement   json.RawMessage
	}
	if json.Unmarshal([]byte(document), &given) != nil {
		return nil, errPolicy("This policy contains invalid Json")
	}
	p := &policyDocument{Version: given.Version, ID: given.ID}
	list := bytes.TrimSpace(given.Statement)
	if len(list) > 0 && list[0] == '{' {
		list = slices.Concat([]byte{'['}, list, []byte{']'})
	}
	if len(list) > 0 && json.Unmarshal(list, &p.Statement) != nil {
		return nil, errPolicy("This policy contains invalid Json")
	}
	if len(p.Statement) == 0 {
		return nil, errPolicy("Could not parse the policy: Statement is empty!")
	}
	var sids []string
	for i := range p.Statement {
		s := &p.Statement[i]
		if err := s.check(document, ofStream); err != nil {
			return nil, err
		}
		if s.Sid != nil {
			if slices.Contains(sids, *s.Sid) {
				return nil, errPolicy("The Statement Ids in the policy are not unique")
			}
			sids = append(sids, *s.Sid)
		}
	}
	for _, s := range p.Statement {
		if s.Effect == "Allow" && s.Condition == nil && s.Principal.everybody() {
			return nil, invalid("Resource-based policy grants unbounded access in one or more elements. Please revise the policy to ensure least-privilege form of access")
		}
	}
	return p, nil
}

func (s *policyStatement) check(document string, ofStream bool) error {
	for _, effect := range []string{"Allow", "Deny"} {
		if strings.EqualFold(s.Effect, effect) {
			s.Effect = effect
		}
	}
	missing := ""
	switch {
	case s.Effect == "":
		missing = "Effect"
	case s.Principal == nil && s.NotPrincipal == nil:
		missing = "Principal"
	case s.Action == nil && s.NotAction == nil:
		missing = "Action"
	case s.Resource == nil && s.NotResource == nil:
		missing = "Resource"
	}
	if missing != "" {
		return errPolicy("Missing required field %s", missing)
	}
	if s.Effect != "Allow" && s.Effect != "Deny" {
		return errPolicy("Syntax error at position %s", positionOf(document, s.Effect))
	}
	for _, p := range []*principal{s.Principal, s.NotPrincipal} {
		if p != nil && p.bare != "" {
			return errPolicy("Syntax error at position %s", positionOf(document, p.bare))
		}
		if !p.normalize() {
			return parameter("Invalid principal in policy document.")
		}
	}
	var wrong []string
	for _, action := range slices.Concat(s.Action, s.NotAction) {
		if !actionFits(action, ofStream) {
			wrong = append(wrong, `"`+shorten(action)+`"`)
		}
	}
	if wrong != nil {
		return errPolicy("The following action names are invalid: %s", strings.Join(wrong, ", "))
	}
	return nil
}

// actionFits tells whether a policy of a table, or of a stream, may name an action.
func actionFits(action string, ofStream bool) bool {
	vendor, name, ok := strings.Cut(strings.ToLower(action), ":")
	switch {
	case action == "*":
		return true
	case !ok || vendor != "dynamodb" || name == "":
		return false
	case strings.ContainsAny(name, "*?"):
		return true
	}
	onStream := slices.Contains([]string{"describestream", "getrecords", "getsharditerator", "liststreams"}, name)
	onBoth := slices.Contains([]string{"getresourcepolicy", "putresourcepolicy", "deleteresourcepolicy"}, name)
	return onBoth || onStream == ofStream
}

// locksOut tells whether the policy denies everybody to change it again.
func (p *policyDocument) locksOut(account string) bool {
	const put = "dynamodb:putresourcepolicy"
	for _, s := range p.Statement {
		who := s.Principal.everybody() || s.Principal != nil && slices.Contains(s.Principal.by["AWS"], "arn:aws:iam::"+account+":root")
		if s.Effect != "Deny" || s.Condition != nil || !who {
			continue
		}
		if slices.ContainsFunc(s.Action, func(a string) bool { return matches(strings.ToLower(a), put) }) {
			return true
		}
	}
	return false
}

// matches tells whether text is of a pattern in which * is any text and ? any one character.
func matches(pattern, text string) bool {
	star, resume := -1, 0 // the last star, and where in the text what is behind it was last tried
	p := 0
	for t := 0; t < len(text); {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, resume = p, t
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == text[t]):
			p++
			t++
		case star >= 0:
			resume++
			p, t = star+1, resume
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// canonical returns the form in which the document is kept.
func (p *policyDocument) canonical() (string, error) {
	b, err := marshalPlain(struct {
		*policyDocument
		Statement []policyStatement
	}{p, p.Statement})
	return string(b), err
}

// shownPolicy returns a kept document as it is shown.
func shownPolicy(document string) string {
	if strings.HasPrefix(document, `{"Version":`) {
		return document
	}
	return `{"Version":"` + policyVersion + `",` + strings.TrimPrefix(document, "{")
}

// positionOf tells where a string stands in a document, as (line,column) from 1.
func positionOf(document, s string) string {
	at := max(strings.Index(document, `"`+s+`"`), 0)
	line := strings.Count(document[:at], "\n") + 1
	return fmt.Sprintf("(%d,%d)", line, at-strings.LastIndexByte(document[:at], '\n'))
}

// marshalPlain is json.Marshal without HTML's escapes.
func marshalPlain(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte{'\n'}), err
}
