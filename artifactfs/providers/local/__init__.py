"""The built-in store as a source: in process, without HTTP."""
