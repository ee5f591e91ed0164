package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/commutatordb/commutator/admin"
	"github.com/commutatordb/commutator/backup"
)

const notesFile = `
TableName: notes
AttributeDefinitions: [{AttributeName: pk, AttributeType: S}]
KeySchema: [{AttributeName: pk, KeyType: HASH}]
Replicas: [{Region: us-east-1}, {Region: eu-west-1}]
`

func (d *testDev) notes() {
	d.t.Helper()
	d.apply(writeFile(d.t, d.t.TempDir(), "notes.yaml", notesFile))
}

func TestABackupIsListedDescribedAndRestored(t *testing.T) {
	d := startDev(t)
	if stdout, _ := d.run("backup", "list"); stdout != "no backups\n" {
		t.Errorf("list says %q", stdout)
	}
	d.notes()
	for i := range 50 {
		d.put(0, "notes", attributes{"pk": text(fmt.Sprint(i)), "body": text("note")})
	}
	stdout, stderr := d.run("backup", "create", "--table", "notes")
	id := strings.TrimSpace(stdout)
	if !strings.Contains(stderr, "items: 50,") || !strings.Contains(stderr, "1 new, 0 reused") || strings.ContainsAny(id, " \n") {
		t.Fatalf("create says %q and %q", stdout, stderr)
	}
	again, stderr := d.run("backup", "create", "--table", "notes", "-o", "json")
	var job admin.BackupJob
	if err := json.Unmarshal([]byte(again), &job); err != nil || job.Items != 50 || !strings.Contains(stderr, "0 new, 1 reused") {
		t.Errorf("the second backup says %s and %s (%v)", again, stderr, err)
	}
	if stdout, _ = d.run("backup", "list", "--table", "notes"); !strings.Contains(stdout, id) || !strings.Contains(stdout, job.BackupID) {
		t.Errorf("list says %s", stdout)
	}
	if stdout, _ = d.run("backup", "list", "--table", "others"); stdout != "no backups\n" {
		t.Errorf("list of another table says %s", stdout)
	}
	stdout, _ = d.run("backup", "describe", id)
	if !strings.Contains(stdout, job.Content) || !strings.Contains(stdout, "notes") {
		t.Errorf("describe says %s", stdout)
	}
	stdout, _ = d.run("backup", "describe", "--backup", id, "-o", "json")
	var m backup.Manifest
	if err := json.Unmarshal([]byte(stdout), &m); err != nil || m.Items != 50 || m.ID != id {
		t.Errorf("describe says %s (%v)", stdout, err)
	}

	stdout, _ = d.run("restore", "--backup", id, "--to", "notes2", "--region", west)
	if !strings.Contains(stdout, "notes2 is there in eu-west-1: 50 items, verified; content hash "+job.Content) {
		t.Errorf("restore says %q", stdout)
	}
	if d.get(1, "notes2", "49") == nil || d.describe(0, "notes2") != nil {
		t.Error("the restored table is not there, or not in one region")
	}
	d.refused([]string{"restore", "--backup", id, "--to", "notes"}, "already exists: notes")
	d.refused([]string{"restore", "--backup", id, "--to", "x"}, "no table's name")
	d.refused([]string{"restore", "--backup", "none", "--to", "notes3"}, "none")
	d.refused([]string{"backup", "describe", "none"}, "none")
	d.refused([]string{"backup", "create", "--table", "none"}, "table none", "not found")
}

func TestADamagedBackupIsRefusedByTheNameOfItsObject(t *testing.T) {
	d := startDev(t)
	d.notes()
	d.put(0, "notes", attributes{"pk": text("a")})
	stdout, _ := d.run("backup", "create", "--table", "notes")
	id := strings.TrimSpace(stdout)
	objects, err := filepath.Glob(filepath.Join(d.dir, "backups", "objects", "*"))
	if err != nil || len(objects) != 1 {
		t.Fatalf("the archive has %v, %v", objects, err)
	}
	b, err := os.ReadFile(objects[0])
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	for _, damage := range []func() error{
		func() error { return os.WriteFile(objects[0], b, 0o644) },
		func() error { return os.Truncate(objects[0], 3) },
		func() error { return os.Remove(objects[0]) },
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		d.refused([]string{"restore", "--backup", id, "--to", "notes2"}, filepath.Base(objects[0]), "corrupt")
		d.eventually("without the table", func() bool { return d.describe(0, "notes2") == nil })
	}
	manifest := filepath.Join(d.dir, "backups", "backups", id, "manifest.json")
	if err := os.Truncate(manifest, 10); err != nil {
		t.Fatal(err)
	}
	d.refused([]string{"restore", "--backup", id, "--to", "notes2"}, id+"/manifest.json")
	d.refused([]string{"backup", "list"}, id+"/manifest.json")
}
