"""The namespace as data: names, inode numbers, nodes, layouts. Pure: no I/O, nothing async."""
