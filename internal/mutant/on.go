//go:build mutants

package mutant

import "os"

// Variable is the environment's name for the bug that a process begins with, "" for none.
const Variable = "COMMUTATOR_MUTANT"

var present = Name(os.Getenv(Variable))

// On tells whether the bug is switched on.
func On(n Name) bool { return n == present }

// Set switches one bug on and all others off; "" is none. Nothing else may be running.
func Set(n Name) { present = n }
