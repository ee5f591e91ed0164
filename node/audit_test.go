package node_test

import (
	"bytes"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/storage"
)

// tamper changes items in the data of a node that is down, in a way that no checksum tells, and returns how many rows it has changed.
func (n *siteNode) tamper(was, is string) (rows int) {
	t := n.site.t
	t.Helper()
	st, err := storage.Open(storage.Options{FS: vfs.Default, Dir: filepath.Join(n.cfg.Data, "state")})
	if err != nil {
		t.Fatal(err)
	}
	b := st.NewBatch()
	it, err := st.Iter(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for ok := it.First(); ok; ok = it.Next() {
		if changed := bytes.ReplaceAll(it.Value(), []byte(was), []byte(is)); !bytes.Equal(changed, it.Value()) {
			b.Set(bytes.Clone(it.Key()), changed)
			rows++
		}
	}
	for _, err := range []error{it.Err(), it.Close(), st.Commit(b), st.Flush(), st.Close()} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return rows
}

func TestANodeWhoseDataIsOtherThanMostOthersBeginsAnew(t *testing.T) {
	w := newSite(t, 3, "us-east-1")
	w.create("us-east-1")
	nodes := w.nodes["us-east-1"]
	for i := range 20 {
		if err := nodes[i%3].put(fmt.Sprint("original ", i)); err != nil {
			t.Fatal(err)
		}
	}
	audit := func(i int) region.Audited {
		a, err := nodes[i].node.Region().Audit(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	w.until("all replicas are found the same", func() bool {
		all := region.Audited{}
		for i := range nodes {
			a := audit(i)
			all.Same, all.Differ, all.Open = all.Same+a.Same, all.Differ+a.Differ, all.Open+a.Open
		}
		return all == region.Audited{Same: 1 + 3}
	})

	nodes[2].stop()
	if nodes[2].tamper("original", "tampered") == 0 {
		t.Fatal("nothing to change")
	}
	nodes[2].start()
	w.until("it is found out", func() bool {
		for i := range 2 {
			audit(i)
		}
		return len(nodes[2].anew) > 0
	})
	nodes[2].beginsAnew()
	for i := range 20 {
		if pk := fmt.Sprint("original ", i); !nodes[2].has(pk) {
			t.Errorf("%s is not there", pk)
		}
	}
	if nodes[2].tamperedWith() {
		t.Error("what was changed is still there")
	}
}

// tamperedWith tells whether the node, once it is stopped, has rows that say so.
func (n *siteNode) tamperedWith() bool {
	n.stop()
	return n.tamper("tampered", "tampered again") > 0
}
