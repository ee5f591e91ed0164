// Package cluster runs a region of several nodes as processes of their own on this machine, kills, pauses and cuts them off, and holds what
// clients were told against what a single copy could have told them.
//
// It owns the processes, the ways between them, which it can cut, and the checks. It knows the server as an operator does: by its program,
// its configuration file and its API. It needs Linux: each node has a loopback address of its own.
package cluster
