"""What a real mount needs.

Where it is missing tests fail, they are never skipped: a green run has mounted.
"""

import functools
import importlib
import os
import shutil

CONTAINER_ADVICE = "in a container, start it with: --device /dev/fuse --cap-add SYS_ADMIN"


def _device() -> str | None:
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return f"there is no /dev/fuse ({CONTAINER_ADVICE}; on a machine: modprobe fuse)"
    except OSError as error:
        return f"/dev/fuse cannot be opened: {error.strerror} ({CONTAINER_ADVICE})"
    return None


def _helper() -> str | None:
    return None if shutil.which("fusermount3") else "fusermount3 is missing (apt-get install fuse3)"


def _bindings() -> str | None:
    try:
        importlib.import_module("pyfuse3")
    except ImportError as error:
        return f"pyfuse3 cannot be imported: {error} (run scripts/setup --dev)"
    return None


@functools.cache
def missing() -> tuple[str, ...]:
    """What this machine lacks, each with the way to get it; empty if it can mount."""
    return tuple(problem for check in (_device, _helper, _bindings) if (problem := check()))
