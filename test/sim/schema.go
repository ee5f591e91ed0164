package sim

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/commutatordb/commutator/table"
)

// changeSchemas changes the shared table in two regions at the same time, over and over: indexes, the attribute that ends items, how it is
// billed. Which of two changes stands is the newer's, in all regions alike.
func (w *world) changeSchemas(until time.Duration) {
	for w.pause(100*time.Millisecond, time.Second); w.now < until; w.pause(100*time.Millisecond, 2*time.Second) {
		w.count.fault(faultSchema)
		open := 0
		for range 2 {
			r := w.regions[w.rng.IntN(len(w.regions))]
			operation, body := w.schemaChange()
			wait := w.between(0, 200*time.Millisecond)
			open++
			w.clients.proc.Go(func() {
				w.pause(wait, wait)
				a := w.request(r.nodes[w.rng.IntN(len(r.nodes))], api+operation, body)
				w.say("%s in %s: %s: %v", operation, r.name, body, a)
				// What another change is in the way of, or has done already, is refused.
				if a.err == nil && !a.ok() && a.status < 500 && !slices.Contains([]string{"ResourceInUseException", "ValidationException", "LimitExceededException", "ResourceNotFoundException"}, a.code) {
					w.violate("%s in %s is refused: %v", operation, r.name, a)
				}
				open--
			})
		}
		for open > 0 {
			w.pause(20*time.Millisecond, 50*time.Millisecond)
		}
	}
}

func (w *world) schemaChange() (operation, body string) {
	index := fmt.Sprintf("by-%d", w.rng.IntN(2))
	switch w.rng.IntN(6) {
	case 0, 1:
		return "UpdateTable", fmt.Sprintf(`{"TableName":%q,"AttributeDefinitions":[{"AttributeName":"w","AttributeType":"S"}],"GlobalSecondaryIndexUpdates":[{"Create":{"IndexName":%q,"KeySchema":[{"AttributeName":"w","KeyType":"HASH"}],"Projection":{"ProjectionType":"KEYS_ONLY"}}}]}`, shared, index)
	case 2:
		return "UpdateTable", fmt.Sprintf(`{"TableName":%q,"GlobalSecondaryIndexUpdates":[{"Delete":{"IndexName":%q}}]}`, shared, index)
	case 3:
		return "UpdateTable", fmt.Sprintf(`{"TableName":%q,"TableClass":%q}`, shared, []string{"STANDARD", "STANDARD_INFREQUENT_ACCESS"}[w.rng.IntN(2)])
	case 4: // no item has it
		return "UpdateTimeToLive", fmt.Sprintf(`{"TableName":%q,"TimeToLiveSpecification":{"Enabled":%v,"AttributeName":"never"}}`, shared, w.chance(0.5))
	}
	return "UpdateTable", fmt.Sprintf(`{"TableName":%q,"StreamSpecification":{"StreamEnabled":true,"StreamViewType":%q}}`, shared, []string{"NEW_AND_OLD_IMAGES", "KEYS_ONLY"}[w.rng.IntN(2)])
}

// unlike says where regions' definitions of the shared table are not the same, or not carried out; "" when nowhere.
func (w *world) unlike() string {
	var first string
	for _, m := range w.nodes {
		d, err := m.engine.Region().Definition(shared)
		if err != nil {
			return fmt.Sprintf("%s: %v", m.name, err)
		}
		var names []string
		for _, x := range d.Schema.Indexes {
			if x.Backfilling || x.Deleting {
				return fmt.Sprintf("%s has not done with index %s", m.name, x.Name)
			}
			names = append(names, x.Name)
		}
		slices.Sort(names)
		var incarnations []string
		for _, r := range d.Replicas {
			incarnations = append(incarnations, fmt.Sprintf("%s %s %d", r.Region, r.Status, r.Incarnation))
		}
		b, err := json.Marshal([]any{d.Version, strings.Join(names, " "), d.TTL, d.Billing, d.Class, d.Schema.Modes, incarnations, d.Status == table.Active})
		if err != nil {
			return err.Error()
		}
		if first == "" {
			first = string(b)
		} else if first != string(b) {
			return fmt.Sprintf("%s has the table as %s and %s as %s", w.nodes[0].name, first, m.name, b)
		}
	}
	return ""
}
