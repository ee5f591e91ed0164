package api

import (
	"time"

	"github.com/commutatordb/commutator/table"
)

// parameter is a ValidationException about a parameter's value.
func parameter(format string, args ...any) error {
	return invalid("One or more parameter values were invalid: "+format, args...)
}

func (c *constraints) billing(mode *string, t *throughputShape) {
	if mode != nil {
		c.enum(*mode, "billingMode", "PROVISIONED", "PAY_PER_REQUEST")
	}
	c.throughput(t, "provisionedThroughput")
}

func (c *constraints) throughput(t *throughputShape, at string) {
	if t == nil {
		return
	}
	for _, u := range [...]struct {
		value *int64
		name  string
	}{{t.WriteCapacityUnits, ".writeCapacityUnits"}, {t.ReadCapacityUnits, ".readCapacityUnits"}} {
		if u.value == nil {
			c.required(at + u.name)
		} else {
			c.atLeast(*u.value, at+u.name, 1)
		}
	}
}

func (t *throughputShape) units() table.Throughput {
	return table.Throughput{Read: *t.ReadCapacityUnits, Write: *t.WriteCapacityUnits}
}

// maxUnits is the most that may be asked for at all, whatever an account's quota.
const maxUnits = 1_000_000_000_000

// checkBounds checks what is asked for; of is "" for a table, or " for index NAME".
func (t *throughputShape) checkBounds(of string) error {
	switch {
	case t == nil:
	case *t.ReadCapacityUnits > maxUnits:
		return invalid("Given value %d for ReadCapacityUnits is out of bounds%s", *t.ReadCapacityUnits, of)
	case *t.WriteCapacityUnits > maxUnits:
		return invalid("Given value %d for WriteCapacityUnits is out of bounds%s", *t.WriteCapacityUnits, of)
	}
	return nil
}

// given returns the first member that was given, "" for none.
func (o *onDemandShape) given() string {
	switch {
	case o == nil:
	case o.MaxReadRequestUnits != nil:
		return "MaxReadRequestUnits"
	case o.MaxWriteRequestUnits != nil:
		return "MaxWriteRequestUnits"
	}
	return ""
}

// set sets what maximums were given; of is "table", or "index : NAME". -1 takes one away from what is there, if anything is.
func (o *onDemandShape) set(t *table.Throughput, of string, there bool) error {
	if o == nil {
		return nil
	}
	for _, u := range [...]struct {
		value *int64
		to    *int64
		name  string
	}{{o.MaxReadRequestUnits, &t.Read, "MaxReadRequestUnits"}, {o.MaxWriteRequestUnits, &t.Write, "MaxWriteRequestUnits"}} {
		switch {
		case u.value == nil:
		case *u.value == -1 && there:
			*u.to = 0
		case *u.value < 1:
			return parameter("Requested %s for OnDemandThroughput for %s is outside of valid range", u.name, of)
		default:
			*u.to = *u.value
		}
	}
	return nil
}

// warmShape is a WarmThroughput. Requests have no Status.
type warmShape struct {
	ReadUnitsPerSecond  *int64 `json:",omitempty"`
	WriteUnitsPerSecond *int64 `json:",omitempty"`
	Status              *string
}

// given tells whether anything is asked for.
func (w *warmShape) given() bool {
	return w != nil && (w.ReadUnitsPerSecond != nil || w.WriteUnitsPerSecond != nil)
}

// status returns shown with another status if w asks for anything, and nil otherwise.
func (w *warmShape) status(shown *warmShape, status table.Status) *warmShape {
	if !w.given() {
		return nil
	}
	shown.Status = new(string(status))
	return shown
}

const initialThroughput = "https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/on-demand-capacity-mode.html#on-demand-capacity-mode-initial"

// begin sets the warm throughput of a new table or index; of is "table" or "index NAME". It may not be less than what the billing
// implies.
func (w *warmShape) begin(to *table.Throughput, billing table.Billing, provisioned table.Throughput, of string) error {
	least := table.Warm(table.Throughput{}, billing, provisioned)
	return w.raise(to, least, func(member, provisioned string) error {
		if billing == table.OnDemand {
			return parameter("Requested %s for WarmThroughput for %s is lower than initial throughput for OnDemand. See: %s", member, of, initialThroughput)
		}
		return parameter("Requested %s for WarmThroughput for %s is lower than %s of ProvisionedThroughput", member, of, provisioned)
	})
}

