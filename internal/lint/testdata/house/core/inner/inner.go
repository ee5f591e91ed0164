package inner // want: package inner (core/inner) has no package comment

import . "math/rand" // want: core/inner must not import math/rand without its name

var _ = Int()
