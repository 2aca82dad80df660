"""Other programs that mount what is elsewhere, over the same link, and what has no mount at all (curl).

Rules of this file: each is run as its documentation says for a tree that is read again and again (disk or kernel
cache on, long metadata times); none is tuned further, none is held back. One that is not installed is named as
missing; nothing is installed here.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from artifactfs import errors
from artifactfs.bench import processes, servers
from artifactfs.bench.contenders import Contender, Mounter, Passthrough, Place
from artifactfs.bench.network import Network
from artifactfs.bench.servers import BUCKET, Servers
from artifactfs.bench.workload import BIG

START_S = 15.0
SSHD = "/usr/sbin/sshd"
SFTP = "/usr/lib/openssh/sftp-server"
# What a web server can answer ranges of at once; more than 16 brought nothing (measured, at 5-50 ms).
STREAMS = (4, 8, 16)

# Program -> Debian package.
PACKAGES: Mapping[str, str] = {
    "nginx": "nginx-light",
    "rclone": "rclone",
    "s3fs": "s3fs",
    "sshfs": "sshfs",
    SSHD: "openssh-server",
    "mount.davfs": "davfs2",
    "curl": "curl",
    "rsync": "rsync",
    "git": "git",
}


def has(program: str) -> bool:
    """Tell whether a program is installed."""
    return shutil.which(program) is not None or any(
        os.access(f"{place}/{program}", os.X_OK) for place in ("/usr/sbin", "/sbin")
    )


def missing() -> list[str]:
    """Return the programs that are not here."""
    return [program for program in PACKAGES if not has(program)]


@dataclass(frozen=True, slots=True)
class Ground:
    """What peers are set up on."""

    directory: Path
    tree: Path
    network: Network
    servers: Servers
    webdav_port: int
    ssh_port: int
    ssh_key: Path

    def host(self, rtt_ms: float) -> str:
        """Return the address of the servers."""
        return self.network.host(rtt_ms)


class Rclone(Mounter):
    """``rclone mount`` with its disk cache on."""

    def __init__(self, name: str, ground: Ground) -> None:
        """Mount over what ``name`` ends in: ``webdav``, ``s3`` or ``http``."""
        super().__init__(name, ground.directory / name.replace(" ", "-"))
        self._ground = ground
        self._way = name.rpartition(" ")[2]

    def _remote(self) -> list[str]:
        ground, host = self._ground, self._ground.host(self.rtt_ms)
        match self._way:
            case "webdav":
                return [":webdav:", "--webdav-url", f"http://{host}:{ground.webdav_port}"]
            case "s3":
                return [f":s3:{BUCKET}", "--s3-provider", "Other", "--s3-endpoint", f"http://{host}:{ground.servers.s3}",
                        "--s3-access-key-id", "a", "--s3-secret-access-key", "b", "--use-server-modtime"]  # fmt: skip
            case _:
                return [":http:", "--http-url", f"http://{host}:{ground.servers.plain}"]

    def command(self) -> list[str]:
        """Return the command: reads are cached, directories believed for long."""
        return ["rclone", "mount", *self._remote(), str(self.top), "--read-only", "--vfs-cache-mode", "full",
                "--cache-dir", str(self.cache), "--dir-cache-time", "1000h", "--attr-timeout", "600s",
                "--config", os.devnull]  # fmt: skip


class S3fs(Mounter):
    """``s3fs`` with its disk cache on."""

    def __init__(self, name: str, ground: Ground) -> None:
        """Mount the bucket."""
        super().__init__(name, ground.directory / name)
        self._ground = ground
        self._secret = self.directory / "passwd"
        self._secret.write_text("a:b")
        self._secret.chmod(0o600)

    def command(self) -> list[str]:
        """Return the command."""
        url = f"http://{self._ground.host(self.rtt_ms)}:{self._ground.servers.s3}"
        options = f"url={url},use_path_request_style,passwd_file={self._secret},use_cache={self.cache}"
        more = "stat_cache_expire=6000,max_stat_cache_size=200000,kernel_cache,umask=0022,ro,listobjectsv2"
        return ["s3fs", BUCKET, str(self.top), "-f", "-o", f"{options},{more}"]


class Sshfs(Mounter):
    """``sshfs`` with kernel caches and long time-outs."""

    def __init__(self, name: str, ground: Ground) -> None:
        """Mount the tree."""
        super().__init__(name, ground.directory / name)
        self._ground = ground

    def command(self) -> list[str]:
        """Return the command."""
        host = self._ground.host(self.rtt_ms)
        ssh = f"ssh -F none -i {self._ground.ssh_key} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
        options = "ro,kernel_cache,dcache_timeout=600,attr_timeout=600,entry_timeout=600"
        return ["sshfs", "-f", "-p", str(self._ground.ssh_port), f"root@{host}:{self._ground.tree}", str(self.top),
                "-o", options, "-o", f"ssh_command={ssh}"]  # fmt: skip


class Davfs(Mounter):
    """``mount.davfs`` over WebDAV; it goes to the background by itself."""

    def __init__(self, name: str, ground: Ground) -> None:
        """Mount the tree."""
        super().__init__(name, ground.directory / name)
        self._ground = ground

    def command(self) -> list[str]:
        """Return the command."""
        config = self.directory / "davfs2.conf"
        config.write_text(
            f"cache_dir {self.cache}\ncache_size 1000\ndir_refresh 600\nfile_refresh 600\nuse_locks 0\nask_auth 0\n"
            "buf_size 256\n"  # KiB; newer kernels ask for more of a directory at once than its default can answer
        )
        url = f"http://{self._ground.host(self.rtt_ms)}:{self._ground.webdav_port}/"
        return ["mount.davfs", url, str(self.top), "-o", f"ro,conf={config}"]

    def pids(self) -> list[int]:
        """Return the process that keeps a file with its id for the mount."""
        name = str(self.top).strip("/").replace("/", "-")
        with contextlib.suppress(OSError, ValueError):
            return [int(Path(f"/run/mount.davfs/{name}.pid").read_text())]
        return []

    def start(self) -> None:
        """Start it; the command that was started ends once it is mounted."""
        self.top.mkdir(exist_ok=True)
        self.cache.mkdir(exist_ok=True)
        self.cache.chmod(0o1777)  # it goes on as a user of its own
        processes.ran(self.command(), timeout_s=START_S)


class Curl(Contender):
    """No mount: one download of an archive, unpacked as it comes, and of the big file."""

    phases = frozenset({"cp all", "big"})

    def __init__(self, name: str, ground: Ground) -> None:
        """Download from the plain server."""
        super().__init__(name, ground.directory / name)
        self._ground = ground

    def start(self) -> None:
        """Do nothing."""

    def place(self) -> Place:
        """Return nothing: it has addresses where others have paths."""
        return Place(self.top)

    def stop(self) -> None:
        """Do nothing."""

    def wipe(self) -> None:
        """Do nothing: it keeps nothing."""

    def archive(self, into: Path) -> list[str]:
        """Return the command that fetches version 1 into a directory."""
        return ["sh", "-c", f"curl -sf {self._url('v1.tar.gz')} | tar xz -C {into}"]

    def big(self, size: int, streams: int) -> list[str]:
        """Return the command that fetches the big file in so many streams."""
        url = self._url(BIG)
        if streams == 1:
            return ["curl", "-sf", "-o", os.devnull, url]
        step = -(-size // streams)
        spans = [f"{at}-{min(size, at + step) - 1}" for at in range(0, size, step)]
        fetch = " & ".join(f"curl -sf -o {os.devnull} -r {span} {url}" for span in spans)
        return ["sh", "-c", f"{fetch} & wait"]

    def _url(self, name: str) -> str:
        return f"http://{self._ground.host(self.rtt_ms)}:{self._ground.servers.plain}/{name}"


@contextlib.contextmanager
def grounds(directory: Path, tree: Path, network: Network, served: Servers) -> Iterator[Ground]:
    """Run what peers need beside nginx: an SSH server, and ``rclone serve webdav``."""
    webdav, ssh = servers.free_ports(2)
    key = directory / "key"
    running = []
    try:
        if has("rclone"):
            command = ["rclone", "serve", "webdav", str(tree), "--addr", f"{network.listen}:{webdav}", "--read-only",
                       "--config", os.devnull, "--vfs-cache-mode", "off", "--dir-cache-time", "1000h"]  # fmt: skip
            running.append(processes.started(network.inside(command), directory / "webdav.log"))
        if has(SSHD):
            running.append(_sshd(directory, network, ssh, key))
        processes.pause(1.0)
        yield Ground(directory, tree, network, served, webdav, ssh, key)
    finally:
        for process in running:
            processes.end(process)


def _sshd(directory: Path, network: Network, port: int, key: Path) -> subprocess.Popen[bytes]:
    """Start an SSH server of our own: key, configuration and port are this run's."""
    host_key = directory / "hostkey"
    for path in (key, host_key):
        processes.ran(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)])
    config = directory / "sshd_config"
    config.write_text(
        f"Port {port}\nListenAddress {network.listen}\nHostKey {host_key}\nAuthorizedKeysFile {key}.pub\n"
        f"PidFile {directory}/sshd.pid\nStrictModes no\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\n"
        f"Subsystem sftp {SFTP}\n"
    )
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # it insists on an empty directory of that name
    return processes.started(network.inside([SSHD, "-D", "-e", "-f", str(config)]), directory / "sshd.log")


