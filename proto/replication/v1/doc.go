// Package replicationv1 is what regions say to each other, generated from replication.proto by `make
// proto`. Only replication/transport may touch it; the rules are in package replication.
package replicationv1
