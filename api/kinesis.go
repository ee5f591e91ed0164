package api

import (
	"context"
	"errors"
	"slices"

	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/table"
)

// There is no Kinesis beside Commutator for changes to go to. A destination is kept and shown as the service shows one that it
// cannot reach: ENABLE_FAILED, with the reason. So a tool that declares destinations finds what it declared, and nobody waits for
// records that will not come.
const noKinesisHere = "Commutator has no Kinesis to write to"

type kinesisConfiguration struct {
	ApproximateCreationDateTimePrecision *string `json:",omitempty"`
}

type kinesisInput struct {
	TableName, StreamArn                *string
	EnableKinesisStreamingConfiguration *kinesisConfiguration
	UpdateKinesisStreamingConfiguration *kinesisConfiguration
}

type kinesisAnswer struct {
	TableName, StreamArn, DestinationStatus string
	EnableKinesisStreamingConfiguration     *kinesisConfiguration `json:",omitempty"`
}

func (q *request) readKinesis() (in kinesisInput, name string, err error) {
	if err = q.decode(&in); err != nil {
		return in, "", err
	}
	if name, err = q.h.tableName(in.TableName); err != nil {
		return in, "", err
	}
	var c constraints
	if in.StreamArn == nil {
		c.required("streamArn")
	} else {
		c.length(*in.StreamArn, "streamArn", 37, 1024)
	}
	precision := func(k *kinesisConfiguration, at string) {
		if k != nil && k.ApproximateCreationDateTimePrecision != nil {
			c.enum(*k.ApproximateCreationDateTimePrecision, at+".approximateCreationDateTimePrecision", "MICROSECOND", "MILLISECOND")
		}
	}
	precision(in.EnableKinesisStreamingConfiguration, "enableKinesisStreamingConfiguration")
	precision(in.UpdateKinesisStreamingConfiguration, "updateKinesisStreamingConfiguration")
	return in, name, c.err()
}

// enableKinesisStreamingDestination answers EnableKinesisStreamingDestination.
func enableKinesisStreamingDestination(q *request, ctx context.Context) error {
	in, name, err := q.readKinesis()
	if err != nil {
		return err
	}
	_, err = q.h.cfg.Region.Change(ctx, name, func(d *table.Definition) error {
		if d.Status == table.Creating || d.Status == table.Deleting {
			return errChanging(d)
		}
		k := table.KinesisDestination{ARN: *in.StreamArn}
		if given := in.EnableKinesisStreamingConfiguration; given != nil && given.ApproximateCreationDateTimePrecision != nil {
			k.Precision = *given.ApproximateCreationDateTimePrecision
		}
		d.Kinesis = slices.DeleteFunc(d.Kinesis, func(x table.KinesisDestination) bool { return x.ARN == k.ARN || x.Off })
		if len(d.Kinesis) == 2 {
			return errLimit("Subscriber limit exceeded: A table may have 2 Kinesis data streams")
		}
		d.Kinesis = append(d.Kinesis, k)
		return nil
	})
	if errors.Is(err, region.ErrNoTable) {
		return errNoTable()
	}
	if err != nil {
		return err
	}
	return q.encode(kinesisAnswer{name, *in.StreamArn, "ENABLING", in.EnableKinesisStreamingConfiguration})
}

// disableKinesisStreamingDestination answers DisableKinesisStreamingDestination. The service has only ACTIVE ones disabled; here a
// client must be able to take back what it declared.
func disableKinesisStreamingDestination(q *request, ctx context.Context) error {
	in, name, err := q.readKinesis()
	if err != nil {
		return err
	}
	_, err = q.h.cfg.Region.Change(ctx, name, func(d *table.Definition) error {
		k, err := destinationOf(d, *in.StreamArn)
		if err != nil {
			return err
		}
		if k.Off {
			return invalid("Table is not in a valid state to disable Kinesis Streaming Destination: KinesisStreamingDestination must be ACTIVE to perform DISABLE operation.")
		}
		k.Off = true
		return nil
	})
	if errors.Is(err, region.ErrNoTable) {
		return errNoTable()
	}
	if err != nil {
		return err
	}
	return q.encode(kinesisAnswer{name, *in.StreamArn, "DISABLING", in.EnableKinesisStreamingConfiguration})
}

// updateKinesisStreamingDestination answers UpdateKinesisStreamingDestination: there is never an ACTIVE one to update.
func updateKinesisStreamingDestination(q *request, _ context.Context) error {
	in, name, err := q.readKinesis()
	if err != nil {
		return err
	}
	d, err := q.h.cfg.Region.Definition(name)
	if errors.Is(err, region.ErrNoTable) {
		return errNoTable()
	}
	if err != nil {
		return err
	}
	if _, err := destinationOf(d, *in.StreamArn); err != nil {
		return err
	}
	return invalid("Table is not in a valid state to update Kinesis Streaming Destination: KinesisStreamingDestination must be ACTIVE to perform UPDATE operation.")
}

func destinationOf(d *table.Definition, arn string) (*table.KinesisDestination, error) {
	for i := range d.Kinesis {
		if d.Kinesis[i].ARN == arn {
			return &d.Kinesis[i], nil
		}
	}
	return nil, dynamoError("ResourceNotFoundException", "Requested resource not found: Table: %s has no Kinesis streaming destination %s", d.Schema.Name, arn)
}

// describeKinesisStreamingDestination answers DescribeKinesisStreamingDestination.
func describeKinesisStreamingDestination(q *request, _ context.Context) error {
	var in struct{ TableName *string }
	if err := q.decode(&in); err != nil {
		return err
	}
	name, err := q.h.tableName(in.TableName)
	if err != nil {
		return err
	}
	d, err := q.h.cfg.Region.Definition(name)
	if errors.Is(err, region.ErrNoTable) {
		return errNoTable()
	}
	if err != nil {
		return err
	}
	type destination struct {
		StreamArn, DestinationStatus         string
		DestinationStatusDescription         string `json:",omitempty"`
		ApproximateCreationDateTimePrecision string `json:",omitempty"`
	}
	out := struct {
		TableName                     string
		KinesisDataStreamDestinations []destination
	}{name, []destination{}}
	for _, k := range d.Kinesis {
		shown := destination{k.ARN, "ENABLE_FAILED", noKinesisHere, k.Precision}
		if k.Off {
			shown.DestinationStatus, shown.DestinationStatusDescription = "DISABLED", ""
		}
		out.KinesisDataStreamDestinations = append(out.KinesisDataStreamDestinations, shown)
	}
	return q.encode(out)
}
