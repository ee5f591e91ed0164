module example.com/house/tools
