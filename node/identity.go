package node

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/internal/format"
	"github.com/commutatordb/commutator/internal/mutant"
)

// identity is who the data in a directory belongs to. It is written when the directory is made; from then on only its format rises: data without it, or with another's, is not opened.
type identity struct {
	Format      int    // format.Oldest to format.Known: what is needed to read the data
	Region      string // such as us-east-1
	Node        string
	Instance    uint64 // random: tells this data from what the same node had before it lost it
	Incarnation uint16 // of the region's actor
	Salt        uint64 // random: for the checksums of the log
	// Number is what the node is called by in its region; 0: as its configuration says. Anew says that other data of the node was set aside for
	// this: it holds nothing but what others give it.
	Number uint64 `json:",omitempty"`
	Anew   bool   `json:",omitempty"`
	Sum    string // CRC-32C of the others, in the order and form of this struct's JSON, in hexadecimal
}

func (id identity) sum() string {
	id.Sum = ""
	b, err := json.Marshal(id)
	if err != nil {
		panic(fmt.Sprintf("node: identity %+v: %v", id, err)) // it holds only plain data
	}
	return fmt.Sprintf("%08x", crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

const (
	identityFile = "node.json"
)

// openIdentity reads the directory's identity, or makes it where the directory is new.
func openIdentity(fs vfs.FS, dir, region, node string, now time.Time) (identity, error) {
	path := fs.PathJoin(dir, identityFile)
	f, err := fs.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return newIdentity(fs, dir, identity{Region: region, Node: node}, now)
	}
	if err != nil {
		return identity{}, fmt.Errorf("node: identity: %w", err)
	}
	defer f.Close()
	var id identity
	b, err := io.ReadAll(f)
	if err == nil {
		err = json.Unmarshal(b, &id)
	}
	switch {
	case err != nil:
		return id, fmt.Errorf("%w: %s: %w", errDamagedIdentity, path, err)
	case !format.Reads(id.Format):
		return id, fmt.Errorf("node: the data in %s has format %d; this version reads %d to %d: start the one that wrote it, or a newer one", dir, id.Format, format.Oldest, format.Known)
	case id.Sum != id.sum():
		return id, fmt.Errorf("%w: %s is damaged: its checksum is wrong", errDamagedIdentity, path)
	case id.Region != region || id.Node != node:
		return id, fmt.Errorf("node: the data in %s is that of node %s in %s, not of %s in %s", dir, id.Node, id.Region, node, region)
	}
	if mutant.On(mutant.IdentityEachStart) {
		id.Incarnation = uint16(now.Unix()/60%int64(crdt.MaxIncarnation)) + 1
	}
	hasLog, hasState, err := dataIn(fs, dir)
	switch {
	case err != nil:
		return id, fmt.Errorf("node: identity: %w", err)
	case hasState && !hasLog:
		return id, fmt.Errorf("%w: %s has state and no log: what was acknowledged since the last flush is missing; bring %s back, or start anew in an empty directory", errDamagedIdentity, dir, logDir)
	case !hasState && !hasLog:
		// Nothing is left of what others may know of this identity: it is another's now.
		return newIdentity(fs, dir, identity{Region: region, Node: node, Number: id.Number, Anew: id.Anew}, now)
	}
	// Whoever made the directory may have been killed before it was durable.
	if err := syncUpwards(fs, dir); err != nil {
		return id, fmt.Errorf("node: identity: %w", err)
	}
	return id, nil
}

// dataIn tells which parts of a node's data are in a directory. The log is made first.
func dataIn(fs vfs.FS, dir string) (hasLog, hasState bool, err error) {
	names, err := fs.List(dir)
	for _, name := range names {
		hasState = hasState || name == stateDir
		if name == logDir {
			segments, err := fs.List(fs.PathJoin(dir, logDir))
			if err != nil {
				return false, false, err
			}
			hasLog = len(segments) > 0
		}
	}
	return hasLog, hasState, err
}

// newIdentity makes an identity of who, in a directory that has none.
func newIdentity(fs vfs.FS, dir string, who identity, now time.Time) (identity, error) {
	// An empty log directory is what a crash has left of a first start.
	hasLog, hasState, err := dataIn(fs, dir)
	if err != nil {
		return identity{}, fmt.Errorf("node: identity: %w", err)
	}
	if hasLog || hasState {
		return identity{}, fmt.Errorf("node: %s has data and no %s: whose it is cannot be told", dir, identityFile)
	}
	var random [16]byte
	rand.Read(random[:]) // never fails: crypto/rand ends the process when it has no randomness
	id := identity{
		Format: format.Oldest, Region: who.Region, Node: who.Node, Number: who.Number, Anew: who.Anew,
		Instance: binary.BigEndian.Uint64(random[:]) | 1, Salt: binary.BigEndian.Uint64(random[8:]),
		// Another one for a region that lost its data, unless it did so a whole multiple of 17 hours later.
		Incarnation: uint16(now.Unix()/60%int64(crdt.MaxIncarnation)) + 1,
	}
	return id, id.write(fs, dir)
}

// write makes an identity that of a directory, with its checksum.
func (id *identity) write(fs vfs.FS, dir string) error {
	id.Sum = id.sum()
	b, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		return err
	}
	if err := writeDurably(fs, dir, identityFile, b); err != nil {
		return fmt.Errorf("node: identity: %w", err)
	}
	return nil
}

// raise has the directory say, durably, that its data may be of a newer format from now on.
func (id *identity) raise(fs vfs.FS, dir string, to int) error {
	id.Format = to
	return id.write(fs, dir)
}

// writeDurably replaces a small file of a node's directory, whole or not at all.
func writeDurably(fs vfs.FS, dir, name string, b []byte) error {
	temp := fs.PathJoin(dir, name+".tmp")
	f, err := fs.Create(temp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = fs.Rename(temp, fs.PathJoin(dir, name))
	}
	if err == nil {
		err = syncUpwards(fs, dir)
	}
	return err
}

// syncUpwards makes the names in dir durable, and dir's own, up to where this process may not look: it has made
// nothing there.
func syncUpwards(fs vfs.FS, dir string) error {
	for {
		d, err := fs.OpenDir(dir)
		if errors.Is(err, os.ErrPermission) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := errors.Join(d.Sync(), d.Close()); err != nil {
			return err
		}
		parent := fs.PathDir(dir)
		if parent == dir {
			return nil
		}
		dir = parent
	}
}
