"""``artifactfs serve`` as a person and as a program start it."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.lab import artifactfs, environment

SECRET = "serve_5ecret5ecret"
# A busy machine starts a server in some seconds.
START_S = 60


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return environment(tmp_path / "home")


@contextlib.contextmanager
def serving(environ: dict[str, str], *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run the command until the block ends; nothing that it writes shows the token."""
    process = subprocess.Popen(
        [sys.executable, "-m", "artifactfs", "serve", "--port", "0", *arguments],
        env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        out, err = process.communicate(timeout=START_S)
    assert SECRET not in out + err
    assert "Traceback" not in err


def bases_of(process: subprocess.Popen[str]) -> dict[str, str]:
    assert process.stdout is not None
    found: dict[str, str] = json.loads(process.stdout.readline())
    return found


def status_of(url: str, token: str | None = None) -> int:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(request, timeout=START_S) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_programs_get_the_addresses_as_json(environ: dict[str, str], tmp_path: Path) -> None:
    """One line when it listens; every dialect answers there."""
    with serving(environ, "--store", str(tmp_path / "store"), "--json") as process:
        bases = bases_of(process)
        assert {"vm0", "syntropic137", "vlmrun"} <= set(bases)
        assert status_of(bases["vm0"] + "/v1/artifacts") == 200
        assert status_of(bases["syntropic137"] + "/api/v1/artifacts") == 200
        assert status_of(bases["vlmrun"] + "/health") == 200
    assert (tmp_path / "store/catalog.db").exists()


def test_people_get_a_table(environ: dict[str, str], tmp_path: Path) -> None:
    """The name of each service and the base URL to give to its SDK; ready when it is printed."""
    with serving(environ, "--store", str(tmp_path / "store")) as process:
        assert process.stdout is not None
        assert process.stdout.readline().split() == ["service", "base", "URL"]
        name, url = process.stdout.readline().split()
        assert name == "vm0"
        assert status_of(url + "/v1/artifacts") == 200


@pytest.mark.parametrize("way", ["file", "variable"])
def test_a_token_is_required_if_one_is_given(environ: dict[str, str], tmp_path: Path, way: str) -> None:
    """From a file or from the environment, never from an argument; without it 401."""
    arguments = []
    if way == "file":
        (tmp_path / "token").write_text(SECRET + "\n")
        arguments = ["--token-file", str(tmp_path / "token")]
    else:
        environ["ARTIFACTFS_SERVE_TOKEN"] = SECRET
    with serving(environ, "--store", str(tmp_path / "store"), "--json", *arguments) as process:
        url = bases_of(process)["vm0"] + "/v1/artifacts"
        assert [status_of(url), status_of(url, "wrong"), status_of(url, SECRET)] == [401, 401, 200]


def test_ctrl_c_ends_it_well(environ: dict[str, str], tmp_path: Path) -> None:
    """Interrupting is how people end it: 0, and nothing said."""
    with serving(environ, "--store", str(tmp_path / "store"), "--json") as process:
        assert bases_of(process)
        process.send_signal(signal.SIGINT)
        assert process.wait(START_S) == 0


def test_it_ends_with_whoever_started_it(environ: dict[str, str], tmp_path: Path) -> None:
    """A program that starts it can bind its life to a pipe: no server is left behind."""
    process = subprocess.Popen(
        [sys.executable, "-m", "artifactfs", "serve", "--port=0", "--until-eof", "--json", "--store", tmp_path / "s"],
        env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert bases_of(process)
    process.communicate("", timeout=START_S)
    assert process.returncode == 0


def test_a_port_that_is_taken_is_told(environ: dict[str, str], tmp_path: Path) -> None:
    """1, with host and port."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = artifactfs(environ, "serve", "--port", port, "--store", str(tmp_path / "store"), check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"artifactfs: cannot listen on 127.0.0.1 port {port}: " in done.stderr
    assert "in use" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--token-file", "/no/such/token"], "the token file /no/such/token cannot be read: No such file"),
        (["--token-file", "/dev/null"], "the token file /dev/null is empty"),
        (["--host", "no-such-host.invalid"], "cannot listen on no-such-host.invalid port"),
    ],
)
def test_what_cannot_be_served_is_told(
    environ: dict[str, str], tmp_path: Path, arguments: list[str], said: str
) -> None:
    """1 and one sentence, no traceback."""
    store = str(tmp_path / "store")
    done = artifactfs(environ, "serve", "--port", "0", "--store", store, *arguments, check=False)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
