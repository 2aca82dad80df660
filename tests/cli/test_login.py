"""``login`` and ``logout``: what is asked for, tried and kept, where, and that nothing else shows it."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from artifactfs.store.catalog import Store
from tests.support.lab import Lab, artifactfs, environment, write_config
from tests.support.ring import FileRing, ForgetfulRing, LockedRing, with_ring
from tests.support.terminal import on_a_terminal

SECRET = "vm0_live_5ecret5ecret5ecret"
SERVICES = ("vm0", "syntropic137", "vlmrun")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    store = Store(tmp_path_factory.mktemp("login") / "store")
    store.add_workflow("research")
    with Lab(store, token=SECRET) as lab:
        yield lab
    store.close()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def environ(home: Path, lab: Lab) -> dict[str, str]:
    """A home with one source of each service, without a token, and no keyring."""
    environ = environment(home, PYTHON_KEYRING_BACKEND="keyring.backends.fail.Keyring")
    sources = {service: {"type": service, "url": lab.bases()[service]} for service in SERVICES}
    environ["ARTIFACTFS_CONFIG"] = str(write_config(home, sources))
    return environ


def login(environ: dict[str, str], *arguments: str, token: str | bytes = SECRET) -> subprocess.CompletedProcess[str]:
    """Log in with a token that comes through a pipe; nothing that is said shows it."""
    raw = token.encode() if isinstance(token, str) else token
    done = subprocess.run(
        [sys.executable, "-m", "artifactfs", "login", *arguments],
        env=environ, input=raw, capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    said = subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())
    assert SECRET not in said.stdout + said.stderr
    return said


def kept(home: Path) -> list[Path]:
    """Return the files of logins."""
    return sorted((home / ".config/artifactfs/tokens").glob("*"))


def dumping() -> None:
    """Allow as large a core as may be."""
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))


@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGABRT])
@pytest.mark.parametrize("command", [("login", "vm0"), ("source", "test", "vm0")], ids=" ".join)
def test_a_command_that_crashes_with_a_token_dumps_nothing(
    tmp_path: Path, home: Path, command: tuple[str, ...], number: signal.Signals
) -> None:
    """SIGQUIT is a key (Ctrl and backslash): while the service is waited for the token is in memory."""
    environ = environment(home, PYTHON_KEYRING_BACKEND="keyring.backends.fail.Keyring", CANARY=SECRET)
    with socket.create_server(("127.0.0.1", 0)) as service:
        service.settimeout(60)
        source = {"type": "vm0", "url": f"http://127.0.0.1:{service.getsockname()[1]}"}
        if command[0] == "source":
            source["token-env"] = "CANARY"
        environ["ARTIFACTFS_CONFIG"] = str(write_config(home, {"vm0": source}))
        place = tmp_path / "here"
        place.mkdir()
        running = subprocess.Popen(
            [sys.executable, "-m", "artifactfs", *command],
            env=environ, cwd=place, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            preexec_fn=dumping,  # noqa: PLW1509 - there is no other way, and no thread that matters
        )  # fmt: skip
        with running:
            assert running.stdin is not None
            running.stdin.write(SECRET.encode())
            running.stdin.close()
            asking, _ = service.accept()
            with asking:
                assert SECRET.encode() in asking.recv(65536)
                limits = Path(f"/proc/{running.pid}/limits").read_text()
                running.send_signal(number)
                _, status = os.waitpid(running.pid, 0)
                running.returncode = -os.WTERMSIG(status)
    assert running.returncode == -number
    assert not os.WCOREDUMP(status)
    assert list(place.iterdir()) == []
    (line,) = [line for line in limits.splitlines() if line.startswith("Max core file size")]
    assert line.split()[4:6] in (["1", "1"], ["0", "0"])


def row(environ: dict[str, str], name: str) -> dict[str, object]:
    done = artifactfs(environ, "source", "list", "--json")
    assert SECRET not in done.stdout + done.stderr
    return next(row for row in json.loads(done.stdout) if row["name"] == name)


# -- without a keyring -------------------------------------------------------------------------------------------


def test_without_a_keyring_a_token_is_kept_in_a_file_of_the_owners(environ: dict[str, str], home: Path) -> None:
    """Said in a sentence; the source works from then on, and it is told where from, not what."""
    os.umask(umask := os.umask(0))
    try:
        os.umask(0)
        done = login(environ, "vm0", token=f"  {SECRET}\n")
    finally:
        os.umask(umask)
    (path,) = kept(home)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        f"vm0: the token is kept in {path}, which only you can read (there is no system keyring here)\n"
    )
    found = {one: stat.S_IMODE(one.stat().st_mode) for one in (path, path.parent, path.parent.parent)}
    assert list(found.values()) == [0o600, 0o700, 0o700]
    assert row(environ, "vm0")["token_from"] == f"login ({path})"
    tried = artifactfs(environ, "source", "test", "vm0", check=False)
    assert tried.returncode == 0, tried.stdout
    doctor = artifactfs(environ, "doctor", check=False).stdout
    assert f"token from login ({path})" in doctor
    assert SECRET not in doctor


@pytest.mark.parametrize("service", SERVICES)
def test_a_token_that_the_service_refuses_is_not_kept(environ: dict[str, str], home: Path, service: str) -> None:
    """Unless it is not to be tried; what was kept before stays."""
    assert login(environ, service).returncode == 0
    before = {path: path.read_bytes() for path in kept(home)}
    wrong = SECRET[::-1]
    done = login(environ, service, token=wrong)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"nothing is kept, as {service} does not work with it (--no-check keeps it anyway)" in done.stderr
    assert "401" in done.stderr
    assert wrong not in done.stderr
    assert {path: path.read_bytes() for path in kept(home)} == before
    assert login(environ, service, "--no-check", token=wrong).returncode == 0
    assert wrong.encode() in kept(home)[0].read_bytes()
    assert artifactfs(environ, "source", "test", service, check=False).returncode == 1


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("", "no token was given"),
        (" \r\n", "no token was given"),
        (f"{SECRET}\n{SECRET}", "line breaks or control characters"),
        (f"{SECRET}\r\nX-Other: 1", "line breaks or control characters"),
        (f"{SECRET}\x1b[2J", "line breaks or control characters"),
        (f"{SECRET}\x00", "line breaks or control characters"),
        (f"two {SECRET}", "cannot be sent"),
        (f"{SECRET}\u00fc", "cannot be sent"),
        (f"{SECRET}".encode() + b"\xff", "not UTF-8"),
        (SECRET * 10_000, "longer than 64 KiB"),
    ],
    ids=["empty", "blank", "lines", "header", "escape", "nul", "words", "umlaut", "bytes", "long"],
)
def test_what_is_no_token_is_refused(environ: dict[str, str], home: Path, token: str | bytes, said: str) -> None:
    """Without showing it, also when it is not tried."""
    done = login(environ, "vm0", "--no-check", token=token)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert kept(home) == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("vm1", "there is no source 'vm1' (did you mean 'vm0'?); sources: syntropic137, vlmrun, vm0"),
        ("local", "source 'local' is a store on this machine, which needs no token"),
        ("../x\n", "there is no source '../x\\n'; sources: "),
    ],
)
def test_a_source_that_is_none_is_told_before_a_token_is_asked_for(
    environ: dict[str, str], home: Path, name: str, said: str
) -> None:
    """Logging out says the same of a name that has nothing."""
    done = login(environ, name)
    assert done.returncode == 1
    assert said in done.stderr
    assert kept(home) == []
    done = artifactfs(environ, "logout", name, check=False)
    assert done.returncode == 1
    assert "there is no login for" in done.stderr


def test_a_token_is_never_an_argument(environ: dict[str, str], home: Path) -> None:
    """Whoever looks at the processes would see it: 2, wrong usage."""
    done = login(environ, "vm0", "--token", "x")
    assert done.returncode == 2
    done = login(environ, "vm0", "x")
    assert done.returncode == 2
    assert kept(home) == []


def test_on_a_terminal_it_is_asked_for_without_echo(
    environ: dict[str, str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is typed is not shown."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with on_a_terminal(home, home, sys.executable, "-m", "artifactfs", "login", "vm0") as terminal:
        terminal.see(b"token for vm0 (")
        terminal.press(SECRET.encode(), b"\r")
        terminal.ended()
        assert SECRET.encode() not in terminal.shown
        assert b"the token is kept" in terminal.shown
    assert SECRET.encode() in kept(home)[0].read_bytes()


# -- with a keyring ----------------------------------------------------------------------------------------------


def test_with_a_keyring_no_file_holds_the_token(environ: dict[str, str], home: Path) -> None:
    """The file says that it is there; `logout` removes both."""
    ring = with_ring(environ, home)
    done = login(environ, "vm0")
    assert (done.returncode, done.stdout) == (0, "vm0: the token is kept in the system keyring\n"), done.stderr
    assert SECRET in ring.read_text()
    assert SECRET.encode() not in b"".join(path.read_bytes() for path in kept(home))
    assert row(environ, "vm0")["token_from"] == "login (system keyring)"
    assert artifactfs(environ, "source", "test", "vm0", check=False).returncode == 0
    done = artifactfs(environ, "logout", "vm0")
    assert done.stdout == "vm0: removed from the system keyring\n"
    assert (ring.read_text(), kept(home)) == ("{}", [])
    assert row(environ, "vm0")["ready"] is False


@pytest.mark.parametrize(
    ("kind", "why"),
    [(LockedRing, "the system keyring does not take it: KeyringLocked"), (ForgetfulRing, "does not keep it")],
)
def test_a_keyring_that_does_not_take_it_is_done_without(
    environ: dict[str, str], home: Path, kind: type[FileRing], why: str
) -> None:
    """The file is taken instead, and why is said, without the keyring's own words."""
    with_ring(environ, home, kind)
    done = login(environ, "vm0")
    assert done.returncode == 0, done.stderr
    assert why in done.stdout
    assert SECRET.encode() in kept(home)[0].read_bytes()


