package tools

import _ "example.com/house/top"
