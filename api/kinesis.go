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
// records that will not come. What a destination in that state refuses, and how: answers of the service, recorded in public.
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
	EnableKinesisStreamingConfiguration     kinesisConfiguration // {} where none was given
}

// maxKinesis bounds how many destinations that could not be enabled a table shows; the oldest go.
const maxKinesis = 32

// readKinesis reads a request about a destination whose ARN has at least so many bytes.
func (q *request) readKinesis(shortest int) (in kinesisInput, name string, err error) {
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
		c.length(*in.StreamArn, "streamArn", shortest, 1024)
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

// enableKinesisStreamingDestination answers EnableKinesisStreamingDestination. The service does not look for the stream before it
// answers either.
func enableKinesisStreamingDestination(q *request, ctx context.Context) error {
	in, name, err := q.readKinesis(37)
	if err != nil {
		return err
	}
	out := kinesisAnswer{TableName: name, StreamArn: *in.StreamArn, DestinationStatus: "ENABLING"}
	set(&out.EnableKinesisStreamingConfiguration, in.EnableKinesisStreamingConfiguration)
	_, err = q.h.cfg.Region.Change(ctx, name, func(d *table.Definition) error {
		if d.Status == table.Creating || d.Status == table.Deleting {
			return errChanging(d)
		}
		k := table.KinesisDestination{ARN: *in.StreamArn}
		set(&k.Precision, out.EnableKinesisStreamingConfiguration.ApproximateCreationDateTimePrecision)
		d.Kinesis = slices.DeleteFunc(d.Kinesis, func(x table.KinesisDestination) bool { return x.ARN == k.ARN })
		d.Kinesis = slices.Insert(d.Kinesis, 0, k)
		d.Kinesis = d.Kinesis[:min(len(d.Kinesis), maxKinesis)]
		return nil
	})
	if errors.Is(err, region.ErrNoTable) {
		return errTableNotFound(name)
	}
	if err != nil {
		return err
	}
	return q.encode(out)
}

// disableKinesisStreamingDestination answers DisableKinesisStreamingDestination: there is never an ACTIVE one to disable, and the
// service disables no other.
func disableKinesisStreamingDestination(q *request, ctx context.Context) error {
	in, name, err := q.readKinesis(1)
	if err != nil {
		return err
	}
	if in.EnableKinesisStreamingConfiguration != nil {
		return invalid("Stream cannot be disabled using EnableKinesisStreamingConfiguration parameters")
	}
	if _, err := q.h.definition(ctx, name); err != nil {
		return err
	}
	return errKinesisState("KinesisStreamingDestination must be ACTIVE to perform DISABLE operation.")
}

// updateKinesisStreamingDestination answers UpdateKinesisStreamingDestination: there is never an ACTIVE one to update.
func updateKinesisStreamingDestination(q *request, ctx context.Context) error {
	in, name, err := q.readKinesis(1)
	if err != nil {
		return err
	}
	if u := in.UpdateKinesisStreamingConfiguration; u == nil || u.ApproximateCreationDateTimePrecision == nil {
		return invalid("Streaming destination cannot be updated with given parameters: UpdateKinesisStreamingConfiguration cannot be null or contain only null values")
	}
	d, err := q.h.definition(ctx, name)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(d.Kinesis, func(k table.KinesisDestination) bool { return k.ARN == *in.StreamArn }) {
		return errKinesisState("No streaming destination with streamArn: %s found for table with tableName: %s", shorten(*in.StreamArn), name)
	}
	return errKinesisState("Kinesis streaming is not in ACTIVE state. Updates are only allowed in ACTIVE state. TableName: %s, kdsArn: %s", name, *in.StreamArn)
}

// errKinesisState refuses a change that the destination is in no state for. The service says "to enable" whatever the change is.
func errKinesisState(format string, args ...any) error {
	return invalid("Table is not in a valid state to enable Kinesis Streaming Destination: "+format, args...)
}

// describeKinesisStreamingDestination answers DescribeKinesisStreamingDestination.
func describeKinesisStreamingDestination(q *request, ctx context.Context) error {
	var in struct{ TableName *string }
	if err := q.decode(&in); err != nil {
		return err
	}
	name, err := q.h.tableName(in.TableName)
	if err != nil {
		return err
	}
	d, err := q.h.definition(ctx, name)
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
		out.KinesisDataStreamDestinations = append(out.KinesisDataStreamDestinations, destination{k.ARN, "ENABLE_FAILED", noKinesisHere, k.Precision})
	}
	return q.encode(out)
}
