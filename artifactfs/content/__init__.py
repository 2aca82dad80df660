"""Bytes by reference: from the memory, the disk, or a provider."""
