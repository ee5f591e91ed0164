package node_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Goal: a node whose data is not what it was - gone, damaged, or an older copy - is not listened to, begins anew by itself under its old name with
// another number, and then has everything; what it had is still there to be looked at. Method: regions of three over sockets, with certificates.

// anew brings a node's disk to where it must begin anew, and checks what comes of it.
func anew(t *testing.T, spoil func(t *testing.T, n *siteNode, more func())) {
	w := newSite(t, 3, "us-east-1")
	nodes := w.nodes["us-east-1"]
	w.create("us-east-1")
	more := func() {
		for i, n := range nodes {
			if n == nodes[2] {
				continue
			}
			for _, pk := range []string{"one", "two", "three"} {
				if err := n.put(strings.Repeat(pk, 1+i)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	more()
	w.until("the third has it", func() bool { return nodes[2].has("three") })
	spoil(t, nodes[2], more)
	nodes[2].beginsAnew()
	if got := nodes[2].node.Region().NodeID(); got != 4 {
		t.Errorf("it is node %d", got)
	}
	if !nodes[2].has("three") || !nodes[2].has("threethree") {
		t.Error("it does not have what was there")
	}
	w.members("us-east-1", 1, 2, 4)
	// It counts as a member: with one of the others gone there is a majority.
	nodes[0].stop()
	if err := nodes[1].put("with it"); err != nil {
		t.Error(err)
	}
	w.until("it has what came later", func() bool { return nodes[2].has("with it") })
}

func TestANodeThatLostItsDiskBeginsAnew(t *testing.T) {
	anew(t, func(t *testing.T, n *siteNode, more func()) {
		n.stop()
		if err := os.RemoveAll(n.cfg.Data); err != nil {
			t.Fatal(err)
		}
		n.start()
	})
}

func TestANodeWithAnOlderCopyOfItsDiskBeginsAnew(t *testing.T) {
	anew(t, func(t *testing.T, n *siteNode, more func()) {
		n.stop()
		older := t.TempDir()
		if err := os.CopyFS(older, os.DirFS(n.cfg.Data)); err != nil {
			t.Fatal(err)
		}
		n.start()
		more()
		n.site.until("it is told of its epoch", func() bool {
			m, _ := n.site.nodes["us-east-1"][0].node.Region().Member(3)
			return m.Epoch == 2
		})
		n.stop()
		if err := os.RemoveAll(n.cfg.Data); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(n.cfg.Data, os.DirFS(older)); err != nil {
			t.Fatal(err)
		}
		n.start()
	})
}

func TestADamagedNodeIsRebuilt(t *testing.T) {
	for _, part := range []string{"log", "state", "node.json"} {
		t.Run(part, func(t *testing.T) {
			anew(t, func(t *testing.T, n *siteNode, more func()) {
				n.stop()
				flipped := 0
				err := filepath.WalkDir(filepath.Join(n.cfg.Data, part), func(path string, d fs.DirEntry, err error) error {
					name := filepath.Base(path)
					if err != nil || d.IsDir() || part == "state" && name != "WITNESS" {
						return err
					}
					b, err := os.ReadFile(path)
					if err != nil || len(b) < 64 {
						return err
					}
					at := 40
					b = slices.Clone(b)
					b[at] ^= 0x10
					flipped++
					return os.WriteFile(path, b, 0o600)
				})
				if err != nil || flipped == 0 {
					t.Fatalf("%d files flipped, %v", flipped, err)
				}
				n.start()
			})
		})
	}
}
