package admin

import (
	"context"
	"encoding/json"
	"time"

	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/table"
)

// Verifier holds this region's copies of global tables against those of other regions.
type Verifier interface {
	// Verify starts a job and returns it as it begins. It returns ErrElsewhere at a node that does not keep its region
	// in step with the others.
	Verify(ctx context.Context, q VerifyRequest) (VerifyJob, error)
	// VerifyJob returns a job of this node's. It returns ErrElsewhere for one that it does not know, where another node may.
	VerifyJob(id string) (VerifyJob, error)
}

// ErrElsewhere is how a node refuses what another of its region does. Node asks that one; a client hears it if it cannot.
var ErrElsewhere = &Error{"NotLeaderException", "another node keeps this region in step with the others; ask that one"}

// VerifyRequest asks to hold this region's copy of a table ("": of every global table) against each other region's. The answer
// is a VerifyJob.
type VerifyRequest struct {
	TableName string
	Deep      bool // compare whole items, instead of sums of them
	Repair    bool // merge what is lacking here
	BringBack bool // merge what is Gone here, too: whoever asks knows that it was lost, and not deleted
}

// DescribeVerifyRequest asks how a job goes; the answer is a VerifyJob.
type DescribeVerifyRequest struct{ ID string }

// VerifyJob is such a job, under way or ended. A job that is done has found out; it need not have found everything equal.
type VerifyJob struct {
	ID       string
	Status   string // as a BackupJob's
	Region   string
	Started  time.Time
	Finished time.Time  `json:",omitzero"`
	Results  []Verified // the last one of a running job is not complete
	Error    string     `json:",omitempty"`
}

// Verified is what one region's copy of a table falls short of another's.
type Verified struct {
	TableName, Region, Peer string
	Items                   uint64 // shown here
	Leaves                  int    // ranges of keys that were held against each other
	Different               int    // items of which this region lacks what the peer has, or shows something else
	Unsettled               int    // items that kept changing; they may be different
	Repaired                int    // of those that were different
	AsOf                    time.Time
	Keys                    []DifferentItem `json:",omitempty"` // the first of those that are or were different
	Error                   string          `json:",omitempty"` // why it could not be found out
}

// Equal tells whether nothing is different, or is any more.
func (v *Verified) Equal() bool {
	return v.Error == "" && v.Unsettled == 0 && v.Different == v.Repaired
}

// NoVerifyJob is the error of a job that is not known.
func NoVerifyJob(id string) error {
	return &Error{"ResourceNotFoundException", "no job " + id + " on the node that leads the region since it does"}
}

// MaxDifferentItems is how many keys a Verified has, at most.
const MaxDifferentItems = 100

// DifferentItem is one item that is not what another region shows.
type DifferentItem struct {
	Key         json.RawMessage // as DynamoDB writes a key
	Reason      DifferenceReason
	Here, There string `json:",omitempty"` // the newest write that each has seen; "" where nothing is held
	Repaired    bool   `json:",omitempty"`
}

// DifferenceReason says in which way an item is different.
type DifferenceReason string

// The reasons.
const (
	// Behind: the peer has writes that this region lacks. Merging its state brings them.
	Behind DifferenceReason = "BEHIND"
	// Gone: the peer shows an item, and this region has none, nor a trace of one. Either it was lost here, or it was deleted so long ago
	// that no trace is left of that, and its delete was lost there.
	Gone DifferenceReason = "GONE"
	// Unlike: both have seen the same writes and show something else, and merging does not make them alike.
	Unlike DifferenceReason = "UNLIKE"
)

// ReasonOf is how a region's word for a difference is shown.
func ReasonOf(d region.Difference) DifferenceReason {
	switch d {
	case region.Behind:
		return Behind
	case region.Gone:
		return Gone
	}
	return Unlike
}

// KeyOf writes a key as DynamoDB does.
func KeyOf(s *table.Schema, key table.Key) (json.RawMessage, error) { return keyOf(s, key) }

func (o *Operator) verify(ctx context.Context, q *VerifyRequest) (VerifyJob, error) {
	return o.Verifier.Verify(ctx, *q)
}

func (o *Operator) describeVerify(_ context.Context, q *DescribeVerifyRequest) (VerifyJob, error) {
	return o.Verifier.VerifyJob(q.ID)
}
