// Package lint keeps the house in order: which package may import which, what pure packages must not touch, and that every package
// says what it is. It reads source with go/parser alone, so it works on a tree that does not compile, and on packages that do not
// exist yet. The rules are tables in its tests, deps_test.go and purity_test.go; the checks here know no package of ours by name.
//
// A line in those tables changes only with a decision record (docs/decisions).
package lint

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// A File is one parsed Go file of the tree.
type File struct {
	Pkg  string // the folder, relative to the module's root, with slashes; "" is the root
	Path string // Pkg and the file's name
	Test bool   // the name ends in _test.go
	AST  *ast.File
}

// A Tree is every Go file of a module: not those of modules nested in it, nor of folders that the go command ignores.
type Tree struct {
	Module string // the module's path
	Files  []File // in the order of their paths
	fset   *token.FileSet
}

// A Problem is one broken rule.
type Problem struct {
	Path string
	Line int // 0: the whole file or package
	Text string
}

func (p Problem) String() string {
	if p.Line == 0 {
		return p.Path + ": " + p.Text
	}
	return fmt.Sprintf("%s:%d: %s", p.Path, p.Line, p.Text)
}

// Parse reads the Go files of the module whose root is fsys.
func Parse(fsys fs.FS, module string) (*Tree, error) {
	t := &Tree{Module: module, fset: token.NewFileSet()}
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return skipDir(fsys, name)
		}
		if !strings.HasSuffix(name, ".go") || strings.HasPrefix(d.Name(), "_") || strings.HasPrefix(d.Name(), ".") {
			return nil
		}
		src, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(t.fset, name, src, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		pkg := path.Dir(name)
		if pkg == "." {
			pkg = ""
		}
		t.Files = append(t.Files, File{Pkg: pkg, Path: name, Test: strings.HasSuffix(name, "_test.go"), AST: file})
		return nil
	})
	return t, err
}

// skipDir tells WalkDir to leave out what the go command leaves out of a module.
func skipDir(fsys fs.FS, name string) error {
	base := path.Base(name)
	if name == "." {
		return nil
	}
	if base == "testdata" || base == "vendor" || base == "node_modules" || base[0] == '.' || base[0] == '_' {
		return fs.SkipDir
	}
	if _, err := fs.Stat(fsys, path.Join(name, "go.mod")); err == nil {
		return fs.SkipDir
	}
	return nil
}

func (t *Tree) problem(f File, pos token.Pos, format string, args ...any) Problem {
	return Problem{Path: f.Path, Line: t.fset.Position(pos).Line, Text: fmt.Sprintf(format, args...)}
}

// A Room is one line of the import table: what the packages that match Name may import from this module.
//
// A pattern is a package's folder ("region/op"), a folder and all below it ("proto/..."), or everything ("...").
// Of the rooms that match a package the most exact one is its room.
type Room struct {
	Floor int
	Name  string
	May   []string // patterns
	Why   string
}

// roomOf returns the most exact room for pkg.
func roomOf(rooms []Room, pkg string) (Room, bool) {
	best, found := Room{}, false
	for _, r := range rooms {
		if matches(r.Name, pkg) && (!found || exactness(r.Name) > exactness(best.Name)) {
			best, found = r, true
		}
	}
	return best, found
}

func matches(pattern, pkg string) bool {
	if pattern == "..." {
		return true
	}
	if below, ok := strings.CutSuffix(pattern, "/..."); ok {
		return pkg == below || strings.HasPrefix(pkg, below+"/")
	}
	return pattern == pkg
}

// exactness orders patterns: a longer one is more exact, and "a" is more exact than "a/...".
func exactness(pattern string) int {
	if below, ok := strings.CutSuffix(pattern, "/..."); ok {
		return 2 * len(below)
	}
	return 2*len(pattern) + 1
}

func matchesAny(patterns []string, pkg string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matches(p, pkg) })
}

// Imports checks every import of one package of the module by another against rooms. Test files may import anything but
// packages that match notByTests.
func (t *Tree) Imports(rooms []Room, notByTests ...string) []Problem {
	var problems []Problem
	unknown := make(map[string]bool)
	for _, f := range t.Files {
		room, ok := roomOf(rooms, f.Pkg)
		if !ok {
			if !unknown[f.Pkg] {
				unknown[f.Pkg] = true
				problems = append(problems, Problem{Path: f.Path, Text: fmt.Sprintf("package %q has no room in the house; "+
					"see whether one that is there owns its subject, or give it a line in the table, with a decision record", f.Pkg)})
			}
			continue
		}
		for _, spec := range f.AST.Imports {
			to, ok := t.inModule(spec)
			switch {
			case !ok || to == f.Pkg:
			case f.Test && matchesAny(notByTests, to):
				problems = append(problems, t.problem(f, spec.Pos(), "a test must not import %s", to))
			case f.Test || matchesAny(room.May, to):
			default:
				problems = append(problems, t.problem(f, spec.Pos(), "%s must not import %s. It may import %s: %s",
					f.Pkg, to, listOr(room.May, "nothing of this module"), room.Why))
			}
		}
	}
	return problems
}

// inModule returns the imported package's folder, and whether it is one of this module's.
func (t *Tree) inModule(spec *ast.ImportSpec) (string, bool) {
	name, err := strconv.Unquote(spec.Path.Value)
	if err != nil {
		return "", false
	}
	if name == t.Module {
		return "", true
	}
	return strings.CutPrefix(name, t.Module+"/")
}

func listOr(items []string, none string) string {
	if len(items) == 0 {
		return none
	}
	return strings.Join(items, ", ")
}