def floors(directory: Path, tree: Path, python: str) -> Iterator[Passthrough]:
    """Return what FUSE costs by itself: in Python, and in C if that can be built from libfuse's own examples."""
    yield Passthrough(
        "passthrough (pyfuse3)", directory / "pypass", tree,
        [python, "-m", "artifactfs.bench.passthrough", "SOURCE", "TARGET"],
    )  # fmt: skip
    built = _build_ll(directory)
    if built:
        argv = [str(built), "-f", "-o", "source=SOURCE,cache=always,timeout=86400", "TARGET"]
        yield Passthrough("passthrough_ll (C)", directory / "cpass", tree, argv)


def _build_ll(directory: Path) -> Path | None:
    example = Path("/usr/share/doc/libfuse3-dev/examples/passthrough_ll.c")
    if not example.exists() or shutil.which("gcc") is None:
        return None
    out = directory / "passthrough_ll"
    with contextlib.suppress(errors.ArtifactFSError):
        flags = processes.ran(["pkg-config", "--cflags", "--libs", "fuse3"]).split()
        with tempfile.TemporaryDirectory() as scratch:
            source = Path(scratch) / "passthrough_ll.c"
            shutil.copy(example, source)
            helpers = example.with_name("passthrough_helpers.h")
            shutil.copy(helpers, source.with_name(helpers.name))
            processes.ran(["gcc", "-O2", str(source), "-o", str(out), *flags])
        return out
    return None


MAKERS: Mapping[str, tuple[str, Callable[[str, Ground], Contender]]] = {
    "rclone webdav": ("rclone", Rclone),
    "rclone s3": ("rclone", Rclone),
    "rclone http": ("rclone", Rclone),
    "s3fs": ("s3fs", S3fs),
    "sshfs": ("sshfs", Sshfs),
    "davfs2": ("mount.davfs", Davfs),
    "curl": ("curl", Curl),
}
# rclone must ask for each file's size over plain HTTP: its listing is not comparable, and its cold runs take minutes.
DEFAULT = ("rclone webdav", "rclone s3", "s3fs", "sshfs", "davfs2", "curl")
