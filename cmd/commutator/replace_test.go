package main

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/commutatordb/commutator/node"
)

// Goal: a node is replaced by another with one command, that can be run again. Method: a region of three nodes, the third of which joins, with real
// sockets.
func TestANodeIsReplacedByOneThatHasJoined(t *testing.T) {
	var members []node.Member
	var listeners []net.Listener
	for id := 1; id <= 3; id++ {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listeners = append(listeners, l)
		members = append(members, node.Member{ID: uint64(id), Node: fmt.Sprint("n", id), GRPC: l.Addr().String(), Joins: id == 3})
	}
	var nodes []*clocked
	for i, m := range members {
		n := &clocked{t: t, cfg: node.Config{
			Region: east, Node: m.Node, Data: t.TempDir(), Nodes: members, Listen: node.Listen{HTTP: "127.0.0.1:0", GRPC: m.GRPC, GRPCListener: listeners[i]},
			Credentials: []node.Credential{{AccessKey: devKey, SecretKey: devKey}}, Now: time.Now,
		}}
		nodes = append(nodes, n)
	}
	command := func(args ...string) (string, error) {
		stdout, _, err := try(t, append(args, "--endpoint", "http://"+nodes[1].cfg.Listen.HTTP)...)
		return stdout, err
	}
	for _, n := range nodes[:2] {
		n.start()
	}
	for _, n := range nodes[:2] {
		if err := n.node.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	var wrong usageError
	for _, args := range [][]string{{"1", "1"}, {"1", "n3"}, {"n9", "2"}} {
		if _, err := command("node", "replace", args[0], args[1]); !errors.As(err, &wrong) {
			t.Errorf("replace %v: %v, which is no wrong usage", args, err)
		}
	}
	nodes[2].start()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) { // it shows from outside alone
		if l, err := command("node", "list"); err == nil && strings.Contains(l, " n3 ") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the third does not join")
		}
	}
	if _, err := command("node", "drain", "3"); err != nil {
		t.Fatal(err)
	}
	if _, err := command("node", "replace", "1", "3"); err == nil || !strings.Contains(err.Error(), "drained") {
		t.Errorf("by one that is drained: %v", err)
	}
	if _, err := command("node", "drain", "3", "--undo"); err != nil {
		t.Fatal(err)
	}
	for range 2 { // again, it finds that it is done
		out, err := command("node", "replace", "n1", "n3")
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(out, "\n") {
			f := strings.Fields(line)
			if len(f) > 4 && f[1] == "1" && !strings.Contains(line, "GONE") || len(f) > 4 && f[1] == "3" && !strings.Contains(line, "HOLDS") {
				t.Errorf("it ends with %s", line)
			}
		}
	}
	if _, err := command("node", "replace", "2", "1"); err == nil || !strings.Contains(err.Error(), "there is no node") {
		t.Errorf("by one that is gone: %v", err)
	}
}