// Reach returns, for every room, the rooms that the table lets it reach, straight or through others.
func Reach(rooms []Room) map[string][]string {
	reach := make(map[string][]string)
	for _, start := range rooms {
		seen := map[string]bool{}
		queue := []Room{start}
		for len(queue) > 0 {
			at := queue[0]
			queue = queue[1:]
			for _, next := range rooms {
				if seen[next.Name] || !mayReach(rooms, at, next) {
					continue
				}
				seen[next.Name] = true
				reach[start.Name] = append(reach[start.Name], next.Name)
				queue = append(queue, next)
			}
		}
		slices.Sort(reach[start.Name])
	}
	return reach
}

// mayReach tells whether some package in room to may be imported by one in room from.
func mayReach(rooms []Room, from, to Room) bool {
	for _, p := range from.May {
		if matches(p, strings.TrimSuffix(to.Name, "/...")) {
			return true
		}
		// "a/b" below the room "a/..." is in it, unless a line of its own takes it.
		if r, ok := roomOf(rooms, strings.TrimSuffix(p, "/...")); ok && r.Name == to.Name {
			return true
		}
	}
	return false
}

// A Ban is what the packages that match In, and are not matched by Except, must not do outside their tests.
type Ban struct {
	In, Except []string
	Imports    []string            // import paths
	Uses       map[string][]string // import path -> names that must not be used
	UsesBut    map[string][]string // import path -> the only names that may be used
	Go, Select bool                // go statements; select statements
	Why        string
}

// Bans checks every file that is not a test against bans.
func (t *Tree) Bans(bans []Ban) []Problem {
	var problems []Problem
	for _, f := range t.Files {
		if f.Test {
			continue
		}
		for _, b := range bans {
			if matchesAny(b.In, f.Pkg) && !matchesAny(b.Except, f.Pkg) {
				problems = append(problems, t.ban(f, b)...)
			}
		}
	}
	return problems
}

func (t *Tree) ban(f File, b Ban) []Problem {
	var problems []Problem
	add := func(pos token.Pos, what string) {
		problems = append(problems, t.problem(f, pos, "%s must not %s: %s", f.Pkg, what, b.Why))
	}
	imported := make(map[string]string) // local name -> import path
	for _, spec := range f.AST.Imports {
		name, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			continue
		}
		if slices.Contains(b.Imports, name) {
			add(spec.Pos(), "import "+name)
		}
		local := localName(name)
		if spec.Name != nil {
			local = spec.Name.Name
		}
		if local == "." && (b.Uses[name] != nil || b.UsesBut[name] != nil) {
			add(spec.Pos(), "import "+name+" without its name")
		}
		imported[local] = name
	}
	ast.Inspect(f.AST, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			if b.Go {
				add(n.Pos(), "start a goroutine")
			}
		case *ast.SelectStmt:
			if b.Select {
				add(n.Pos(), "select")
			}
		case *ast.SelectorExpr:
			from, name, ok := selected(n, imported)
			if !ok {
				break
			}
			only, limited := b.UsesBut[from]
			if slices.Contains(b.Uses[from], name) || limited && !slices.Contains(only, name) {
				add(n.Pos(), "use "+from+"."+name)
			}
		}
		return true
	})
	return problems
}

// localName guesses a package's name from its import path: the last element that is not a major version.
func localName(name string) string {
	base := path.Base(name)
	if len(base) > 1 && base[0] == 'v' && strings.Trim(base[1:], "0123456789") == "" {
		base = path.Base(path.Dir(name))
	}
	return base
}

// selected returns the package and the name when sel is a name of an imported package.
func selected(sel *ast.SelectorExpr, imported map[string]string) (from, name string, ok bool) {
	id, ok := sel.X.(*ast.Ident)
	if !ok || imported[id.Name] == "" {
		return "", "", false
	}
	return imported[id.Name], sel.Sel.Name, true
}

// Comments checks that every package has a package comment, and that a library's begins with "Package" and its name.
func (t *Tree) Comments() []Problem {
	type doc struct {
		file  File
		texts []string
	}
	docs := make(map[string]*doc)
	for _, f := range t.Files {
		d := docs[f.Pkg]
		if d == nil {
			d = &doc{file: f}
			docs[f.Pkg] = d
		}
		if d.file.Test && !f.Test {
			d.file = f // name the package by a file that is not a test, where there is one
		}
		if f.AST.Doc != nil && strings.TrimSpace(f.AST.Doc.Text()) != "" && !strings.HasSuffix(f.AST.Name.Name, "_test") {
			d.texts = append(d.texts, f.AST.Doc.Text())
		}
	}
	var problems []Problem
	for pkg, d := range docs {
		name := d.file.AST.Name.Name
		opening := "Package " + name + " "
		switch {
		case strings.HasSuffix(name, "_test"): // a folder of outside tests only
		case len(d.texts) == 0:
			problems = append(problems, Problem{Path: d.file.Path, Text: fmt.Sprintf(
				"package %s (%s) has no package comment: say what it owns, what it leaves to whom, and its invariants", name, pkg)})
		case name != "main" && !strings.HasPrefix(pkg, "proto/") &&
			!slices.ContainsFunc(d.texts, func(s string) bool { return strings.HasPrefix(s, opening) }):
			problems = append(problems, Problem{Path: d.file.Path, Text: fmt.Sprintf("the package comment of %s should begin with %q", pkg, opening)})
		}
	}
	slices.SortFunc(problems, func(a, b Problem) int { return cmp.Compare(a.Path, b.Path) })
	return problems
}
