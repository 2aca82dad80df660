"""VLM Run: executions of agents and what they left, sessions by look-up, uploaded files."""

from artifactfs.providers.vlmrun.provider import VlmRunProvider

__all__ = ["VlmRunProvider"]
