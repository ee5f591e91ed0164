package lint

import "testing"

func TestEveryPackageHasAComment(t *testing.T) {
	report(t, parseModule(t).Comments())
}
