// Top is a command, whose comment begins as it likes.
package main

import _ "example.com/house/shell"

func main() {}
