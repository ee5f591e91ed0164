// Package sim runs a whole deployment - regions, nodes, Raft, replication, merge, backup, clients - in one goroutine at a time
// under one seed, breaks it in thousands of ways a minute, and holds what it then shows against what it was told.
//
// What runs is what production runs: node.Engine with everything below it and the API's handler on top. What is simulated is
// what enters through package node: time and scheduling (loop.go), the disk (disk.go), the network between nodes and between
// regions (net.go, peer.go), the archive (archive.go). Clients (client.go, work.go) speak DynamoDB's JSON. faults.go breaks things;
// check.go and its neighbours judge. A seed decides everything: the same seed gives the same history, event by event.
//
// Only what the simulation needs lives here. Rules of the product do not: a checker derives what must be from the history alone.
package sim
