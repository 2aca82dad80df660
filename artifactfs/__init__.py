"""artifactfs: agent artifacts of VM0, Syntropic137, VLM Run and a built-in store, as files."""

__version__ = "0.1.0"
