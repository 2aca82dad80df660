"""``source list`` and ``source test``, and that no output ever shows a token."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from artifactfs.store.catalog import Store
from tests.support.lab import Lab, artifactfs, environment, mounted, service_source, write_config

SECRET = "vm0_live_5ecret5ecret5ecret"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    store = Store(tmp_path_factory.mktemp("sources") / "store")
    store.add_workflow("research")
    with Lab(store, token=SECRET) as lab:
        yield lab
    store.close()


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return environment(tmp_path / "home", LAB_TOKEN=SECRET)


def told(environ: dict[str, str], *arguments: str, code: int = 0) -> Any:
    """Return the JSON that a command prints; no output of it holds the token."""
    done = artifactfs(environ, *arguments, "--json", check=False)
    assert SECRET not in done.stdout + done.stderr
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def everything(environ: dict[str, str]) -> str:
    """Return all that was written below the home, logs and caches included."""
    found = [path for path in Path(environ["HOME"]).rglob("*") if path.is_file()]
    return "".join(path.read_bytes().decode("latin-1") for path in found)


def test_with_nothing_configured_there_is_the_local_store(environ: dict[str, str]) -> None:
    """And it is what `mount` takes."""
    (row,) = told(environ, "source", "list")
    assert (row["name"], row["service"], row["ready"], row["mounted_by_default"]) == ("local", "local", True, True)
    assert row["where"].startswith(environ["HOME"])


def test_a_source_is_listed_with_what_it_lacks(environ: dict[str, str]) -> None:
    """The table names each source and its address; a missing token is told below it, on stderr."""
    config = write_config(Path(environ["HOME"]), {"work": {"type": "vm0"}, "syn": {"type": "syntropic137"}})
    rows = told(environ, "source", "list", "--config", str(config))
    assert [(row["name"], row["ready"], row["mounted_by_default"]) for row in rows] == [
        ("work", False, True),
        ("syn", True, True),
        ("local", True, False),
    ]
    assert "VM0_TOKEN" in rows[0]["problem"]
    done = artifactfs(environ, "source", "list", "--config", str(config))
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["source", "service", "where"]
    assert lines[2].split() == ["*", "syn", "syntropic137", "http://localhost:8137"]
    assert lines[3].split()[:2] == ["local", "local"]
    assert "set the environment variable VM0_TOKEN" in done.stderr


def test_sources_come_from_the_environment_too(environ: dict[str, str]) -> None:
    """A variable of the service makes one, its own address variable says where; the token stays unsaid."""
    environ |= {"VM0_TOKEN": SECRET, "VM0_API_URL": "http://vm0.example", "SYN_API_URL": "http://syn.example/api/v1"}
    rows = told(environ, "source", "list")
    assert [(row["name"], row["where"]) for row in rows[:2]] == [
        ("vm0", "http://vm0.example"),
        ("syntropic137", "http://syn.example"),
    ]
    assert [row["mounted_by_default"] for row in rows] == [True, True, False]


def test_the_default_is_marked_and_must_exist(environ: dict[str, str], tmp_path: Path) -> None:
    """`mount` would take it alone; one that is not there is a mistake."""
    sources = {"a": {"type": "local"}, "b": {"type": "local"}}
    config = write_config(tmp_path, sources, 'default = "b"')
    rows = told(environ, "source", "list", "--config", str(config))
    assert [row["name"] for row in rows if row["mounted_by_default"]] == ["b"]
    config = write_config(tmp_path, sources, 'default = "bb"')
    done = artifactfs(environ, "source", "list", "--config", str(config), check=False)
    assert done.returncode == 1
    assert "the default source 'bb' does not exist" in done.stderr


def test_sources_are_tried_for_real(environ: dict[str, str], lab: Lab, tmp_path: Path) -> None:
    """Address, credentials and API of each service; 0 if all is well, and nothing written shows the token."""
    sources = {name: service_source(name, lab.bases()[name]) for name in ("vm0", "syntropic137", "vlmrun")}
    config = write_config(tmp_path, {**sources, "mine": {"type": "local", "path": str(tmp_path / "store")}})
    checks = told(environ, "source", "test", "--config", str(config))
    assert {check["what"].partition(":")[0] for check in checks} == {*sources, "mine"}
    assert all(check["ok"] for check in checks), checks
    done = artifactfs(environ, "source", "test", "vm0", "--config", str(config))
    assert "/v1 camelCase" in done.stdout
    assert "syntropic137" not in done.stdout
    assert SECRET not in everything(environ)


def test_basic_auth_is_sent_to_syntropic137(environ: dict[str, str], tmp_path: Path) -> None:
    """As its own tools do, from SYN_API_USER and SYN_API_PASSWORD."""
    with Lab(Store(tmp_path / "store")) as lab:
        environ |= {"SYN_API_URL": lab.bases()["syntropic137"], "SYN_API_USER": "me", "SYN_API_PASSWORD": SECRET}
        with lab.counted() as sent:
            told(environ, "source", "test", "syntropic137")
        lab.store.close()
    assert {request.headers["authorization"].partition(" ")[0] for request in sent} == {"Basic"}


@pytest.mark.parametrize("service", ["vm0", "syntropic137", "vlmrun"])
def test_a_wrong_token_is_told_and_not_shown(environ: dict[str, str], lab: Lab, tmp_path: Path, service: str) -> None:
    """1, with the service's refusal as the reason."""
    config = write_config(tmp_path, {"work": service_source(service, lab.bases()[service])})
    environ["LAB_TOKEN"] = SECRET[::-1]
    done = artifactfs(environ, "source", "test", "--config", str(config), check=False)
    assert done.returncode == 1
    assert "401" in done.stdout
    assert SECRET[::-1] not in done.stdout + done.stderr + everything(environ)


