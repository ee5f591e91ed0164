//go:build nextformat

package format

// Known of the next version, as the test of rolling upgrades builds it: a format that the present one does not know.
const Known = 2
