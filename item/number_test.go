package item

import (
	"math"
	"testing"
)

func TestIntTellsWholeNumbersOfItsSize(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "7": 7, "-7": -7, "100": 100, "-1200": -1200, "9223372036854775807": math.MaxInt64, "-9223372036854775808": math.MinInt64} {
		n, err := ParseNumber(text)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := n.Int(); !ok || got != want {
			t.Errorf("%s: %d, %v", text, got, ok)
		}
	}
	for _, text := range []string{"0.5", "-1.25", "9223372036854775808", "1E+30", "1E-30"} {
		n, err := ParseNumber(text)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := n.Int(); ok {
			t.Errorf("%s: %d", text, got)
		}
	}
}
