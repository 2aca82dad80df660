"""Services as values: HTTP and nothing of inodes, names on disk or errno."""