def test_a_keyring_that_is_gone_or_locked_is_told(environ: dict[str, str], home: Path) -> None:
    """Nothing else stands in for the token, and a logout does not say that it is gone."""
    ring = with_ring(environ, home)
    assert login(environ, "vm0").returncode == 0
    with_ring(environ, home, LockedRing)
    assert "the system keyring cannot be asked: KeyringLocked" in str(row(environ, "vm0")["problem"])
    done = artifactfs(environ, "logout", "vm0", check=False)
    assert done.returncode == 1
    assert "could not be removed from the system keyring" in done.stderr
    assert SECRET in ring.read_text()
    with_ring(environ, home)
    ring.write_text("{}")
    assert "is no longer in the system keyring" in str(row(environ, "vm0")["problem"])
    assert artifactfs(environ, "logout", "vm0").returncode == 0
    assert kept(home) == []


def test_only_a_login_in_a_keyring_costs_its_library(environ: dict[str, str], home: Path) -> None:
    """A quarter of a second that no other command and no mount waits for."""
    loaded = "import sys; from artifactfs import config; s = config.load(); config.resolve(s, 'vm0')"
    loaded += "; sys.exit('keyring' in sys.modules)"

    def is_loaded(**more: str) -> bool:
        done = subprocess.run([sys.executable, "-c", loaded], env={**environ, **more}, capture_output=True, check=False)
        assert done.stderr == b""
        return bool(done.returncode)

    assert not is_loaded(VM0_TOKEN="t")
    assert login(environ, "vm0").returncode == 0
    assert not is_loaded()
    with_ring(environ, home)
    assert login(environ, "vm0").returncode == 0
    assert is_loaded()


