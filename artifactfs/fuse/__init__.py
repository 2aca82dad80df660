"""The only package that imports pyfuse3: unpack, call the filesystem, pack."""
