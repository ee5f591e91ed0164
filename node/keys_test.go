package node

import (
	"bytes"
	"context"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// write replaces a file as an editor or a secret store does: another file takes its name.
func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

const secretCanary = "s3cr3t-canary"

func TestKeysChangeWhileANodeRuns(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.yaml")
	var log bytes.Buffer
	write(t, path, "- {accessKey: old, secretKey: "+secretCanary+"}\n")
	k, err := openKeyring([]Credential{{"fixed", "f"}}, path, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	expect := func(when string, want ...string) {
		t.Helper()
		k.reread()
		if got := slices.Sorted(maps.Keys(*k.pairs.Load())); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", when, got, want)
		}
	}
	expect("at the start", "fixed", "old")
	if log.Len() > 0 {
		t.Errorf("nothing has changed: %s", &log)
	}
	write(t, path, "- {accessKey: old, secretKey: "+secretCanary+"}\n- {accessKey: new, secretKey: "+secretCanary+"2}\n")
	expect("both while clients change over", "fixed", "new", "old")
	if s, ok := k.secret("new"); s != secretCanary+"2" || !ok {
		t.Errorf("the new key: %q, %v", s, ok)
	}
	write(t, path, `[{"accessKey": "new", "secretKey": "`+secretCanary+`2"}]`) // JSON is YAML
	expect("the new one alone", "fixed", "new")
	if _, ok := k.secret("old"); ok {
		t.Error("the old key is still good")
	}
	log.Reset()
	for _, bad := range []string{
		"", "[]", "{}", "- ", "- {accessKey: new}", "- {secretKey: " + secretCanary + "}", secretCanary, "- " + secretCanary, "- {accessKey: a, secretKey: [" + secretCanary + "]}",
		"- {accessKey: a, secretKey: " + secretCanary + ", more: " + secretCanary + "}", "- {accessKey: a, secretKey: b}\n- {accessKey: a, secretKey: c}",
		"- {accessKey: fixed, secretKey: b}", "- {accessKey: a, secretKey: b}\n---\n- x", "\t- " + secretCanary, "- {accessKey: a, secretKey: \"" + secretCanary + "\n", strings.Repeat("#\n", maxKeysFile),
	} {
		was := log.Len()
		write(t, path, bad)
		expect("after a bad file", "fixed", "new")
		if !strings.Contains(log.String()[was:], "level=ERROR") {
			t.Errorf("%.40q: nothing said of it: %q", bad, log.String()[was:])
		}
	}
	os.Remove(path)
	expect("without the file", "fixed", "new")
	was := log.Len()
	expect("still without", "fixed", "new")
	if log.Len() > was {
		t.Error("the same is said twice")
	}
	write(t, path, "- {accessKey: again, secretKey: x}")
	expect("with a good one again", "again", "fixed")
	if strings.Contains(log.String(), secretCanary) || strings.Contains(log.String(), "s3cr3t") {
		t.Errorf("a secret in the log: %s", &log)
	}
}

func TestTheFileIsReadWhenSomebodyAsks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.yaml")
	write(t, path, "- {accessKey: a, secretKey: x}\n")
	log := make(lines, 10)
	k, err := openKeyring(nil, path, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- k.watch(ctx) }()
	k.readNow()
	k.readNow()
	if line := <-log; !strings.Contains(line, "keys=1") {
		t.Errorf("%q", line)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// lines are what is logged.
type lines chan string

func (l lines) Write(b []byte) (int, error) { l <- string(b); return len(b), nil }

func TestAFileWrittenInPlaceIsSeen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.yaml")
	write(t, path, "- {accessKey: a, secretKey: x}\n")
	k, err := openKeyring(nil, path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("- {accessKey: b, secretKey: x}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, time.Time{}, time.Now().Add(time.Second)); err != nil { // clocks of file systems are coarse
		t.Fatal(err)
	}
	k.reread()
	if _, ok := k.secret("b"); !ok {
		t.Error("the change was not seen")
	}
}

func TestABadKeysFileRefusesTheStart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.yaml")
	_, err := openKeyring(nil, path, nil)
	if err == nil || strings.Count(err.Error(), path) != 1 {
		t.Errorf("no file: %v", err)
	}
	write(t, path, "nothing: "+secretCanary)
	if _, err := openKeyring(nil, path, nil); err == nil || strings.Contains(err.Error(), secretCanary) {
		t.Errorf("no list: %v", err)
	}
}
