package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/commutatordb/commutator/region"
)

// TargetPrefix begins the X-Amz-Target of the operator API's requests; the operation's name follows.
const TargetPrefix = "Commutator_" + version

const version = "20261122."

// Operator carries out the operator API: JSON in, JSON out, one method an operation.
type Operator struct {
	Region   *region.Region
	Links    Links
	Backups  Backups
	Verifier Verifier
	Members  Members
	Now      func() time.Time

	// Contributors returns what was counted of the named table, or of its index.
	Contributors func(table, index string) ([]ContributorRule, error)
}

// Links tells of the ways to other regions.
type Links interface {
	Links() []Link
	// Lag returns, by region, how old the newest word of a table's replica there was when it arrived.
	Lag(globalID string) map[string]time.Duration
	// Seeding returns how far this region's replica of a table has been filled from another's, nil while it is not being.
	Seeding(globalID string) *Seeding
}

// Link is one other region as this one sees it.
type Link struct {
	Region    string
	Reachable bool
	Heard     time.Time `json:",omitzero"` // when it last answered

	// ClockAhead is how far its clock is ahead of this region's, give or take ClockWithin, in nanoseconds; both 0 before that
	// was measured.
	ClockAhead, ClockWithin time.Duration
	Held                    int    // of its streams, those whose writes are held for being stamped too far ahead
	Error                   string `json:",omitempty"`
}

// Error is a fault of the caller's: its code is an exception name of DynamoDB's.
type Error struct {
	Code    string
	Message string
}

func (e *Error) Error() string { return e.Message }

// ErrorCode is the exception's name in the answer.
func (e *Error) ErrorCode() string { return e.Code }

func invalid(format string, args ...any) error {
	return &Error{"ValidationException", fmt.Sprintf(format, args...)}
}

// Handle carries out one operation, given as its target names it behind "Commutator_": the API's version
// and the operation. An *Error is the caller's fault.
func (o *Operator) Handle(ctx context.Context, target string, body []byte) ([]byte, error) {
	operation, ok := strings.CutPrefix(target, version)
	call := operations[operation]
	if !ok || call == nil {
		return nil, &Error{"UnknownOperationException", fmt.Sprintf("the operator API has no operation %q", target)}
	}
	answer, err := call(ctx, o, body)
	if errors.Is(err, region.ErrNoTable) {
		err = &Error{"ResourceNotFoundException", "Requested resource not found"}
	}
	if err != nil {
		return nil, err
	}
	return json.Marshal(answer)
}

// operations is the operator API.
var operations = map[string]func(context.Context, *Operator, []byte) (any, error){
	"Status":           typed((*Operator).status),
	"ListConflicts":    typed((*Operator).listConflicts),
	"DescribeConflict": typed((*Operator).describeConflict),
	"ReplayConflict":   typed((*Operator).replayConflict),
	"CheckIndexes":     typed((*Operator).checkIndexes),
	"Contributors":     typed((*Operator).contributors),
	"ListPartitions":   typed((*Operator).listPartitions),
	"SplitPartition":   typed((*Operator).splitPartition),
	"MergePartition":   typed((*Operator).mergePartition),
	"MovePartition":    typed((*Operator).movePartition),
	"ListNodes":        typed((*Operator).listNodes),
	"RemoveNode":       typed((*Operator).removeNode),
	"DrainNode":        typed((*Operator).drainNode),
	"GiveUpRegion":     typed((*Operator).giveUpRegion),
	"RemoveRegion":     typed((*Operator).removeRegion),
	"Verify":           typed((*Operator).verify),
	"DescribeVerify":   typed((*Operator).describeVerify),

	"CreateBackup":   typed((*Operator).createBackup),
	"RestoreBackup":  typed((*Operator).restoreBackup),
	"DescribeJob":    typed((*Operator).describeJob),
	"ListBackups":    typed((*Operator).listBackups),
	"DescribeBackup": typed((*Operator).describeBackup),
}

// typed makes an operation of a method with a request and an answer of its own.
func typed[Q, A any](method func(*Operator, context.Context, *Q) (A, error)) func(context.Context, *Operator, []byte) (any, error) {
	return func(ctx context.Context, o *Operator, body []byte) (any, error) {
		q := new(Q)
		d := json.NewDecoder(bytes.NewReader(body))
		d.DisallowUnknownFields()
		if err := d.Decode(q); err != nil {
			return nil, &Error{"SerializationException", err.Error()}
		}
		if _, err := d.Token(); !errors.Is(err, io.EOF) {
			return nil, &Error{"SerializationException", "there is more behind the request"}
		}
		return method(o, ctx, q)
	}
}
