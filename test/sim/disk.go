package sim

import (
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// disk is one node's disk: a file system in memory that forgets, at a crash, some of what was not synced, and whose writes can
// fail. What is counted and failed are the writes outside of the state's directory, which tasks make themselves; Pebble's come
// from goroutines of its own, whose order no seed decides.
type disk struct {
	vfs.FS
	mem *vfs.MemFS

	// armed, if above 0, counts down with every write; at 0 strike is called before the write is made.
	armed  int
	strike func() error

	dirty   map[string]bool   // files with writes that are not synced
	renamed map[string][]byte // what was synced of a file when it got its name, as long as the name itself is not
}

func newDisk(mem *vfs.MemFS) *disk {
	return &disk{FS: mem, mem: mem, dirty: map[string]bool{}, renamed: map[string][]byte{}}
}

// errDisk is what a failing disk says.
var errDisk = errors.New("sim: input/output error")

func (d *disk) write(name string) error {
	if d.armed == 0 || inState(name) {
		return nil
	}
	if d.armed--; d.armed > 0 {
		return nil
	}
	return d.strike()
}

func inState(name string) bool {
	return strings.Contains(name, "/state/") || strings.HasSuffix(name, "/state")
}

// Create is vfs.FS's.
func (d *disk) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := d.write(name); err != nil {
		return nil, err
	}
	f, err := d.FS.Create(name, c)
	return d.wrap(name, f), err
}

// OpenReadWrite is vfs.FS's.
func (d *disk) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := d.FS.OpenReadWrite(name, c, opts...)
	return d.wrap(name, f), err
}

// OpenDir is vfs.FS's.
func (d *disk) OpenDir(name string) (vfs.File, error) {
	f, err := d.FS.OpenDir(name)
	return d.wrap(name, f), err
}

// Remove is vfs.FS's.
func (d *disk) Remove(name string) error {
	if err := d.write(name); err != nil {
		return err
	}
	return d.FS.Remove(name)
}

// Rename is vfs.FS's.
func (d *disk) Rename(from, to string) error {
	if err := d.write(to); err != nil {
		return err
	}
	if !inState(to) {
		delete(d.renamed, to)
		if b, ok := read(d.mem, from); ok && !d.dirty[from] {
			d.renamed[to] = b
		}
	}
	return d.FS.Rename(from, to)
}

func (d *disk) wrap(name string, f vfs.File) vfs.File {
	if f == nil || inState(name) {
		return f
	}
	return &file{f, d, name}
}

type file struct {
	vfs.File
	d    *disk
	name string
}

// Write is vfs.File's.
func (f *file) Write(p []byte) (int, error) {
	if err := f.d.write(f.name); err != nil {
		return 0, err
	}
	f.d.dirty[f.name] = true
	return f.File.Write(p)
}

// WriteAt is vfs.File's.
func (f *file) WriteAt(p []byte, off int64) (int, error) {
	if err := f.d.write(f.name); err != nil {
		return 0, err
	}
	f.d.dirty[f.name] = true
	return f.File.WriteAt(p, off)
}

// Sync is vfs.File's.
func (f *file) Sync() error {
	if err := f.d.write(f.name); err != nil {
		return err
	}
	err := f.File.Sync()
	f.synced(err)
	return err
}

// SyncData is vfs.File's.
func (f *file) SyncData() error {
	if err := f.d.write(f.name); err != nil {
		return err
	}
	err := f.File.SyncData()
	f.synced(err)
	return err
}

// synced notes that a file is on disk as it stands, or the names in a directory.
func (f *file) synced(err error) {
	if err != nil {
		return
	}
	delete(f.d.dirty, f.name)
	maps.DeleteFunc(f.d.renamed, func(name string, _ []byte) bool { return path.Dir(name) == path.Clean(f.name) })
}

