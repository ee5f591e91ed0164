// Package proto holds the wire forms, in versioned folders. It owns nothing but generated code, which
// only the edges may touch: replication/transport, region/group and backup.
package proto
