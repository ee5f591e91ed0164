// Package tools is the root of a module that only pins the programs this project is built and checked with: staticcheck, the
// protobuf generators, and protogen, which drives them. It is a module of its own so that what these programs require never
// becomes a requirement of Commutator. The MinIO server that tests and drills run against is pinned one folder down, in
// tools/minio, because its requirements would hold back those of the rest.
package tools
