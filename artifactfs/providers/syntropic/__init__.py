"""Syntropic137: text artifacts of workflow runs, over its HTTP API in all generations up to late 2026."""
