package expr

import "strings"

// tokenKind says what a token is.
type tokenKind uint8

const (
	tokEnd   tokenKind = iota
	tokName            // an attribute name, a keyword or a function
	tokHash            // #name
	tokColon           // :value
	tokIndex           // digits within brackets
	tokPunct           // ( ) [ ] , . + - = <> < <= > >=
	tokBad             // a character that begins nothing
)

type token struct {
	kind     tokenKind
	text     string
	from, to int // byte offsets in the source
}

// lex cuts the source into tokens; the last is tokEnd.
func lex(s string) []token {
	var out []token
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			i++
			continue
		case isNameStart(c):
			j := i + 1
			for j < len(s) && isNamePart(s[j]) {
				j++
			}
			out = append(out, token{tokName, s[i:j], i, j})
			i = j
		case c == '#' || c == ':':
			j := i + 1
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
			out = append(out, token{kind, s[i:j], i, j})
			i = j
		case c >= '0' && c <= '9':
			j := i + 1
			for j < len(s) && s[j] >= '0' && s[j] <= '9' {
				j++
			}
			out = append(out, token{tokIndex, s[i:j], i, j})
			i = j
		case strings.HasPrefix(s[i:], "<>") || strings.HasPrefix(s[i:], "<=") || strings.HasPrefix(s[i:], ">="):
			out = append(out, token{tokPunct, s[i : i+2], i, i + 2})
			i += 2
		case strings.IndexByte("()[],.+-=<>", c) >= 0:
			out = append(out, token{tokPunct, s[i : i+1], i, i + 1})
			i++
		default:
			j := i + 1
			for j < len(s) && s[j]&0xC0 == 0x80 { // the rest of a UTF-8 character
				j++
			}
			out = append(out, token{tokBad, s[i:j], i, j})
			i = j
		}
	}
	return append(out, token{tokEnd, "<EOF>", len(s), len(s)})
}

func isNameStart(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_'
}

func isNamePart(c byte) bool { return isNameStart(c) || c >= '0' && c <= '9' }
