// Package sub may import wire, which its parent may not.
package sub

import _ "example.com/house/wire/v1"
