package node

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzFiles: whatever a configuration or keys file has in it, it is taken or refused, and what is refused of the
// keys is not shown.
func FuzzFiles(f *testing.F) {
	for _, s := range []string{
		"region: us-east-1\ndata: /data\nlisten: {http: '127.0.0.1:8000'}\nauth: off\n",
		"region: us-east-1\ndata: &x /data\nnode: *x\nkeys: k\ncredentials: [{accessKey: a, secretKey: b}]\n---\n",
		"- {accessKey: a, secretKey: b}\n- &y {accessKey: c, secretKey: d}\n",
		`[{"accessKey": "a", "secretKey": ["b"]}]`, "a: [*b]", "!!binary x", "- <<: *y",
	} {
		f.Add(s)
	}
	path := filepath.Join(f.TempDir(), "file")
	f.Fuzz(func(t *testing.T, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if c, err := ReadConfig(path, ""); err == nil && (c.Region == "" || c.Data == "" || c.Listen.HTTP == "") {
			t.Errorf("%q: taken as %+v", text, c)
		}
		k, err := openKeyring(nil, path, slog.New(slog.DiscardHandler))
		if err == nil && len(*k.pairs.Load()) == 0 {
			t.Errorf("%q: no keys", text)
		}
		if err != nil && strings.Contains(err.Error(), "`") {
			t.Errorf("%q: shown: %v", text, err)
		}
	})
}
