package admin

import (
	"context"

	"github.com/commutatordb/commutator/table"
)

// Members has regions go on without one that is away.
type Members interface {
	// GiveUp gives a region's replica of one table up, or ("") of all: nobody waits for it any more, and when it comes back it begins
	// anew. refused are the tables whose other replicas may not decide that by themselves, unless it is forced.
	GiveUp(ctx context.Context, region, table string, force bool) (given int, refused []string, err error)
	// Remove takes a region's replicas of all tables away that it will not give back itself, and tells how far each is. It is called again
	// until all are gone.
	Remove(ctx context.Context, region string) ([]RemovedReplica, error)
}

// GiveUpRegionRequest has the regions go on without another.
type GiveUpRegionRequest struct {
	Region    string // that is away
	TableName string `json:",omitempty"` // "": all
	// Force does so even where the regions that are left are not most of all: only the caller can know that the region, or those that
	// it can still reach, do not do the same.
	Force bool `json:",omitempty"`
}

// GivenUp tells what came of it.
type GivenUp struct {
	Region  string
	Tables  int      // whose replica there was given up now
	Refused []string `json:",omitempty"` // tables that the regions left may not decide for without Force
}

func (o *Operator) giveUpRegion(ctx context.Context, q *GiveUpRegionRequest) (*GivenUp, error) {
	if err := o.another(q.Region); err != nil {
		return nil, err
	}
	n, refused, err := o.Members.GiveUp(ctx, q.Region, q.TableName, q.Force)
	return &GivenUp{Region: q.Region, Tables: n, Refused: refused}, err
}

// another refuses a region that there is no sense in asking about.
func (o *Operator) another(region string) error {
	switch region {
	case "":
		return invalid("Region is not given")
	case o.Region.Name():
		return invalid("%s is the region that is asked: the others can go on without it", region)
	}
	return nil
}

// RemoveRegionRequest takes away what a region had that is gone for good.
type RemoveRegionRequest struct{ Region string }

// RemovedRegion tells how far that is.
type RemovedRegion struct {
	Region   string
	Replicas []RemovedReplica
	Done     bool
}

// RemovedReplica is one table's replica that is taken away.
type RemovedReplica struct {
	TableName string
	Status    table.Status // GONE; or what another region says against it
	Waiting   []string     `json:",omitempty"` // regions that have not told that they have all that any has of what was written there
}

func (o *Operator) removeRegion(ctx context.Context, q *RemoveRegionRequest) (*RemovedRegion, error) {
	if err := o.another(q.Region); err != nil {
		return nil, err
	}
	replicas, err := o.Members.Remove(ctx, q.Region)
	out := &RemovedRegion{Region: q.Region, Replicas: replicas, Done: true}
	for _, r := range replicas {
		out.Done = out.Done && r.Status == table.Gone && len(r.Waiting) == 0
	}
	return out, err
}
