//go:build linux

package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

const (
	kills, killsShort = 20, 3
	writers           = 12
	// gapLimit is far beyond what a gap is meant to be (docs/reliability.md has what was measured): only a hang is longer.
	gapLimit = 15 * time.Second
)

// sdk is a client as AWS's SDK makes one, with its own retries. Its name for the region has the addresses of all nodes, as one in DNS would: a
// connection is made to the first that takes one.
func (r *region) sdk() *dynamodb.Client {
	dial := func(ctx context.Context, _, _ string) (c net.Conn, err error) {
		for _, i := range rand.Perm(len(r.nodes)) {
			if c, err = (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", r.address(i+1, 8000)); err == nil {
				return c, nil
			}
		}
		return nil, err
	}
	return dynamodb.New(dynamodb.Options{
		Region: regionName, BaseEndpoint: aws.String("http://dynamodb.example"), Credentials: credentials.NewStaticCredentialsProvider("any", "any", ""),
		HTTPClient: &http.Client{Transport: &http.Transport{DialContext: dial}},
	})
}

// writer puts items of its own one after the other, and notes when each was acknowledged.
type writer struct {
	acked []time.Time
	err   error
}

func (w *writer) run(ctx context.Context, c *dynamodb.Client, name string) {
	for ctx.Err() == nil {
		_, err := c.PutItem(context.WithoutCancel(ctx), &dynamodb.PutItemInput{TableName: aws.String(tableName), Item: map[string]types.AttributeValue{
			"pk": &types.AttributeValueMemberS{Value: fmt.Sprintf("%s/%d", name, len(w.acked))},
		}})
		if err != nil {
			w.err = errors.Join(w.err, err)
			continue
		}
		w.acked = append(w.acked, time.Now())
	}
}

// writeOn has clients write until ctx ends.
func writeOn(ctx context.Context, r *region) (all []*writer, load *sync.WaitGroup) {
	all, load = make([]*writer, writers), new(sync.WaitGroup)
	for i := range all {
		all[i] = &writer{}
		load.Go(func() { all[i].run(ctx, r.sdk(), fmt.Sprint(i)) })
	}
	return all, load
}

// gap is the longest that the writer went without an acknowledgement between two times.
func (w *writer) gap(from, to time.Time) (longest time.Duration) {
	for i, at := range w.acked[:len(w.acked)-1] {
		if next := w.acked[i+1]; next.After(from) && at.Before(to) {
			longest = max(longest, next.Sub(at))
		}
	}
	return longest
}

// TestANodeIsKilledAndClientsOfTheSDKNoticeAPause kills one node of three after the other, any of them, under the load of SDK clients.
func TestANodeIsKilledAndClientsOfTheSDKNoticeAPause(t *testing.T) {
	r := start(t, 3, "partitionsPerTable: 4")
	makeTable(t, newClient([]string{r.endpoint(1)}, 0, 10*time.Second))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	all, load := writeOn(ctx, r)
	n := kills
	if testing.Short() {
		n = killsShort
	}
	var killed []time.Time
	for range n {
		sleep(t.Context(), time.Second) // the load is the point
		id := 1 + rand.IntN(len(r.nodes))
		killed = append(killed, time.Now())
		r.kill(id)
		sleep(t.Context(), 2500*time.Millisecond)
		r.start(id)
		r.ready(id)
	}
	stop()
	load.Wait()

	var gaps []time.Duration
	for i, at := range killed {
		to := time.Now()
		if i+1 < len(killed) {
			to = killed[i+1]
		}
		var longest time.Duration
		for _, w := range all {
			longest = max(longest, w.gap(at, to))
		}
		gaps = append(gaps, longest.Round(time.Millisecond))
	}
	total := checkWritten(t, r, all)
	slices.Sort(gaps)
	p95 := gaps[(len(gaps)*95+99)/100-1]
	t.Logf("%d kills, %d writes acknowledged; the longest that any of %d writers waited, by kill: median %s, p95 %s, max %s", n, total, writers, gaps[len(gaps)/2], p95, gaps[len(gaps)-1])
	if gaps[len(gaps)-1] > gapLimit {
		t.Errorf("a writer waited %s", gaps[len(gaps)-1])
	}
}

// checkWritten finds that no writer had an error, and that all that was acknowledged is there; it returns how much.
func checkWritten(t *testing.T, r *region, all []*writer) (total int) {
	t.Helper()
	there := scan(t, r)
	for i, w := range all {
		if w.err != nil {
			t.Errorf("writer %d, after the SDK's retries: %v", i, w.err)
		}
		total += len(w.acked)
		for n := range w.acked {
			if key := fmt.Sprintf("%d/%d", i, n); !there[key] {
				t.Errorf("%s was acknowledged, and is not there", key)
			}
		}
	}
	return total
}
