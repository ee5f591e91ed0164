package node_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/commutatordb/commutator/admin"
	"github.com/commutatordb/commutator/crdt"
	stored "github.com/commutatordb/commutator/item"
	"github.com/commutatordb/commutator/node"
	"github.com/commutatordb/commutator/storage/keyenc"
)

// verify has one region hold its copies against all others', and waits for what comes of it.
func (w *world) verify(region int, q admin.VerifyRequest) []admin.Verified {
	w.t.Helper()
	v := w.dev.Nodes()[region].Verifier()
	job, err := v.Verify(w.t.Context(), q)
	if err != nil {
		w.t.Fatal(err)
	}
	w.until("the comparison is done", func() bool {
		job, _ = v.VerifyJob(job.ID)
		return job.Status != admin.JobRunning
	})
	if job.Status != admin.JobDone {
		w.t.Fatalf("the comparison failed: %s", job.Error)
	}
	return job.Results
}

// compared is verify, once every other region has been within reach.
func (w *world) compared(region int, q admin.VerifyRequest) (out []admin.Verified) {
	w.t.Helper()
	w.until("the regions are compared", func() bool {
		out = w.verify(region, q)
		return !slices.ContainsFunc(out, func(r admin.Verified) bool { return r.Error != "" })
	})
	return out
}

// found tells how many items each region has different from the others', as "0 2 0", or what else came of it.
func (w *world) found(q admin.VerifyRequest) string {
	w.t.Helper()
	var parts []string
	for i := range regions {
		n := 0
		for _, r := range w.compared(i, q) {
			if r.Unsettled > 0 {
				return fmt.Sprintf("%+v", r)
			}
			n += r.Different - r.Repaired
		}
		parts = append(parts, fmt.Sprint(n))
	}
	return strings.Join(parts, " ")
}

// row returns where a region's store has an item's record.
func (w *world) row(region int, name, pk string) []byte {
	w.t.Helper()
	d, err := w.dev.Nodes()[region].Region().Definition(name)
	if err != nil {
		w.t.Fatal(err)
	}
	return keyenc.Record(nil, d.ID, d.Schema.KeyOfValues(stored.S(pk), stored.Value{}))
}