def test_what_cannot_be_tried_is_told(environ: dict[str, str], tmp_path: Path) -> None:
    """No such source; nobody listening; a token that is missing; a store that cannot be made: 1 and a sentence each."""
    (tmp_path / "file").write_text("")
    config = write_config(
        tmp_path,
        {
            "gone": service_source("vm0", "http://127.0.0.1:1"),
            "bare": {"type": "vm0"},
            "odd": {"type": "local", "path": str(tmp_path / "file")},
        },
    )
    done = artifactfs(environ, "source", "test", "gnoe", "--config", str(config), check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        done.stderr == "artifactfs: there is no source 'gnoe' (did you mean 'gone'?); sources: bare, gone, local, odd\n"
    )
    found = {c["what"].partition(":")[0]: c for c in told(environ, "source", "test", "--config", str(config), code=1)}
    assert not any(check["ok"] for check in found.values())
    assert "no connection" in found["gone"]["detail"]
    assert "VM0_TOKEN" in found["bare"]["detail"]
    assert str(tmp_path / "file") in found["odd"]["detail"]


@pytest.mark.parametrize("command", [["source", "list"], ["source", "test"], ["mount", "m"], ["mount", "-f", "m"]])
def test_a_broken_configuration_stops_every_command(
    environ: dict[str, str], tmp_path: Path, command: list[str]
) -> None:
    """With file, line and what would be valid, a line for each mistake; nothing is mounted."""
    config = tmp_path / "config.toml"
    config.write_text('[sources.work]\ntype = "vm0"\ntoken = "x"\n[mount]\ntimout = 3\n')
    done = artifactfs(environ, *command, "--config", str(config), check=False)
    assert (done.returncode, done.stdout) == (1, "")
    first, second = done.stderr.splitlines()
    assert first.startswith(
        f"artifactfs: {config}, line 3: unknown key 'token' (did you mean 'token-env'?); valid here: "
    )
    assert second == (
        f"artifactfs: {config}, line 5: unknown key 'timout' (did you mean 'timeout'?);"
        " valid here: allow-other, exec, publish-delay, read-only, show-ids, timeout, watchdog-abort, write-through,"
        " xattrs"
    )


def test_mount_says_what_is_missing_before_it_starts(environ: dict[str, str], tmp_path: Path) -> None:
    """A source without a token, or none of that name: 1, the variable named, no mount point made."""
    place = tmp_path / "mnt"
    for arguments, said in [
        (["vm0"], "set the variable VM0_TOKEN, or put it under [sources.vm0] in"),
        (["nope"], "there is no source 'nope'; sources: local"),
    ]:
        done = artifactfs(environ, "mount", str(place), *arguments, check=False)
        assert (done.returncode, done.stdout) == (1, "")
        assert said in done.stderr
    assert not place.exists()


@pytest.mark.fuse
def test_a_mount_shows_its_token_nowhere(lab: Lab, tmp_path: Path) -> None:
    """Neither in answers nor in its own files, log and command line, whether the service takes it or refuses it."""
    names = ("vm0", "syntropic137", "vlmrun")
    sources = {name: service_source(name, lab.bases()[name], **{"token-env": "MY_TOKEN"}) for name in names}
    environ, extra = {"MY_TOKEN": SECRET}, 'log-level = "debug"'
    with mounted(tmp_path, sources, names=names, environ=environ, extra_config=extra) as m:
        lab.fault("", status=401)
        told = [m.run("ls", f"{name}/nobody", check=False).stderr for name in names]
        told.append(m.artifactfs("status").stdout)
        lab.heal()
        told.append(m.run("find", "-L", ".", check=False).stdout)
        told += [m.artifactfs(*command, str(m.path)).stdout for command in (["status"], ["status", "--json"], ["why"])]
        told += [file.read_text() for file in (m.path / ".artifactfs").iterdir() if file.is_file()]
        told.append(Path(f"/proc/{m.status()['pid']}/cmdline").read_text())
        told.append(everything(m.environ))
    assert all("nobody" in said for said in told[:3])
    assert SECRET not in "".join(told)
