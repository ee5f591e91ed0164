package crdt

import (
	"strings"
	"testing"

	"github.com/commutatordb/commutator/item"
)

// benchItem is an item of about 1 KB with 10 attributes.
func benchItem(views int64) []byte {
	fields := []item.Field{key, field("views", num(views)), field("tags", strs("a", "b", "c"))}
	for _, name := range []string{"f1", "f2", "f3", "f4", "f5", "f6", "f7"} {
		fields = append(fields, field(name, item.S(strings.Repeat("x", 130))))
	}
	return item.AppendItem(nil, item.NewItem(fields...))
}

const benchStart = HLC(1_700_000_000_000 << 16)

func benchWrite(n int, actor Actor, b []byte) Write {
	return Write{Dot: Dot{benchStart + HLC(n)<<8, actor}, Origin: Origin{Op: Put}, Item: b}
}

func folded(b []byte) []byte { return AppendFolded(nil, Dot{benchStart, 1 << 10}, b) }

// open is a record that two regions write, with a counter, not folded.
func open(b []byte) []byte {
	var r Record
	r.Write(benchWrite(1, 1<<10, b))
	o := r
	r.Write(Write{Dot: Dot{benchStart + 1<<10, 1 << 10}, Origin: Origin{Op: Update}, Item: benchItem(2), Changes: []item.Change{change(item.Increment, num(1), "views")}})
	r.Join(o.Write(Write{Dot: Dot{benchStart + 1<<10, 2 << 10}, Origin: Origin{Op: Update}, Item: benchItem(2), Changes: []item.Change{change(item.Increment, num(1), "views")}}))
	return r.Append(nil)
}

func benchApply(b *testing.B, stored []byte, w Write) {
	b.Helper()
	var r Record
	out := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		if err := r.Decode(stored); err != nil {
			b.Fatal(err)
		}
		r.Write(w)
		out = r.Append(out[:0])
	}
}

func BenchmarkPutOverFolded(b *testing.B) {
	it := benchItem(1)
	benchApply(b, folded(it), benchWrite(100, 1<<10, it))
}

func BenchmarkPutOverOpen(b *testing.B) {
	it := benchItem(1)
	benchApply(b, open(it), benchWrite(100, 1<<10, it))
}

func increment(n int) Write {
	return Write{Dot: Dot{benchStart + HLC(n)<<8, 1 << 10}, Origin: Origin{Op: Update}, Item: benchItem(2), Changes: []item.Change{change(item.Increment, num(1), "views")}}
}

func BenchmarkIncrementOverFolded(b *testing.B) {
	benchApply(b, folded(benchItem(1)), increment(100))
}

func BenchmarkIncrementOverOpen(b *testing.B) {
	w := increment(100)
	w.Item = benchItem(4)
	benchApply(b, open(benchItem(1)), w)
}

func BenchmarkJoinPutDelta(b *testing.B) {
	it := benchItem(1)
	stored := folded(it)
	r, _ := Decode(stored)
	delta := r.Write(benchWrite(100, 2<<10, it)).Append(nil)
	var rec, d Record
	out := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		if rec.Decode(stored) != nil || d.Decode(delta) != nil {
			b.Fatal("decode")
		}
		rec.Join(&d)
		out = rec.Append(out[:0])
	}
}

func BenchmarkJoinIncrementDelta(b *testing.B) {
	stored := open(benchItem(1))
	r, _ := Decode(stored)
	w := increment(100)
	w.Item = benchItem(4)
	delta := r.Write(w).Append(nil)
	var rec, d Record
	out := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		if rec.Decode(stored) != nil || d.Decode(delta) != nil {
			b.Fatal("decode")
		}
		rec.Join(&d)
		out = rec.Append(out[:0])
	}
}

func BenchmarkDecodeOpen(b *testing.B) {
	stored := open(benchItem(1))
	var r Record
	b.ReportAllocs()
	for b.Loop() {
		r.Decode(stored)
	}
}

func BenchmarkAppendOpen(b *testing.B) {
	r, _ := Decode(open(benchItem(1)))
	out := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		out = r.Append(out[:0])
	}
}

func BenchmarkFoldOpen(b *testing.B) {
	r, _ := Decode(open(benchItem(1)))
	b.ReportAllocs()
	for b.Loop() {
		c := *r
		c.Fold(MaxHLC)
	}
}

// busy is a record of an item that is written to without a pause: a set of which elements come and go, a list, and counters.
func busy() *Record {
	var r Record
	r.Write(benchWrite(1, 1<<10, benchItem(1)))
	for i := range 100 {
		elem := strs(strings.Repeat("e", i%20+1))
		for j, c := range []item.Change{change(item.AddElements, elem, "tags"), change(item.RemoveElements, elem, "tags"), change(item.Increment, num(1), "views"), change(item.Append, item.L(num(int64(i))), "log")} {
			r.Write(Write{Dot: Dot{benchStart + HLC(10*i+j+2)<<8, 1 << 10}, Origin: Origin{Op: Update}, Item: benchItem(2), Changes: []item.Change{c}})
		}
	}
	return &r
}

// What a write costs more for looking whether there is anything to let go.
func BenchmarkTrim(b *testing.B) {
	plain, _ := Decode(folded(benchItem(1)))
	counted, _ := Decode(open(benchItem(1)))
	for _, c := range []struct {
		name   string
		r      *Record
		stable HLC
	}{{"of an item as it was put", plain, MaxHLC}, {"of one with counters", counted, MaxHLC}, {"of a busy one, nothing stable", busy(), benchStart}, {"of a busy one, all stable", busy(), MaxHLC}} {
		b.Run(c.name, func(b *testing.B) {
			var r Record
			b.ReportAllocs()
			for b.Loop() {
				r = *c.r
				r.Trim(c.stable)
			}
		})
	}
}

func BenchmarkPutOverBusy(b *testing.B) {
	benchApply(b, busy().Append(nil), benchWrite(1<<20, 1<<10, benchItem(1)))
}

func BenchmarkIncrementOverBusy(b *testing.B) { benchApply(b, busy().Append(nil), increment(1<<20)) }

func BenchmarkPeekVisible(b *testing.B) {
	stored := open(benchItem(1))
	b.ReportAllocs()
	for b.Loop() {
		PeekVisible(stored)
	}
}

func TestReadingAllocatesNothing(t *testing.T) {
	for _, stored := range [][]byte{open(benchItem(1)), folded(benchItem(1))} {
		if n := testing.AllocsPerRun(100, func() { PeekVisible(stored); PeekDot(stored) }); n != 0 {
			t.Errorf("%v allocations", n)
		}
	}
}