// increase sets the warm throughput of what is there already, which never becomes less.
func (w *warmShape) increase(to *table.Throughput, billing table.Billing, provisioned table.Throughput, of string) error {
	return w.raise(to, table.Warm(*to, billing, provisioned), func(member, _ string) error {
		return parameter("Requested %s for WarmThroughput for %s is lower than current WarmThroughput, decreasing WarmThroughput is not supported", member, of)
	})
}

func (w *warmShape) raise(to *table.Throughput, least table.Throughput, refuse func(member, provisioned string) error) error {
	if !w.given() {
		return nil
	}
	out := least
	if w.ReadUnitsPerSecond != nil {
		if out.Read = *w.ReadUnitsPerSecond; out.Read < least.Read {
			return refuse("ReadUnitsPerSecond", "ReadCapacityUnits")
		}
	}
	if w.WriteUnitsPerSecond != nil {
		if out.Write = *w.WriteUnitsPerSecond; out.Write < least.Write {
			return refuse("WriteUnitsPerSecond", "WriteCapacityUnits")
		}
	}
	*to = out
	return nil
}

// setCapacity gives an index of a new table its capacity.
func (in *indexShape) setCapacity(d *table.Definition, x *table.Index) error {
	switch {
	case d.Billing == table.OnDemand && in.ProvisionedThroughput != nil:
		return parameter("ProvisionedThroughput should not be specified for index: %s when BillingMode is PAY_PER_REQUEST", x.Name)
	case d.Billing == table.Provisioned && in.OnDemandThroughput.given() != "":
		return parameter("%s for OnDemandThroughput for index: %s cannot be specified when table BillingMode is PROVISIONED.", in.OnDemandThroughput.given(), x.Name)
	case d.Billing == table.Provisioned && in.ProvisionedThroughput == nil:
		return parameter("ProvisionedThroughput is not specified for index: %s", x.Name)
	}
	return in.fillCapacity(d, x)
}

// fillCapacity sets the capacity that fits the table's billing.
func (in *indexShape) fillCapacity(d *table.Definition, x *table.Index) error {
	if in.ProvisionedThroughput != nil {
		if err := in.ProvisionedThroughput.checkBounds(" for index " + x.Name); err != nil {
			return err
		}
		x.Throughput = in.ProvisionedThroughput.units()
	}
	if err := in.OnDemandThroughput.set(&x.OnDemand, "index : "+x.Name, false); err != nil {
		return err
	}
	return in.WarmThroughput.begin(&x.Warm, d.Billing, x.Throughput, "index "+x.Name)
}

// rescale changes provisioned throughput: of a table (of is "table") or an index. warm and scaled are what goes with it.
func rescale(now time.Time, of string, have *table.Throughput, warm *table.Throughput, scaled *table.Scaled, to table.Throughput) error {
	if to == *have {
		whose := "the " + of
		if of != "table" {
			whose = of
		}
		return invalid("The provisioned throughput for the %s will not change. The requested value equals the current value. Current ReadCapacityUnits provisioned for %s: %d. Requested ReadCapacityUnits: %d. Current WriteCapacityUnits provisioned for %s: %d. Requested WriteCapacityUnits: %d. Refer to the Amazon DynamoDB Developer Guide for current limits and how to request higher limits.",
			of, whose, have.Read, to.Read, whose, have.Write, to.Write)
	}
	if next := scaled.NextDecrease(now); have.Decreases(to) && next.After(now) {
		const form = "Monday, January 2, 2006 at 3:04:05 PM Coordinated Universal Time"
		return errLimit("Subscriber limit exceeded: Provisioned throughput decreases are limited within a given UTC day. After the first 4 decreases, each subsequent decrease in the same UTC day can be performed at most once every 3600 seconds. Number of decreases today: %d. Last decrease at %s. Next decrease can be made at %s",
			scaled.Today(now), time.UnixMilli(scaled.Down).UTC().Format(form), next.UTC().Format(form))
	}
	*scaled = scaled.Change(*have, to, now)
	*warm = warm.Least(*have)
	*have = to
	return nil
}
