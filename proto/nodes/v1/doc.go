// Package nodesv1 is what the nodes of one region say to each other, generated from nodes.proto by `make proto`. Only
// region/transport may touch it; what the messages mean is in region/group.
package nodesv1