func (w *world) record(region int, name, pk string) []byte {
	w.t.Helper()
	b, err := w.dev.Nodes()[region].Store().Get(nil, w.row(region, name, pk))
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

// spoil puts another record (nil: none) into a region's store, past everything that would keep it right.
func (w *world) spoil(region int, name, pk string, record []byte) {
	w.t.Helper()
	store := w.dev.Nodes()[region].Store()
	b := store.NewBatch()
	if record == nil {
		b.Delete(w.row(region, name, pk))
	} else {
		b.Set(w.row(region, name, pk), record)
	}
	if err := store.Commit(b); err != nil {
		w.t.Fatal(err)
	}
}

// rest waits until all is everywhere, and folded.
func (w *world) rest(name string) {
	w.t.Helper()
	w.until("at rest", func() bool {
		for _, n := range w.dev.Nodes() {
			for _, t := range n.Region().Tables() {
				for _, p := range t.Partitions() {
					if s := p.State(); s.Folded != s.Seq {
						return false
					}
				}
			}
		}
		return w.equal(name)
	})
}

func TestCopiesThatWereMadeDifferentAreFoundAndRepaired(t *testing.T) {
	t.Parallel() // each waits some ten seconds until a cut link is noticed
	w := begin(t, node.DevConfig{Data: t.TempDir(), InMemory: true})
	w.table("orders", regions[1:]...)
	for i := range 200 {
		w.put(i%3, "orders", item{"pk": s(fmt.Sprint(i)), "v": n(0)})
	}
	w.rest("orders")
	for _, q := range []admin.VerifyRequest{{}, {Deep: true}, {TableName: "orders"}} {
		for i := range regions {
			results := w.verify(i, q)
			if len(results) != 2 {
				t.Fatalf("%+v: %+v", q, results)
			}
			for _, r := range results {
				if !r.Equal() || r.Items != 200 || r.TableName != "orders" || r.Region != regions[i] || r.Leaves == 0 || r.AsOf.IsZero() {
					t.Errorf("equal copies: %+v", r)
				}
			}
		}
	}
	reasons := func(region int) (out []string) {
		for _, r := range w.compared(region, admin.VerifyRequest{}) {
			for _, k := range r.Keys {
				out = append(out, fmt.Sprintf("%s %s %s", r.Peer, k.Reason, k.Key))
			}
		}
		return out
	}

	// An update that one region has lost is seen there, and comes back from another.
	before := w.record(1, "orders", "7")
	w.update(0, "orders", "7", "SET v = :x", item{":x": n(9)})
	w.rest("orders")
	w.spoil(1, "orders", "7", before)
	if got := w.found(admin.VerifyRequest{}); got != "0 2 0" {
		t.Errorf("a lost update: %s", got)
	}
	if got, want := fmt.Sprint(reasons(1)), `[ap-northeast-1 BEHIND {"pk":{"S":"7"}} us-east-1 BEHIND {"pk":{"S":"7"}}]`; got != want {
		t.Errorf("a lost update: %s", got)
	}
	if got := w.found(admin.VerifyRequest{Deep: true}); got != "0 2 0" {
		t.Errorf("a lost update, in depth: %s", got)
	}
	repaired := 0
	for _, r := range w.verify(1, admin.VerifyRequest{Repair: true}) {
		repaired += r.Repaired
		if !r.Equal() || r.Repaired > 0 && !r.Keys[0].Repaired {
			t.Errorf("repaired: %+v", r)
		}
	}
	if got := w.found(admin.VerifyRequest{}); repaired != 1 || got != "0 0 0" || !w.equal("orders") {
		t.Errorf("%d repaired, then %s", repaired, got)
	}

	// A value that is not what was written, in a record that is otherwise right, cannot be put right by merging.
	w.rest("orders")
	right := w.record(2, "orders", "8")
	dot := crdt.PeekDot(right)
	wrong := stored.AppendItem(nil, stored.NewItem(stored.Field{Name: "pk", Value: stored.S("8")}, stored.Field{Name: "v", Value: stored.S("rot")}))
	w.spoil(2, "orders", "8", crdt.AppendFolded(nil, dot, wrong))
	for _, q := range []admin.VerifyRequest{{}, {Deep: true}, {Repair: true}} {
		if got := w.found(q); got != "1 1 2" {
			t.Errorf("%+v: a wrong value: %s", q, got)
		}
	}
	if got := fmt.Sprint(reasons(0)); got != `[ap-northeast-1 UNLIKE {"pk":{"S":"8"}}]` {
		t.Errorf("a wrong value: %s", got)
	}
	w.spoil(2, "orders", "8", right)

	// An item that one region has lost comes back, however long it has been stable, and so does a delete.
	w.spoil(0, "orders", "9", nil)
	if got := w.found(admin.VerifyRequest{}); got != "2 0 0" {
		t.Errorf("a lost item: %s", got)
	}
	if got := fmt.Sprint(reasons(0)); got != `[ap-northeast-1 BEHIND {"pk":{"S":"9"}} eu-west-1 BEHIND {"pk":{"S":"9"}}]` {
		t.Errorf("a lost item: %s", got)
	}
	w.compared(0, admin.VerifyRequest{Repair: true})
	was := w.record(1, "orders", "10")
	if _, err := w.clients[2].DeleteItem(t.Context(), &dynamodb.DeleteItemInput{TableName: aws.String("orders"), Key: item{"pk": s("10")}}); err != nil {
		t.Fatal(err)
	}
	w.rest("orders")
	w.spoil(1, "orders", "10", was)
	if got := fmt.Sprint(reasons(1)); got != `[ap-northeast-1 BEHIND {"pk":{"S":"10"}} us-east-1 BEHIND {"pk":{"S":"10"}}]` {
		t.Errorf("a lost delete: %s", got)
	}
	w.compared(1, admin.VerifyRequest{Repair: true})
	if got := w.found(admin.VerifyRequest{}); got != "0 0 0" || w.get(0, "orders", "9") == nil || w.get(1, "orders", "10") != nil {
		t.Errorf("after both were repaired: %s, %v, %v", got, w.get(0, "orders", "9"), w.get(1, "orders", "10"))
	}
	w.rest("orders")

	// Of one that is older than the traces of deletes nobody can tell, but an operator.
	for _, p := range w.dev.Nodes()[0].Region().Tables()[0].Partitions() {
		if err := p.Forget(t.Context(), p.State().Stable); err != nil {
			t.Fatal(err)
		}
	}
	w.spoil(0, "orders", "11", nil)
	if got := w.found(admin.VerifyRequest{Repair: true}); got != "2 0 0" {
		t.Errorf("an old item that was lost: %s", got)
	}
	if got := fmt.Sprint(reasons(0)); got != `[ap-northeast-1 GONE {"pk":{"S":"11"}} eu-west-1 GONE {"pk":{"S":"11"}}]` {
		t.Errorf("an old item that was lost: %s", got)
	}
	w.compared(0, admin.VerifyRequest{BringBack: true})
	if got := w.found(admin.VerifyRequest{}); got != "0 0 0" || w.get(0, "orders", "11") == nil {
		t.Errorf("brought back: %s", got)
	}

	// While a region is away nothing is folded away, and a lost item comes back.
	w.control("partition", regions[2])
	w.put(0, "orders", item{"pk": s("new"), "v": n(1)})
	w.until("the item has arrived", func() bool { return w.get(1, "orders", "new") != nil })
	w.spoil(1, "orders", "new", nil)
	for _, r := range w.verify(1, admin.VerifyRequest{Repair: true}) {
		switch {
		case r.Peer == regions[0] && (r.Different != 1 || r.Repaired != 1 || !r.Equal()):
			t.Errorf("a lost item that is new: %+v", r)
		case r.Peer == regions[2] && (r.Error == "" || r.Equal()):
			t.Errorf("a region that is away: %+v", r)
		}
	}
	if w.get(1, "orders", "new") == nil {
		t.Error("the lost item has not come back")
	}
	w.control("heal", "")
	w.rest("orders")
	if got := w.found(admin.VerifyRequest{}); got != "0 0 0" {
		t.Errorf("in the end: %s", got)
	}
}

func TestNothingIsFoundDifferentThatIsOnlyOnItsWay(t *testing.T) {
	t.Parallel() // each waits some ten seconds until a cut link is noticed
	w := begin(t, node.DevConfig{Data: t.TempDir(), InMemory: true})
	w.table("orders", regions[1:]...)
	ctx, stop := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	for region := range regions {
		rng := rand.New(rand.NewPCG(uint64(region), 5))
		writers.Go(func() {
			for ctx.Err() == nil {
				key, kind := item{"pk": s(fmt.Sprint(rng.IntN(200)))}, rng.IntN(4)
				if rng.IntN(2) == 0 {
					key, kind = item{"pk": s(fmt.Sprintf("hot%d", rng.IntN(3)))}, 2 // never at rest
				}
				var err error
				switch kind {
				case 0:
					_, err = w.clients[region].DeleteItem(ctx, &dynamodb.DeleteItemInput{TableName: aws.String("orders"), Key: key})
				case 1:
					_, err = w.clients[region].PutItem(ctx, &dynamodb.PutItemInput{TableName: aws.String("orders"), Item: key})
				default:
					_, err = w.clients[region].UpdateItem(ctx, &dynamodb.UpdateItemInput{TableName: aws.String("orders"), Key: key,
						UpdateExpression: aws.String("ADD v :one"), ExpressionAttributeValues: item{":one": n(1)}})
				}
				if err != nil && ctx.Err() == nil {
					t.Error(err)
					return
				}
			}
		})
	}
	looks := map[string]int{}
	look := func(when string, q admin.VerifyRequest) {
		for i := range regions {
			for _, r := range w.verify(i, q) {
				looks[when+" of "+fmt.Sprint(r.Error == "")]++
				if r.Different > 0 {
					t.Errorf("%s: %+v", when, r)
				}
				if when == "with all" && (r.Unsettled > 0 || r.Error != "") {
					t.Errorf("%s: %+v", when, r)
				}
			}
		}
	}
	look("with all", admin.VerifyRequest{})
	look("with all", admin.VerifyRequest{Deep: true})
	w.control("partition", regions[1])
	look("one away", admin.VerifyRequest{Repair: true})
	look("one away", admin.VerifyRequest{})
	w.control("heal", "")
	look("healed", admin.VerifyRequest{Repair: true})
	look("healed", admin.VerifyRequest{Deep: true})
	stop()
	writers.Wait()
	w.rest("orders")
	look("with all", admin.VerifyRequest{Deep: true})
	if looks["one away of false"] == 0 || looks["one away of true"] == 0 {
		t.Errorf("the cut was not seen: %v", looks)
	}
}
