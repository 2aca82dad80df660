"""What a debug bundle is made of: facts about machine, configuration, mount, cache and journals.

Rules of this file: no contents of any file of a user, and nothing of the environment but the names of variables. Each
piece is made by itself; what it raises becomes its text. Nothing is changed, and no mount is looked into: it may be
what does not answer.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from artifactfs import config, errors
from artifactfs.cli import checks, client, journals, mounting
from artifactfs.content import block_index, cache_check
from artifactfs.content.database import damage
from artifactfs.daemon import mounts

# Variables whose names say how the program was configured.
OURS = ("ARTIFACTFS_", "VM0_", "SYN_", "VLMRUN_", "XDG_", "SSL_", "LC_", "LANG", "PYTHON", "DBUS_")
# libfuse before and since 3.17.
LIBFUSE = ("libfuse3.so.3", "libfuse3.so.4")
# Of each task of a process that does not answer; D state is told by the first, its place in the kernel by the others.
OF_TASK = ("comm", "wchan", "syscall", "stack")
# How long the stacks of a stuck process take to be written: a signal handler in C does it.
STACKS_S = 1.0
# A process may have thousands.
MAX_TASKS = 200


def versions() -> dict[str, Any]:
    """Return the versions of everything that takes part."""
    packages = {one.metadata["Name"]: one.version for one in importlib.metadata.distributions()}
    helper = shutil.which("fusermount3")
    said = subprocess.run([helper, "-V"], capture_output=True, text=True, check=False, timeout=5) if helper else None
    system = platform.uname()
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "libc": " ".join(platform.libc_ver()),
        "kernel": f"{system.system} {system.release} {system.version} {system.machine}",
        "libfuse": _libfuse(),
        "fusermount3": said.stdout.strip() if said else None,
        "distribution": _distribution(),
        "packages": dict(sorted(packages.items())),
    }


def _libfuse() -> str | None:
    for name in LIBFUSE:
        try:
            told = ctypes.CDLL(name).fuse_pkgversion
        except (OSError, AttributeError):
            continue
        told.restype = ctypes.c_char_p
        return str(told().decode())
    return None


def _distribution() -> str | None:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME")
    except OSError:
        return None


def machine() -> dict[str, Any]:
    """Return what of this machine matters to a mount; not what it is called."""
    return {
        "cpus": os.cpu_count(),
        "memory": _picked(Path("/proc/meminfo"), ("MemTotal", "MemAvailable", "SwapFree")),
        "load": os.getloadavg(),
        "root": os.getuid() == 0,
        "in_container": Path("/.dockerenv").exists() or Path("/run/.containerenv").exists(),
        "variables": sorted(name for name in os.environ if name.startswith(OURS) or name.upper().endswith("_PROXY")),
    }


def _picked(path: Path, wanted: tuple[str, ...]) -> dict[str, str]:
    rows = (line.partition(":") for line in path.read_text().splitlines())
    return {name: value.strip() for name, _, value in rows if name in wanted}


def configuration(config_file: Path | None) -> dict[str, Any]:
    """Return what is configured now, or what is wrong with it; what runs may have been started with something else."""
    where = config_file or config.config_path()
    try:
        return {"file": str(where), "there": where.exists(), "settings": config.public(config.load(config_file))}
    except errors.ConfigError as error:
        return {"file": str(where), "problem": str(error)}


def doctor(config_file: Path | None) -> list[dict[str, Any]]:
    """Return what `artifactfs doctor` finds."""
    return [{"what": one.what, "ok": one.ok, "detail": one.detail} for one in checks.found_here(config_file)]


def mount_table() -> dict[str, Any]:
    """Return the mounts of ours, and what the directories of the program lie on."""
    found = {"ours": [str(path) for path in mounts.ours()]}
    found["files"] = [
        f"{path.name} {'socket' if stat.S_ISSOCK(path.lstat().st_mode) else 'other'}"
        for path in sorted(config.runtime_dir().iterdir())
    ]
    return found


def cache(config_file: Path | None) -> dict[str, Any]:
    """Return how full the cache is and whether its database is sound; blocks are verified by `cache check` alone."""
    settings = config.load(config_file)
    root = config.cache_dir(settings)
    database = root / block_index.DATABASE
    disk = shutil.disk_usage(next(path for path in (root, *root.parents) if path.exists()))
    damaged = damage(database) if database.exists() else None
    return {
        "directory": str(root), "max_bytes": settings.cache.max_size, "disk_free_bytes": disk.free,
        "database": damaged or ("sound" if database.exists() else "none"), **(cache_check.summary(root)),
    }  # fmt: skip


def journal_files() -> list[dict[str, Any]]:
    """Return the files of the journals: names, sizes, ages; nothing of what is in them."""
    base = config.state_dir() / "journal"
    found = []
    for path in sorted(base.rglob("*")) if base.is_dir() else ():
        seen = path.lstat()
        age_s = round(time.time() - seen.st_mtime)
        found.append({"file": str(path.relative_to(base)), "size": seen.st_size, "age_s": age_s})
    return found


def left_behind() -> dict[str, Any]:
    """Return the changes that wait for a mount: state, size, tries, last error."""
    rows, lost = journals.left_behind()
    return {"waiting": rows, "without_record": [str(path) for path in lost]}


def process(pid: int) -> dict[str, Any]:
    """Return what the kernel says of a process and its threads; it need not answer for that."""
    place = Path(f"/proc/{pid}")
    tasks = {}
    for task in sorted((place / "task").iterdir())[:MAX_TASKS]:
        facts = {name: _told((task / name).read_text) for name in OF_TASK}
        state = _told(partial(_state, task))
        tasks[task.name] = {"state": state, **facts}
    status = (place / "status").read_text().splitlines()
    wanted = ("State", "VmRSS", "VmHWM", "VmSize", "Threads", "FDSize", "voluntary", "nonvoluntary", "SigQ")
    return {
        "status": [line for line in status if line.startswith(wanted)],
        "limits": (place / "limits").read_text().splitlines(),
        "open": _open_files(place),
        "tasks": tasks,
    }


def _open_files(place: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    try:
        fds = list((place / "fd").iterdir())
    except OSError as error:  # a process without cores hides them, from its own user, too
        return {f"({error.strerror})": 0}
    for fd in fds:
        kind = _told(partial(os.readlink, fd)).partition(":")[0]
        kind = "file" if kind.startswith("/") else kind
        found[kind] = found.get(kind, 0) + 1
    return found


def _state(task: Path) -> str:
    """Return the letter by which the kernel says what a thread does; its name, before it, may hold anything."""
    return (task / "stat").read_text().rpartition(")")[2].split()[0]


def _told(ask: Callable[[], str]) -> str:
    try:
        return ask().strip()
    except OSError as error:
        return f"({error.strerror})"


def ask_for_stacks(pid: int) -> bool:
    """Have a process write the stacks of its threads to its log; return whether it is one that does, and not dies."""
    status = _picked(Path(f"/proc/{pid}/status"), ("SigCgt",))
    if not int(status["SigCgt"], 16) >> (signal.SIGQUIT - 1) & 1:
        return False
    os.kill(pid, signal.SIGQUIT)
    time.sleep(STACKS_S)  # noqa: TID251 - no event loop here
    return True


def log_tail(mountpoint: Path, lines: int) -> str:
    """Return the last lines of the log of a mount, from the file before it, too, if one is not enough."""
    path = mounting.log_path(mountpoint)
    tail: list[str] = []
    for file in (path, path.with_name(path.name + ".1")):
        if len(tail) < lines and file.exists():
            tail = [*list(_lines_of(file))[len(tail) - lines :], *tail]
    return "".join(tail)


def _lines_of(file: Path) -> Iterator[str]:
    with file.open(encoding="utf-8", errors="backslashreplace") as opened:
        yield from opened


def why(mountpoint: Path, status: dict[str, Any], most: int) -> list[dict[str, Any]]:
    """Return what `artifactfs why` says of the paths that failed last."""
    paths = [one["subject"] for one in reversed(status["errors"]) if one["subject"].startswith("/")]
    return [
        client.ask(mountpoint, client.QUICK_S, verb="why", path=path.strip("/"))
        for path in list(dict.fromkeys(paths))[:most]
    ]
