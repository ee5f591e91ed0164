package lint

import "testing"

// pure are the packages whose results follow from their arguments alone, so that a simulator can drive them, every node of a
// group reaches the same bytes, and a failing seed fails again. replication's own goroutines stand in replication/transport.
var pure = []string{"item", "table", "expr", "crdt", "region/op", "region/partition", "region/placement", "replication"}

// atTheEdge are the packages that may ask the machine for the time, for randomness and for files. All others are handed them.
var atTheEdge = []string{"node", "cmd/...", "test/...", "backup/s3", "backup/local", "internal/..."}

// seeded are the names of math/rand and math/rand/v2 that do not touch the source that all programs share.
var seeded = []string{"New", "NewSource", "NewPCG", "NewChaCha8", "NewZipf", "Rand", "Source", "Source64", "PCG", "ChaCha8", "Zipf"}

var bans = []Ban{
	{
		In:      []string{"..."},
		Except:  atTheEdge,
		Imports: []string{"os", "os/exec", "io/ioutil"},
		Why:     "files, processes and the environment belong to node, cmd, test, internal and the archives; storage works over vfs.FS, errors such as fs.ErrNotExist are in io/fs",
	},
	{
		In:     []string{"..."},
		Except: atTheEdge,
		Uses: map[string][]string{
			"time": {"Now", "Since", "Until"},
		},
		UsesBut: map[string][]string{"math/rand": seeded, "math/rand/v2": seeded},
		Why:     "the clock and the seed are handed in (a now func, a seed), so that a simulator can hold them",
	},
	{
		In:      pure,
		Imports: []string{"crypto/rand", "net", "net/http"},
		Uses: map[string][]string{
			"time": {"Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"},
		},
		Go:     true,
		Select: true,
		Why:    "a pure core takes events and returns actions; goroutines and waiting stand in region/group, replication/transport and node",
	},
	{
		In:      []string{"item", "table", "expr", "crdt", "region/op", "region/partition"},
		Imports: []string{"context"},
		Why:     "nothing here may wait, so there is nothing to cancel",
	},
}

func TestPureCoresStayPure(t *testing.T) {
	report(t, parseModule(t).Bans(bans))
}
