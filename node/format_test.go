package node

import (
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/commutatordb/commutator/internal/format"
	"github.com/commutatordb/commutator/replication"
)

func TestDataOfANewerFormatIsNotOpened(t *testing.T) {
	fs := vfs.NewMem()
	now := time.Unix(1_700_000_000, 0)
	if err := fs.MkdirAll("data/"+logDir, 0o755); err != nil {
		t.Fatal(err)
	}
	id, err := newIdentity(fs, "data", identity{Region: "us-east-1", Node: "one"}, now)
	if err != nil || id.Format != format.Oldest {
		t.Fatalf("%+v, %v", id, err)
	}
	if err := writeDurably(fs, "data/"+logDir, "1.seg", nil); err != nil {
		t.Fatal(err)
	}
	if err := id.raise(fs, "data", format.Known); err != nil {
		t.Fatal(err)
	}
	if again, err := openIdentity(fs, "data", "us-east-1", "one", now); err != nil || again != id {
		t.Errorf("of the newest format: %+v, %v", again, err)
	}
	if err := id.raise(fs, "data", format.Known+1); err != nil {
		t.Fatal(err)
	}
	if _, err := openIdentity(fs, "data", "us-east-1", "one", now); err == nil || !strings.Contains(err.Error(), "start the one that wrote it") {
		t.Errorf("of a newer one: %v", err)
	}
}

func TestARegionOfANewerFormatIsNotTakenFrom(t *testing.T) {
	if _, err := decodeDefinitions(replication.Tables{Region: "eu-west-1", Format: format.Known}); err != nil {
		t.Error(err)
	}
	if _, err := decodeDefinitions(replication.Tables{Region: "eu-west-1", Format: format.Known + 1}); err == nil {
		t.Error("it is taken from")
	}
}