# -- which token ---------------------------------------------------------------------------------------------------


def test_a_login_goes_before_the_services_variable_and_behind_what_the_source_names(
    environ: dict[str, str], home: Path, lab: Lab
) -> None:
    """A login that would not be used is refused, and it is said what goes before it."""
    assert login(environ, "vm0").returncode == 0
    environ["VM0_TOKEN"] = "other"
    assert str(row(environ, "vm0")["token_from"]).startswith("login (")
    (home / "t").write_text("from-file")
    for more, where in [
        ({"token-env": "MINE"}, "the variable MINE"),
        ({"token-file": str(home / "t")}, f"the file {home}/t"),
    ]:
        write_config(home, {"vm0": {"type": "vm0", "url": lab.bases()["vm0"], **more}})
        environ["MINE"] = "from-mine"
        assert row(environ, "vm0")["token_from"] == where
        done = login(environ, "vm0")
        assert done.returncode == 1
        assert f"source 'vm0' takes its token from {where}, which goes before a login" in done.stderr
    # A variable that is named and not set leaves it to the login, not to the service's own variable.
    write_config(home, {"vm0": {"type": "vm0", "url": lab.bases()["vm0"], "token-env": "NOT_SET"}})
    assert str(row(environ, "vm0")["token_from"]).startswith("login (")
    artifactfs(environ, "logout", "vm0")
    assert "set the environment variable NOT_SET" in str(row(environ, "vm0")["problem"])


