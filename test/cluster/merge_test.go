//go:build linux

package cluster

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	values "github.com/commutatordb/commutator/item"
	"github.com/commutatordb/commutator/table"
)

// mergeLimit is longer than any request may wait while a partition is merged: that is a second.
const mergeLimit = 5 * time.Second

// TestAnEmptyPartitionIsMergedWhileClientsReadAndWrite has a table split, all items of the one part deleted, and that part merged into the other, while some
// clients write elsewhere, and others read where it is empty.
func TestAnEmptyPartitionIsMergedWhileClientsReadAndWrite(t *testing.T) {
	r := start(t, 3, "partitionsPerTable: 1")
	c := r.sdk()
	makeTable(t, newClient([]string{r.endpoint(1)}, 0, 10*time.Second))
	r.command(1, "partition", "split", tableName, fmt.Sprint(r.partitions(1)[0].ID), "--at", "c0")
	parts := r.partitions(2)
	if len(parts) != 2 {
		t.Fatalf("%d partitions", len(parts))
	}
	id := fmt.Sprint(parts[1].ID)
	var above []map[string]types.AttributeValue // items of the partition that is to go
	for i := 0; len(above) < 100; i++ {
		if pk := fmt.Sprint("above/", i); goes(pk) {
			above = append(above, map[string]types.AttributeValue{"pk": &types.AttributeValueMemberS{Value: pk}})
		}
	}
	write := func(items []map[string]types.AttributeValue, del bool) {
		for _, it := range items {
			var err error
			if del {
				_, err = c.DeleteItem(t.Context(), &dynamodb.DeleteItemInput{TableName: aws.String(tableName), Key: it})
			} else {
				_, err = c.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: aws.String(tableName), Item: it})
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	write(above, false)
	if out, err := r.merge(id); err == nil || !strings.Contains(out, "100 items") {
		t.Fatalf("a partition with items is merged: %v: %s", err, out)
	}
	write(above, true)

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var load sync.WaitGroup
	wrote := make([][]string, 8)
	slowest := make([]time.Duration, len(wrote))
	for i := range wrote {
		load.Go(func() {
			c := r.sdk()
			for n := 0; ctx.Err() == nil; n++ {
				pk := fmt.Sprintf("%d/%d", i, n)
				if goes(pk) {
					continue
				}
				begun := time.Now()
				_, err := c.PutItem(context.WithoutCancel(ctx), &dynamodb.PutItemInput{TableName: aws.String(tableName), Item: map[string]types.AttributeValue{"pk": &types.AttributeValueMemberS{Value: pk}}})
				if err != nil {
					t.Error(err)
					return
				}
				slowest[i], wrote[i] = max(slowest[i], time.Since(begun)), append(wrote[i], pk)
			}
		})
	}
	waited := make([]time.Duration, 4)
	reads := make([]int, len(waited))
	for i := range waited {
		load.Go(func() {
			c := r.sdk()
			for n := i; ctx.Err() == nil; n++ {
				begun := time.Now()
				got, err := c.GetItem(context.WithoutCancel(ctx), &dynamodb.GetItemInput{TableName: aws.String(tableName), Key: above[n%len(above)], ConsistentRead: aws.Bool(true)})
				if err != nil || got.Item != nil {
					t.Errorf("a read of what was deleted: %v, %v", got, err)
				}
				waited[i], reads[i] = max(waited[i], time.Since(begun)), reads[i]+1
			}
		})
	}
	begun := time.Now()
	for {
		out, err := r.merge(id)
		if err == nil {
			break
		}
		// What was deleted is folded away in a second or two.
		if time.Since(begun) > 30*time.Second {
			t.Fatalf("%v: %s", err, out)
		}
		sleep(t.Context(), 200*time.Millisecond)
	}
	merged := time.Since(begun)
	sleep(t.Context(), time.Second) // the load is the point
	stop()
	load.Wait()
	if parts := r.partitions(3); len(parts) != 1 {
		t.Errorf("%d partitions", len(parts))
	}
	total, n := 0, 0
	there := scan(t, r)
	for _, keys := range wrote {
		for _, pk := range keys {
			if total++; !there[pk] {
				t.Errorf("%s was acknowledged, and is not there", pk)
			}
		}
	}
	if len(there) != total {
		t.Errorf("a scan shows %d items, and %d were written", len(there), total)
	}
	write(above, false)
	if got := len(scan(t, r)); got != total+len(above) {
		t.Errorf("a scan shows %d items, and %d were written", got, total+len(above))
	}
	for _, k := range reads {
		n += k
	}
	read, wait := slices.Max(waited), slices.Max(slowest)
	t.Logf("merged within %s; of %d reads where it was empty the longest took %s, of %d writes elsewhere %s", merged.Round(time.Millisecond), n, read.Round(time.Millisecond), total, wait.Round(time.Millisecond))
	if max(read, wait) > mergeLimit {
		t.Error("a client waited for longer than it may")
	}
}

// goes tells whether an item is in the upper quarter of all hashes.
func goes(pk string) bool { return table.Hash(values.S(pk).AppendOrdered(nil)) >= 0xc0<<56 }

// merge has a partition merged, and returns what was said of it.
func (r *region) merge(id string) (said string, err error) {
	cmd := exec.Command(r.program, "partition", "merge", tableName, id, "--endpoint", r.endpoint(2))
	cmd.Env = append(cmd.Environ(), "AWS_ACCESS_KEY_ID=any", "AWS_SECRET_ACCESS_KEY=any")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// scan returns the keys that a scan shows, each of which must come once.
func scan(t *testing.T, r *region) map[string]bool {
	t.Helper()
	there := map[string]bool{}
	pages := dynamodb.NewScanPaginator(r.sdk(), &dynamodb.ScanInput{TableName: aws.String(tableName), ConsistentRead: aws.Bool(true)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, it := range page.Items {
			pk := it["pk"].(*types.AttributeValueMemberS).Value
			if there[pk] {
				t.Errorf("%s comes twice", pk)
			}
			there[pk] = true
		}
	}
	return there
}
