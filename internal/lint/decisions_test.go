package lint

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Goal: a decision is found by its number. Method: the records' names, first lines and table.
func TestDecisionsHaveANumberEach(t *testing.T) {
	dir := filepath.Join("..", "..", "docs", "decisions")
	files, err := filepath.Glob(filepath.Join(dir, "[0-9]*.md"))
	if err != nil {
		t.Fatal(err)
	}
	index, err := os.ReadFile(filepath.Join(dir, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for i, file := range files {
		name, number := filepath.Base(file), fmt.Sprintf("%04d", i+1)
		if !strings.HasPrefix(name, number+"-") {
			t.Errorf("%s stands where record %s should", name, number)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(string(text), "# "+number+". ") {
			t.Errorf("%s does not begin with its number", name)
		}
		if !strings.Contains(string(index), "["+number+"]("+name+")") {
			t.Errorf("%s is not in the table of README.md", name)
		}
	}
}