def test_a_login_is_for_one_address(environ: dict[str, str], home: Path, lab: Lab) -> None:
    """Where the source leads elsewhere the token does not go along; logging out forgets all addresses."""
    assert login(environ, "vm0").returncode == 0
    write_config(home, {"vm0": {"type": "vm0", "url": "https://elsewhere.example"}})
    assert row(environ, "vm0")["ready"] is False
    assert login(environ, "vm0", "--no-check").returncode == 0
    assert len(kept(home)) == 2
    artifactfs(environ, "logout", "vm0")
    assert kept(home) == []


def test_a_service_needs_no_configuration_to_be_logged_in_to(environ: dict[str, str], home: Path, lab: Lab) -> None:
    """From then on it is a source, as if its variable were set."""
    write_config(home, {})
    environ["VM0_API_URL"] = lab.bases()["vm0"]
    assert login(environ, "vm0").returncode == 0
    assert row(environ, "vm0")["mounted_by_default"] is True
    artifactfs(environ, "logout", "vm0")
    assert [one["name"] for one in json.loads(artifactfs(environ, "source", "list", "--json").stdout)] == ["local"]


def test_syntropic137_may_have_a_password(environ: dict[str, str], home: Path, lab: Lab) -> None:
    """As what stands before it asks for; no other service has users."""
    with lab.counted() as seen:
        done = login(environ, "syntropic137", "--user", "me")
    assert done.returncode == 0, done.stderr
    assert "the password of me is kept" in done.stdout
    assert {request.headers["authorization"].partition(" ")[0] for request in seen} == {"Basic"}
    assert str(row(environ, "syntropic137")["token_from"]).startswith("login (")
    done = login(environ, "vm0", "--user", "me")
    assert done.returncode == 1
    assert "knows no users" in done.stderr


# -- files that were tampered with -----------------------------------------------------------------------------------


def test_a_login_that_others_could_read_is_not_used(environ: dict[str, str], home: Path) -> None:
    """Nor one that is a link, or no longer whole; `logout` removes each, and what a killed login left."""
    for spoil, said in [
        (lambda path: path.chmod(0o640), "others can read it"),
        (lambda path: path.write_text(f'{{"token": "{SECRET}'), "is damaged"),
        (lambda path: path.rename(home / "moved") and path.symlink_to(home / "moved"), "cannot be read"),
    ]:
        assert login(environ, "vm0").returncode == 0
        (path,) = kept(home)
        spoil(path)
        assert said in str(row(environ, "vm0")["problem"])
        (path.parent / ".new-1").write_text(SECRET)
        assert artifactfs(environ, "logout", "vm0").returncode == 0
        assert list(path.parent.iterdir()) == []


def test_a_token_file_that_others_can_read_is_told_by_doctor(environ: dict[str, str], home: Path, lab: Lab) -> None:
    """It is used: somebody may have put it there like that; whose it is can mend it."""
    token = home / "token"
    token.write_text(SECRET)
    token.chmod(0o644)
    write_config(home, {"vm0": {"type": "vm0", "url": lab.bases()["vm0"], "token-file": str(token)}})
    done = artifactfs(environ, "doctor", check=False)
    assert done.returncode == 1
    assert f"others can read {token} (mode 0644)" in done.stdout
    token.chmod(0o600)
    assert "others can read" not in artifactfs(environ, "doctor", check=False).stdout
