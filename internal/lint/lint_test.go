package lint

import (
	"io/fs"
	"os"
	"strings"
	"testing"
)

// The checks run over testdata/house, whose broken lines say in a "want:" comment what must be told of them. Lines without one
// must pass: that is where a check that is too strict shows.
func TestChecksTellWhatIsWrongAndNothingElse(t *testing.T) {
	house := os.DirFS("testdata/house")
	tree, err := Parse(house, "example.com/house")
	if err != nil {
		t.Fatal(err)
	}
	rooms := []Room{
		{3, "top", []string{"shell"}, "commands"},
		{2, "shell", []string{"core"}, "effects"},
		{2, "shell/...", []string{"wire/..."}, "the edge"},
		{1, "core", []string{"core/inner"}, "pure"},
		{1, "core/inner", nil, "purer"},
		{1, "wire/...", nil, "forms"},
	}
	bans := []Ban{{
		In:      []string{"..."},
		Except:  []string{"shell/...", "top"},
		Imports: []string{"os"},
		Uses:    map[string][]string{"time": {"Now"}},
		UsesBut: map[string][]string{"math/rand": seeded, "math/rand/v2": seeded},
		Go:      true,
		Select:  true,
		Why:     "pure",
	}}
	var problems []Problem
	problems = append(problems, tree.Imports(rooms, "top")...)
	problems = append(problems, tree.Bans(bans)...)
	problems = append(problems, tree.Comments()...)

	wants := wantComments(t, house)
	if len(wants) == 0 {
		t.Fatal("no want comment found")
	}
	for _, p := range problems {
		if i := indexWant(wants, p); i >= 0 {
			wants = append(wants[:i], wants[i+1:]...)
		} else {
			t.Errorf("told, but should not be: %s", p)
		}
	}
	for _, w := range wants {
		t.Errorf("not told: %s", w)
	}
}

// wantComments collects what the tree's comments want, as problems with the text to be found in them.
func wantComments(t *testing.T, fsys fs.FS) []Problem {
	t.Helper()
	var wants []Problem
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(name, ".go") {
			return err
		}
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		for i, line := range strings.Split(string(text), "\n") {
			if _, want, ok := strings.Cut(line, "// want: "); ok {
				wants = append(wants, Problem{Path: name, Line: i + 1, Text: want})
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return wants
}

// indexWant finds the want that p fulfils; a problem without a line is one of its whole file.
func indexWant(wants []Problem, p Problem) int {
	for i, w := range wants {
		if w.Path == p.Path && (w.Line == p.Line || p.Line == 0) && strings.Contains(p.Text, w.Text) {
			return i
		}
	}
	return -1
}

func TestMostExactRoomWins(t *testing.T) {
	rooms := []Room{{Name: "a/..."}, {Name: "a"}, {Name: "a/b/..."}}
	for _, c := range []struct{ pkg, want string }{
		{"a", "a"}, {"a/x", "a/..."}, {"a/b", "a/b/..."}, {"a/b/c", "a/b/..."}, {"a/bc", "a/..."},
	} {
		if got, ok := roomOf(rooms, c.pkg); !ok || got.Name != c.want {
			t.Errorf("roomOf(%s) = %s, %v; want %s", c.pkg, got.Name, ok, c.want)
		}
	}
	if got, ok := roomOf(rooms, "ab"); ok {
		t.Errorf("roomOf(ab) = %s, want none", got.Name)
	}
}

func TestReachGoesThroughOthers(t *testing.T) {
	rooms := []Room{{Name: "a", May: []string{"b/..."}}, {Name: "b"}, {Name: "b/x", May: []string{"c/deep"}}, {Name: "c/..."}, {Name: "d"}}
	reach := Reach(rooms)
	if got, want := strings.Join(reach["a"], " "), "b b/x c/..."; got != want {
		t.Errorf("a reaches %q, want %q", got, want)
	}
	if len(reach["b"]) != 0 || len(reach["d"]) != 0 {
		t.Errorf("b reaches %q and d %q, want nothing", reach["b"], reach["d"])
	}
}
