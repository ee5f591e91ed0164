// Package crash cuts the power of a region at every operation that it has the disk do, and looks at what
// is there when it starts again: nothing acknowledged is lost, nothing is there that was not asked for, and
// the region serves.
//
// What may live here: the reference workload with its ledger of what was asked for and what was
// acknowledged (work.go, ledger.go), an engine to run it on (engine.go), what must hold of an engine at any
// time (check.go), and the tests that crash it. test/rot damages what the workload has written, and takes the
// first three from here. It leaves crashes of the log alone to storage/raftlog, of whole processes to
// cmd/commutator, of nodes and regions together to test/sim.
package crash
