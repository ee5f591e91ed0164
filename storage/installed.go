package storage

import "github.com/commutatordb/commutator/storage/keyenc"

// InstalledKey is where the host of a Raft group notes, in the batch that puts a snapshot's rows in the place of
// the group's state, which snapshot it was. region/group, which knows no other key, asks here.
func InstalledKey(group uint64) []byte { return keyenc.Installed(nil, group) }
