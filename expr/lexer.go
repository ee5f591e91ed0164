package expr

// tokenKind says what a token is.
type tokenKind uint8

const (
	tokNone  tokenKind = iota // before the first
	tokEnd                    // behind the last
	tokName                   // an attribute name, a keyword or a function
	tokHash                   // #name
	tokColon                  // :value
	tokIndex                  // digits
	tokPunct                  // ( ) [ ] , . + - = <> < <= > >=
	tokBad                    // a character that begins nothing
)

// Two characters that are one token stand for these.
const (
	punctNE = 'n' // <>
	punctLE = 'l' // <=
	punctGE = 'g' // >=
)

// token is source[from:to].
type token struct {
	kind     tokenKind
	punct    byte // of tokPunct: the character, or one of punctNE, punctLE, punctGE
	from, to int
}

// scan returns the first token of s from byte i on.
func scan(s string, i int) token {
	for i < len(s) && (s[i] == ' ' || s[i] == '\t' || s[i] == '\n' || s[i] == '\r') {
		i++
	}
	if i == len(s) {
		return token{kind: tokEnd, from: i, to: i}
	}
	c := s[i]
	j := i + 1
	switch {
	case isLetter(c):
		for j < len(s) && isNamePart(s[j]) {
			j++
		}
		return token{kind: tokName, from: i, to: j}
	case c == '#' || c == ':':
		for j < len(s) && isNamePart(s[j]) {
			j++
		}
		kind := tokHash
		if c == ':' {
			kind = tokColon
		}
		if j == i+1 {
			kind = tokBad
		}
		return token{kind: kind, from: i, to: j}
	case isDigit(c):
		for j < len(s) && isDigit(s[j]) {
			j++
		}
		return token{kind: tokIndex, from: i, to: j}
	}
	switch c {
	case '(', ')', '[', ']', ',', '.', '+', '-', '=':
		return token{tokPunct, c, i, j}
	case '<', '>':
		if j < len(s) {
			switch {
			case s[j] == '=' && c == '<':
				return token{tokPunct, punctLE, i, j + 1}
			case s[j] == '=':
				return token{tokPunct, punctGE, i, j + 1}
			case s[j] == '>' && c == '<':
				return token{tokPunct, punctNE, i, j + 1}
			}
		}
		return token{tokPunct, c, i, j}
	}
	for j < len(s) && s[j]&0xC0 == 0x80 { // the rest of a UTF-8 character
		j++
	}
	return token{kind: tokBad, from: i, to: j}
}

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

func isDigit(c byte) bool { return c-'0' <= 9 }

// isNamePart tells whether a name may go on with c. It may not begin with an underscore.
// Source: github.com/aws/aws-sdk-js/issues/1691, an answer of the service.
func isNamePart(c byte) bool { return isLetter(c) || isDigit(c) || c == '_' }
