package crdt

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// Whatever decodes is exactly what Append writes, can be shown and joined, and nothing panics.
func FuzzDecode(f *testing.F) {
	for seed := range uint64(6) {
		w := newWorld(fromSeed{rand.New(rand.NewPCG(seed, 3))}, profiles["wild"])
		for range 40 {
			if err := w.step(); err != nil {
				f.Fatal(err)
			}
		}
		for _, r := range w.regions {
			if r.rec != nil {
				f.Add(r.rec.Append(nil))
			}
			for _, l := range r.stream {
				if l.delta != nil {
					f.Add(l.delta)
				}
			}
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		PeekVisible(b)
		PeekDot(b)
		r, err := Decode(b)
		if err != nil {
			return
		}
		if out := r.Append(nil); !bytes.Equal(out, b) {
			t.Fatalf("decoded\n%x\nappends\n%x", b, out)
		}
		if b[0]>>4 == formatFolded {
			return // the item is taken as it is
		}
		c := *r
		c.forget()
		c.Visible()
		c.Fold(MaxHLC)
		d := *r
		d.Join(&Record{})
		(&Record{}).Join(r)
	})
}

func FuzzDecodeVector(f *testing.F) {
	var v Vector
	f.Add(v.Append(nil))
	v.Set(7, 100)
	v.Set(3, 200)
	f.Add(v.Append(nil))
	v.Raise(Dot{150, 9})
	f.Add(v.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, rest, err := DecodeVector(b)
		if err != nil {
			return
		}
		if out := append(v.Append(nil), rest...); !bytes.Equal(out, b) {
			t.Fatalf("decoded %x, appends %x", b, out)
		}
	})
}
