package local_test

import (
	"path/filepath"
	"testing"

	"github.com/commutatordb/commutator/backup/archivetest"
	"github.com/commutatordb/commutator/backup/local"
)

func TestDirectoryKeepsTheArchivesContract(t *testing.T) {
	archivetest.Run(t, local.Open(filepath.Join(t.TempDir(), "not", "there", "yet")))
}

func TestNamesCannotLeaveTheDirectory(t *testing.T) {
	a := local.Open(t.TempDir())
	for _, name := range []string{"../x", "/etc/x", "a/../../x", ""} {
		if err := a.Put(t.Context(), name, []byte("x")); err == nil {
			t.Errorf("Put %q succeeds", name)
		}
	}
}
