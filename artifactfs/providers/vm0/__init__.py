"""VM0: artifacts and volumes, each a tree in a tar.gz per version."""

from artifactfs.providers.vm0.provider import Vm0Provider

__all__ = ["Vm0Provider"]
