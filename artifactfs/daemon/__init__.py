"""One process per mount: wired, started, answering, ended."""
