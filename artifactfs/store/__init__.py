"""The store that is built in: a SQLite catalog beside content-addressed objects. No service, no HTTP."""