// crash returns the file system as a power cut at this moment leaves it: all that was synced, and, of the rest, each block and
// each name with the given probability in percent. Pebble's directory keeps either all of the rest or none: goroutines of its
// own remove old files there, and draws for them would not be the same again.
func (d *disk) crash(rng *rand.Rand, percent int) *vfs.MemFS {
	all := d.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(0, 0))})
	none := d.mem.CrashClone(vfs.CrashCloneCfg{})
	if percent <= 0 {
		return none
	}
	if percent >= 100 {
		return all
	}
	out := vfs.NewCrashableMem()
	state := none
	if rng.IntN(100) < percent {
		state = all
	}
	var walk func(dir string)
	walk = func(dir string) {
		out.MkdirAll(dir, 0o755)
		inAll, _ := all.List(dir)
		inNone, _ := none.List(dir)
		names := append(slices.Clone(inAll), inNone...)
		slices.Sort(names)
		for _, name := range slices.Compact(names) {
			full := path.Join(dir, name)
			if info, err := all.Stat(full); err == nil && info.IsDir() {
				if inState(full) {
					copyTree(out, state, full)
				} else {
					walk(full)
				}
				continue
			}
			a, haveA := read(all, full)
			n, haveN := read(none, full)
			before, isRenamed := d.renamed[full]
			switch {
			case isRenamed && haveA: // it has the old name or the new one; what was synced of it is there under either
				if rng.IntN(100) < percent {
					n = before
				} else if a = nil; !haveN {
					continue
				}
			case haveA != haveN && rng.IntN(100) >= percent: // the name's making or removal is lost
				if !haveN {
					continue
				}
			case haveA != haveN && !haveA:
				continue
			}
			write(out, full, blend(rng, percent, a, n))
		}
		syncDir(out, dir)
	}
	walk("node")
	syncDir(out, "/")
	return out
}

// blend takes each block of all with the given probability, and of none otherwise.
func blend(rng *rand.Rand, percent int, all, none []byte) []byte {
	const block = 4096
	out := slices.Clone(none)
	for i := 0; i < len(all); i += block {
		if rng.IntN(100) >= percent {
			continue
		}
		b := all[i:min(i+block, len(all))]
		if grow := i + len(b) - len(out); grow > 0 {
			out = append(out, make([]byte, grow)...)
		}
		copy(out[i:], b)
	}
	return out
}

func read(fs *vfs.MemFS, name string) ([]byte, bool) {
	f, err := fs.Open(name)
	if err != nil {
		return nil, false
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	return b, err == nil
}

func write(fs *vfs.MemFS, name string, b []byte) {
	f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		panic(err)
	}
	if _, err := f.Write(b); err != nil {
		panic(err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		panic(err)
	}
}

func syncDir(fs *vfs.MemFS, dir string) {
	d, err := fs.OpenDir(dir)
	if err != nil {
		panic(err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		panic(err)
	}
}

func copyTree(to, from *vfs.MemFS, dir string) {
	names, err := from.List(dir)
	if err != nil {
		return // not there yet
	}
	to.MkdirAll(dir, 0o755)
	slices.Sort(names)
	for _, name := range names {
		full := path.Join(dir, name)
		if info, err := from.Stat(full); err == nil && info.IsDir() {
			copyTree(to, from, full)
		} else if b, ok := read(from, full); ok {
			write(to, full, b)
		}
	}
	syncDir(to, dir)
}

// again returns a copy of a file system of which everything is synced.
func again(mem *vfs.MemFS) *vfs.MemFS {
	return mem.CrashClone(vfs.CrashCloneCfg{})
}

// ours returns the files of a node that are there whenever the seed comes to this point: the log, the identity, and of the
// state the newest of those that say what there is. Of tables, Pebble's own goroutines decide when old ones go; test/rot has them.
func (m *machine) ours() (out []string) {
	newest := map[string]string{}
	for _, name := range m.files(dataDir) {
		base := path.Base(name)
		switch {
		case !inState(name):
			out = append(out, name)
		case strings.HasPrefix(base, "MANIFEST"), strings.HasPrefix(base, "WITNESS"):
			newest[base[:4]] = name // names rise
		}
	}
	return append(out, slices.Sorted(maps.Values(newest))...)
}

// files returns the names of a directory's files, and of those below, in order.
func (m *machine) files(dir string) (out []string) {
	names, _ := m.mem.List(dir)
	slices.Sort(names)
	for _, name := range names {
		full := path.Join(dir, name)
		if info, err := m.mem.Stat(full); err == nil && info.IsDir() {
			out = append(out, m.files(full)...)
		} else {
			out = append(out, full)
		}
	}
	return out
}
