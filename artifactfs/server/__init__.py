"""A local store offered over HTTP in the dialects of the three services."""
