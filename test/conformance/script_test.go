package conformance

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write what is answered into testdata, docs and all")

// Each file of testdata is a script against a fresh region: blocks of an operation, its body, and after a
// line of dashes the answer. "await NAME" waits until a table is active. Read the diff after -rewrite.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := runScript(t, string(text))
			if got == string(text) {
				return
			}
			if *rewrite {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			was, is := strings.Split(string(text), "\n"), strings.Split(got, "\n")
			for i := range min(len(was), len(is)) {
				if was[i] != is[i] {
					t.Errorf("%s:%d:\nwant %s\ngot  %s", file, i+1, was[i], is[i])
				}
			}
			if len(was) != len(is) {
				t.Errorf("%s: %d lines, want %d", file, len(is), len(was))
			}
		})
	}
}

// changing is what differs from run to run.
var changing = []struct {
	pattern *regexp.Regexp
	to      string
}{
	{regexp.MustCompile(`"TableId":"[0-9a-f-]{36}"`), `"TableId":"<id>"`},
	{regexp.MustCompile(`DateTime":[0-9.]+`), `DateTime":<time>`},
	{regexp.MustCompile(`"LatestStreamLabel":"[^"]*"`), `"LatestStreamLabel":"<label>"`},
	{regexp.MustCompile(`"RevisionId":"[0-9]+"`), `"RevisionId":"<revision>"`},
	{regexp.MustCompile(`revision id [0-9]{13}`), `revision id <revision>`},
	{regexp.MustCompile(`(DynamoDBContributorInsights-[^"]*)-[0-9]+"`), `$1-<time>"`},
	{regexp.MustCompile(`/stream/[^"]*"`), `/stream/<label>"`},
}

func runScript(t *testing.T, script string) string {
	h := newHandler(t, nil)
	var out []string
	for block := range strings.SplitSeq(strings.TrimSpace(script), "\n\n") {
		request, _, _ := strings.Cut(block, "\n----\n")
		lines := strings.SplitN(request, "\n", 2)
		for strings.HasPrefix(lines[0], "#") && len(lines) == 2 { // a comment, above an operation
			lines = strings.SplitN(lines[1], "\n", 2)
		}
		if name, ok := strings.CutPrefix(lines[0], "await "); ok {
			rawAwait(t, h, name)
			out = append(out, lines[0], "")
			continue
		}
		if len(lines) != 2 {
			t.Fatalf("no body: %q", block)
		}
		w := post(h, lines[0], lines[1])
		answer := w.Body.String()
		apiModel(t).checkAnswer(t, lines[0], w.Code, w.Body.Bytes())
		for _, c := range changing {
			answer = c.pattern.ReplaceAllString(answer, c.to)
		}
		out = append(out, request, "----", strings.TrimSpace(fmt.Sprintf("%d %s", w.Code, answer)), "")
	}
	return strings.Join(out, "\n")
}
