package group

import (
	"fmt"
	"testing"
)

func TestWhatIsBeyondSomeRanges(t *testing.T) {
	of := func(pairs ...string) (out [][2][]byte) {
		for i := 0; i < len(pairs); i += 2 {
			out = append(out, [2][]byte{[]byte(pairs[i]), []byte(pairs[i+1])})
		}
		return out
	}
	for name, c := range map[string]struct{ ranges, others, want [][2][]byte }{
		"nothing":                 {nil, of("a", "b"), nil},
		"all, beside them":        {of("c", "d"), of("a", "b", "e", "f"), of("c", "d")},
		"none, where they cover":  {of("b", "c"), of("a", "d"), nil},
		"the end":                 {of("a", "z"), of("a", "m"), of("m", "z")},
		"the beginning":           {of("a", "z"), of("m", "zz"), of("a", "m")},
		"both sides, and between": {of("a", "z"), of("c", "d", "f", "g"), of("a", "c", "d", "f", "g", "z")},
	} {
		if got := beyond(c.ranges, c.others); fmt.Sprintf("%s", got) != fmt.Sprintf("%s", c.want) {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}
