package node

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/region/group"
	"github.com/commutatordb/commutator/storage"
	"github.com/commutatordb/commutator/storage/raftlog"
)

// A node of a region of several whose data is damaged, or an older copy, or gone, begins anew: what it has is set aside and not looked at
// again, it gets another number (for whoever has forgotten what it voted must not vote as who it was: region.Replace), and the others give it
// everything. A node that is alone has nobody to give it anything, and stays down.
//
// It goes by starts, each of which does one thing:
//
//	damage is found           the file REBUILD says so, and the process ends
//	a start finds REBUILD     the data is moved to aside-N/, and the node is begun anew; it votes nowhere
//	others have other data    they say which number it has from now on; REBUILD says so, and the process ends
//	or newer data of it
//	a start finds REBUILD     with a number: as before, and the node joins under that number
const (
	rebuildFile = "REBUILD"
	epochFile   = "EPOCH"
	asideDir    = "aside-" // + N, from 1 on
	// maxAside bounds how often a node begins anew by itself: a disk that damages data again and again is for people to look at, and what was
	// set aside takes space.
	maxAside = 3
)

// ErrRebuild is Config.Fatal's: the process must end, and the next start on the same directory begins anew, as far as others of the region have
// the data.
var ErrRebuild = errors.New("node: this copy of the data is not to be used; the next start takes another one from the region's other nodes")

// ErrSetAside says that the node has begun anew as often as it may.
var ErrSetAside = fmt.Errorf("node: data was set aside %d times already: look at the disk, and remove %s* from the data directory", maxAside, asideDir)

// rebuild is what REBUILD says.
type rebuild struct {
	Reason string
	Number uint64 // that the node has from now on; 0: the others have not said
}

// damaged tells whether an error says that data is not what was written.
func damaged(err error) bool {
	var s *storage.CorruptionError
	return errors.As(err, &s) || errors.Is(err, raftlog.ErrCorrupt) || errors.Is(err, group.ErrLost) || errors.Is(err, group.ErrDiverged) ||
		errors.Is(err, region.ErrOldData) || errors.Is(err, region.ErrOtherData) || errors.Is(err, errDamagedIdentity)
}

// errDamagedIdentity says that node.json, or what stands beside it, is not what was written.
var errDamagedIdentity = errors.New("node: the data directory is not whole")

// rebuilder has a node of several begin anew. Its methods are safe for concurrent use.
type rebuilder struct {
	fs    vfs.FS
	dir   string
	fatal func(error)
	once  sync.Once
}

// fatalOr returns what is to be Config.Fatal of the node's parts.
func (r *rebuilder) end(err error) {
	if damaged(err) {
		r.begin(rebuild{Reason: err.Error()})
		err = fmt.Errorf("%w: %w", ErrRebuild, err)
	}
	r.fatal(err)
}

// renumbered has the node begin anew under another number.
func (r *rebuilder) renumbered(number uint64, why string) {
	r.once.Do(func() {
		r.begin(rebuild{Reason: why, Number: number})
		r.fatal(fmt.Errorf("%w: it is node %d from now on", ErrRebuild, number))
	})
}

func (r *rebuilder) begin(b rebuild) {
	raw, err := json.Marshal(b)
	if err == nil {
		err = writeDurably(r.fs, r.dir, rebuildFile, raw)
	}
	if err != nil {
		r.fatal(fmt.Errorf("node: %s cannot be written: %w", rebuildFile, err))
	}
}

// setAside looks for REBUILD and does what it says: afterwards the directory is that of a node that begins anew.
func setAside(fs vfs.FS, dir, region, node string, now time.Time, log func(reason, to string)) error {
	raw, err := readWhole(fs, fs.PathJoin(dir, rebuildFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var b rebuild
	if err == nil {
		err = json.Unmarshal(raw, &b)
	}
	if err != nil {
		return fmt.Errorf("node: %s: %w", rebuildFile, err)
	}
	names, err := fs.List(dir)
	if err != nil {
		return fmt.Errorf("node: %w", err)
	}
	n := 0
	for _, name := range names {
		if rest, ok := strings.CutPrefix(name, asideDir); ok {
			number, _ := strconv.Atoi(rest)
			n = max(n, number)
		}
	}
	id, err := openIdentity(fs, dir, region, node, now)
	if err != nil || id.Number != b.Number || !id.Anew {
		if n >= maxAside && hasData(fs, dir) {
			return ErrSetAside
		}
		to := fs.PathJoin(dir, asideDir+strconv.Itoa(n+1))
		log(b.Reason, to)
		if err := fs.MkdirAll(to, 0o755); err != nil {
			return fmt.Errorf("node: %w", err)
		}
		// node.json goes last: until then a start comes back to this.
		for _, name := range []string{stateDir, logDir, epochFile, identityFile} {
			if slices.Contains(names, name) {
				if err := fs.Rename(fs.PathJoin(dir, name), fs.PathJoin(to, name)); err != nil {
					return fmt.Errorf("node: set aside: %w", err)
				}
			}
		}
		if err := syncUpwards(fs, to); err != nil {
			return fmt.Errorf("node: set aside: %w", err)
		}
		if _, err := newIdentity(fs, dir, identity{Region: region, Node: node, Number: b.Number, Anew: true}, now); err != nil {
			return err
		}
	}
	if err := fs.Remove(fs.PathJoin(dir, rebuildFile)); err != nil {
		return fmt.Errorf("node: %w", err)
	}
	return syncUpwards(fs, dir)
}

// hasData tells whether there is anything but an identity to set aside.
func hasData(fs vfs.FS, dir string) bool {
	hasLog, hasState, err := dataIn(fs, dir)
	return err == nil && (hasLog || hasState)
}

// readEpoch returns the epoch of a directory's data, 0 for a new one. It returns an error that is errDamagedIdentity when the file is not what
// was written.
func readEpoch(fs vfs.FS, dir string) (epoch uint64, err error) {
	raw, err := readWhole(fs, fs.PathJoin(dir, epochFile))
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return 0, fmt.Errorf("node: epoch: %w", err)
	case len(raw) != 12 || crc32.Checksum(raw[:8], crc32.MakeTable(crc32.Castagnoli)) != binary.BigEndian.Uint32(raw[8:]):
		return 0, fmt.Errorf("%w: %s is damaged", errDamagedIdentity, epochFile)
	default:
		epoch = binary.BigEndian.Uint64(raw)
	}
	return epoch, nil
}

// nextEpoch makes the next epoch durable, and returns it.
func nextEpoch(fs vfs.FS, dir string) (uint64, error) {
	epoch, err := readEpoch(fs, dir)
	if err != nil {
		return 0, err
	}
	epoch++
	b := binary.BigEndian.AppendUint64(nil, epoch)
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	if err := writeDurably(fs, dir, epochFile, b); err != nil {
		return 0, fmt.Errorf("node: epoch: %w", err)
	}
	return epoch, nil
}

func readWhole(fs vfs.FS, path string) ([]byte, error) {
	f, err := fs.Open(path)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(f)
	return b, errors.Join(err, f.Close())
}
