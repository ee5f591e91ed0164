// Package rot damages what a region has written, everywhere bytes lie or travel, and holds that the damage
// is found or harmless: never is there another answer without a word.
//
// What may live here: tests that flip bits in, cut, swap, zero and lose the files of a data directory
// (region_test.go), the objects of a backup (backup_test.go) and the messages between regions (wire_test.go),
// and the tally that they share. What one package can damage and judge alone is tested there: storage,
// storage/raftlog, and node for its identity file.
package rot
