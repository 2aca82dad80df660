"""Frozen values that every layer speaks in; imports only the errors."""
