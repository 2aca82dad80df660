"""What serves the bytes: ``artifactfs serve``, before it nginx where it is installed, and nginx for the peers.

Rules of this file: the server must not be what is measured. ``artifactfs serve`` answers some hundred requests a
second; nginx keeps each answer after the first time (the benchmark asks for all of them once, unmeasured) and serves
it from then on, ranges included. The mount knows nothing of it: it is a proxy.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit
from xml.sax.saxutils import escape

from artifactfs import errors
from artifactfs.bench import processes
from artifactfs.bench.network import LOOPBACK, Network
from artifactfs.bench.workload import BIG, SAVED

START_S = 60.0
BUCKET = "bucket"

# One worker: the machines this runs on have few cores, and the mount needs one. Nothing is on a disk: see `directory`.
NGINX = """\
daemon off; worker_processes 1; pid {root}/nginx.pid; error_log {root}/nginx.log; {user}
events {{ worker_connections 1024; }}
http {{
  access_log off; sendfile on; tcp_nopush on; keepalive_timeout 300; keepalive_requests 1000000; types {{ }}
  default_type application/octet-stream; client_max_body_size 0;
  client_body_temp_path {root}/body; fastcgi_temp_path {root}/fastcgi; proxy_temp_path {root}/proxy;
  scgi_temp_path {root}/scgi; uwsgi_temp_path {root}/uwsgi;
  proxy_cache_path {root}/kept levels=1:2 keys_zone=kept:64m max_size=8g inactive=1d use_temp_path=off;
  proxy_cache kept; proxy_cache_key "$server_port $request_uri $http_accept"; proxy_cache_valid any 1d;
  proxy_ignore_headers Cache-Control Expires Vary Set-Cookie X-Accel-Expires;
  proxy_cache_lock on; proxy_http_version 1.1; proxy_set_header Connection "";
  # Addresses in answers are those of the servers behind; who asked must come here again.
  sub_filter_types application/json text/plain; sub_filter_once off;
  sub_filter "http://{loopback}:{main}" "http://$host:{front}";
  sub_filter "http://{loopback}:{storage}" "http://$host:{bytes}";
  proxy_redirect "http://{loopback}:{main}" "http://$host:{front}";
  proxy_redirect "http://{loopback}:{storage}" "http://$host:{bytes}";
  server {{ listen {listen}:{front}; location / {{
    proxy_pass http://{loopback}:{main}; proxy_set_header Host {loopback}:{main};
  }} }}
  server {{ listen {listen}:{bytes}; location / {{
    proxy_pass http://{loopback}:{storage}; proxy_set_header Host {loopback}:{storage};
  }} }}
  server {{ listen {listen}:{plain}; root {tree}; autoindex on; }}
  map $arg_prefix $listing {{ default none.xml; {listings} }}
  server {{
    listen {listen}:{s3};
    location = /{bucket} {{ default_type application/xml; alias {root}/s3/$listing; }}
    location = /{bucket}/ {{ rewrite ^ /{bucket} last; }} # a path that ends so would be a directory
    location /{bucket}/ {{ alias {tree}/; if (-d $request_filename) {{ return 404; }} }}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Servers:
    """Where everything is served; ``front`` says by what. Ports are the same on each address of the network."""

    front: str
    main: int
    plain: int | None = None
    s3: int | None = None
    paths: dict[str, str] = field(default_factory=dict)

    def base(self, dialect: str, host: str) -> str:
        """Return the base address of a dialect over that address."""
        return f"http://{host}:{self.main}{self.paths[dialect]}"


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((LOOPBACK, 0))
        return [each.getsockname()[1] for each in sockets]


@contextlib.contextmanager
def serving(network: Network, directory: Path, store: Path, tree: Path, *, with_nginx: bool) -> Iterator[Servers]:
    """Serve store and tree while the block runs; ``directory`` takes what that writes.

    Raises:
        Unavailable: a server did not start.
    """
    ports = free_ports(6)
    main, storage = ports[:2]
    log = directory / "serve.log"
    listen = LOOPBACK if with_nginx else network.listen
    command = [sys.executable, "-m", "artifactfs", "serve", "--store", str(store), "--host", listen,
               "--port", str(main), "--storage-port", str(storage), "--json", "--until-eof"]  # fmt: skip
    process = processes.started(network.inside(command), log)
    try:
        bases = json.loads(processes.line_of(process, START_S))
        paths = {name: urlsplit(url).path for name, url in bases.items()}
        if not with_nginx:
            yield Servers("artifactfs serve", main, paths=paths)
            return
        with nginx(network, directory, tree, ports):
            yield Servers(nginx_version(), ports[2], ports[4], ports[5], paths)
    finally:
        processes.end(process)


@contextlib.contextmanager
def nginx(network: Network, directory: Path, tree: Path, ports: list[int]) -> Iterator[None]:
    """Run nginx: a keeping proxy before the two ports of the store, the tree over HTTP, the tree as an S3 bucket."""
    main, storage, front, stored, plain, s3 = ports
    listings = _write_bucket(directory / "s3", tree)
    text = NGINX.format(
        root=directory, tree=tree, listen=network.listen, loopback=LOOPBACK, main=main, storage=storage, front=front,
        bytes=stored, plain=plain, s3=s3, bucket=BUCKET, listings=listings,
        user="user root;" if os.getuid() == 0 else "",
    )  # fmt: skip
    config = directory / "nginx.conf"
    config.write_text(text)
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    process = processes.started(
        network.inside([program, "-p", str(directory), "-e", str(directory / "nginx.log"), "-c", str(config)]),
        directory / "nginx.log",
    )
    try:
        _wait_up(process, directory)
        yield
    finally:
        processes.end(process)


def _wait_up(process: subprocess.Popen[bytes], directory: Path) -> None:
    pid = directory / "nginx.pid"
    for _ in range(100):
        if pid.exists() and pid.read_text().strip():
            return
        if process.poll() is not None:
            break
        processes.pause(0.1)
    raise errors.Unavailable(f"nginx did not start: {(directory / 'nginx.log').read_text()[-500:]}")


def nginx_version() -> str:
    """Return what nginx says it is."""
    done = subprocess.run(
        [shutil.which("nginx") or "/usr/sbin/nginx", "-v"], capture_output=True, text=True, check=False
    )
    return done.stderr.strip().rpartition(" ")[2] or "nginx"


def _write_bucket(directory: Path, tree: Path) -> str:
    """Write the answers of an S3 bucket to listing by directory; return which prefix has which, for nginx.

    Nothing checks a signature, and a listing is one page: the peers' best case.
    """
    directory.mkdir(parents=True)
    rows = []
    places = [tree, *sorted(path for path in tree.rglob("*") if path.is_dir())]
    for at, place in enumerate(places):
        prefix = "" if place == tree else f"{place.relative_to(tree)}/"
        (directory / f"{at}.xml").write_text(_listing(place, prefix))
        rows += [f'"{name}" {at}.xml;' for name in {prefix, quote(prefix, safe=""), quote(prefix)}]
    (directory / "none.xml").write_text(_listing(None, "none/"))
    return " ".join(rows)


def _listing(place: Path | None, prefix: str) -> str:
    parts = []
    for path in sorted(place.iterdir()) if place else ():
        name = escape(prefix + path.name)
        if path.is_dir():
            parts.append(f"<CommonPrefixes><Prefix>{name}/</Prefix></CommonPrefixes>")
        else:
            stat = path.stat()
            parts.append(
                f"<Contents><Key>{name}</Key><LastModified>{SAVED}</LastModified>"
                # As nginx makes it for the file itself: a client that sees another takes the file for changed.
                f"<ETag>&quot;{int(stat.st_mtime):x}-{stat.st_size:x}&quot;</ETag><Size>{stat.st_size}</Size>"
                "<StorageClass>STANDARD</StorageClass></Contents>"
            )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Name>{BUCKET}</Name><Prefix>{escape(prefix)}</Prefix><Delimiter>/</Delimiter><MaxKeys>100000</MaxKeys>"
        f"<KeyCount>{len(parts)}</KeyCount><IsTruncated>false</IsTruncated>{''.join(parts)}</ListBucketResult>"
    )


def big_url(servers: Servers, host: str) -> str:
    """Return where the big file is, for programs that read an address."""
    return f"http://{host}:{servers.plain}/{BIG}"
