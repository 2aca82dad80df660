"""The command as people and scripts call it: help, usage, exit codes, completion, what needs no mount."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import artifactfs as package
from tests.support.lab import artifactfs, environment


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return environment(tmp_path / "home", NO_COLOR="1", COLUMNS="100")


def test_the_version_is_the_packages(environ: dict[str, str]) -> None:
    """One line, nothing else."""
    done = artifactfs(environ, "--version")
    assert (done.stdout, done.stderr) == (f"artifactfs {package.__version__}\n", "")


def test_alone_it_explains_itself(environ: dict[str, str]) -> None:
    """The help with every command and the exit codes; 2, since nothing was asked for."""
    done = artifactfs(environ, check=False)
    assert done.returncode == 2
    for command in ("mount", "umount", "status", "why", "log", "source", "serve", "doctor", "completion"):
        assert re.search(rf"\b{command}\b", done.stdout + done.stderr)
    asked = artifactfs(environ, "--help")
    flat = " ".join(asked.stdout.split())
    assert "Exit codes: 0 done, 1 failed (the message says why), 2 wrong usage, 3 the path is in no mount." in flat


@pytest.mark.parametrize(
    "command",
    [
        "mount",
        "umount",
        "status",
        "why",
        "log",
        "flush",
        "commit",
        "diff",
        "restore",
        "pending list",
        "pending retry",
        "pending discard",
        "pending export",
        "source list",
        "source test",
        "serve",
        "doctor",
        "set",
        "debug-bundle",
    ],
)
def test_every_command_has_help(environ: dict[str, str], command: str) -> None:
    """What it does and its options; nothing that is only for the program itself."""
    said = artifactfs(environ, *command.split(), "--help").stdout
    assert "Usage: artifactfs" in said
    assert "--until-eof" not in said
    assert "--install-completion" not in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sorce"], "Did you mean 'source'"),
        (["mount", "--demoo"], "No such option"),
        (["mount", "--log-level", "loud", "m"], "should be one of debug, info, warning, error"),
        (["mount", "--demo", "m", "vm0"], "--demo says itself what is mounted"),
        (["mount", "--all", "m", "vm0"], "--all says itself what is mounted"),
        (["serve", "--port", "99999"], "0<=x<=65535"),
        (["serve", "--port", "http"], "not a valid int"),
        (["completion", "tcsh"], "should be one of bash, zsh, fish"),
        (["completion", "powershell"], "should be one of bash, zsh, fish"),
        (["why"], "Missing argument"),
        (["commit", "x"], "a version needs a message"),
        (["restore", "x"], "Missing argument"),
        (["umount", "--wait", "1", "--no-wait"], "says the opposite of --wait"),
        (["mount", "--publish-delay", "-1"], "is not in the range"),
        (["set"], "should be one of debug, info, warning, error"),
        (["set", "--log-level", "loud"], "should be one of debug, info, warning, error"),
        (["debug-bundle", "--lines", "-1"], "is not in the range"),
        (["status", "a", "b"], "unexpected extra argument"),
    ],
)
def test_wrong_usage_is_2_and_says_what_is_right(environ: dict[str, str], arguments: list[str], said: str) -> None:
    """On stderr; stdout stays for answers."""
    done = artifactfs(environ, *arguments, check=False)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.replace("│", " ").split())
    assert done.stdout == ""


@pytest.mark.parametrize("command", ["why", "log", "status", "flush", "diff", "pending list", "pending retry"])
def test_a_path_in_no_mount_is_3(environ: dict[str, str], tmp_path: Path, command: str) -> None:
    """Existing or not; the message says where to look."""
    for path in (tmp_path, tmp_path / "not there", Path("/")):
        done = artifactfs(environ, *command.split(), str(path), check=False)
        assert (done.returncode, done.stdout) == (3, "")
        assert done.stderr == f"artifactfs: {path} is not in a mount of artifactfs (see `artifactfs status`)\n"


def test_a_path_that_is_an_escape_sequence_is_shown_harmless(environ: dict[str, str]) -> None:
    """Errors repeat what was typed or listed; a terminal must not act on it. Bytes that are no text do not end it."""
    done = artifactfs(environ, "why", "/tmp/\x1b]0;pwned\x07\u202e", check=False)
    assert done.returncode == 3
    assert "\\x1b]0;pwned\\x07\\u202e" in done.stderr
    raw = subprocess.run(
        [sys.executable, "-m", "artifactfs", "why", b"/tmp/caf\xe9"], env=environ, capture_output=True, check=False
    )
    assert raw.returncode == 3
    assert b"Traceback" not in raw.stderr


def test_an_encoding_that_cannot_say_it_is_no_crash(environ: dict[str, str]) -> None:
    """With an ASCII-only output the rest is escaped."""
    done = artifactfs({**environ, "PYTHONIOENCODING": "ascii"}, "why", "/tmp/\u7814", check=False)
    assert done.returncode == 3
    assert "\\u7814" in done.stderr


def test_a_reader_that_goes_away_is_no_traceback(environ: dict[str, str]) -> None:
    """``artifactfs ... | head`` ends quietly."""
    command = f"{sys.executable} -m artifactfs completion zsh | true; {sys.executable} -m artifactfs doctor | true"
    done = subprocess.run(["bash", "-c", command], env=environ, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_heavy_modules_stay_out_of_light_commands(environ: dict[str, str]) -> None:
    """``--version``, usage errors and completion do without the event loop, FUSE, HTTP and pydantic."""
    heavy = ["trio", "pyfuse3", "httpx", "hypercorn", "starlette", "pydantic", "sqlite3"]
    code = (
        "import sys, runpy\n"
        "sys.argv = ['artifactfs', *sys.argv[1:]]\n"
        "try: runpy.run_module('artifactfs', run_name='__main__')\n"
        f"except SystemExit: print([m for m in {heavy} if m in sys.modules])\n"
    )
    for arguments in (["--version"], ["completion", "bash"], ["--help"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], env=environ, capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[-1] == "[]", arguments


# -- completion ----------------------------------------------------------------------------------------------


@pytest.fixture
def on_path(environ: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """The environment with the command on the path, as it is once installed."""
    commands = tmp_path / "bin"
    commands.mkdir()
    command = commands / "artifactfs"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m artifactfs "$@"\n')
    command.chmod(0o755)
    return {**environ, "PATH": f"{commands}:{os.environ['PATH']}"}


def complete_bash(environ: dict[str, str], *words: str) -> list[str]:
    """Return what bash would offer for the last word, as its own completion calls it."""
    script = (
        'source <(artifactfs completion bash) || exit 9; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1));'
        ' _artifactfs_completion artifactfs; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", script, "bash", *words], env=environ, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_completes_commands_options_and_sources(on_path: dict[str, str], tmp_path: Path) -> None:
    """Through the script that the command prints, in a real bash; sources are those of the configuration."""
    config = Path(on_path["HOME"]) / ".config/artifactfs/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('[sources.work]\ntype = "local"\n[sources.wide]\ntype = "local"\n')
    assert complete_bash(on_path, "artifactfs", "st") == ["status"]
    assert complete_bash(on_path, "artifactfs", "mount", "--show") == ["--show-ids"]
    assert complete_bash(on_path, "artifactfs", "source", "") == ["list", "test"]
    assert complete_bash(on_path, "artifactfs", "source", "test", "w") == ["wide", "work"]
    assert complete_bash(on_path, "artifactfs", "mount", "m", "wo") == ["work"]
    assert complete_bash(on_path, "artifactfs", "de") == ["debug-bundle"]
    assert complete_bash(on_path, "artifactfs", "set", "--log-level", "") == ["debug", "info", "warning", "error"]
    assert complete_bash(on_path, "artifactfs", "completion", "") == ["bash", "zsh", "fish"]
    config.write_text("broken")
    assert complete_bash(on_path, "artifactfs", "source", "test", "") == []


@pytest.mark.parametrize(
    ("shell", "variables", "expected"),
    [
        ("zsh", {"_TYPER_COMPLETE_ARGS": "artifactfs st"}, '"status"'),
        ("fish", {"_TYPER_COMPLETE_ARGS": "artifactfs st", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}, "status"),
    ],
)
def test_other_shells_have_a_script_and_its_answers(
    on_path: dict[str, str], shell: str, variables: dict[str, str], expected: str
) -> None:
    """The script asks the command, and the command answers what it asks for."""
    script = artifactfs(on_path, "completion", shell).stdout
    assert "artifactfs" in script
    assert f"_ARTIFACTFS_COMPLETE=complete_{shell}" in script
    said = artifactfs({**on_path, **variables, "_ARTIFACTFS_COMPLETE": f"complete_{shell}"}, check=False).stdout
    assert expected in said


# -- the machine ---------------------------------------------------------------------------------------------


def test_the_doctor_says_what_is_there(environ: dict[str, str]) -> None:
    """As a table and as JSON; without a configuration it says that there is none and where one would be."""
    done = artifactfs(environ, "doctor", "--json", check=False)
    told = json.loads(done.stdout)
    # Somebody else's dead mount is no fault of what is tested here, and rightly told.
    assert done.returncode == any(not check["ok"] for check in told)
    assert {check["what"] for check in told if not check["ok"]} <= {"mount"}
    by_name = {check["what"]: check for check in told}
    assert {"Python", "/dev/fuse", "fusermount3", "pyfuse3", "configuration", "cache"} <= set(by_name)
    path = Path(environ["HOME"]) / ".config/artifactfs/config.toml"
    assert by_name["configuration"] == {"what": "configuration", "ok": True, "detail": f"none; {path} would be read"}
    assert re.search(r"^ok +pyfuse3 ", artifactfs(environ, "doctor", check=False).stdout, re.MULTILINE)


def test_the_doctor_finds_what_is_wrong_with_the_configuration(environ: dict[str, str], tmp_path: Path) -> None:
    """1, and a line for each: what cannot be read, tokens that are missing, a default that is not there."""
    config = tmp_path / "config.toml"
    config.write_text('default = "wrk"\n[sources.work]\ntype = "vm0"\n')
    done = artifactfs(environ, "doctor", "--config", str(config), "--json", check=False)
    wrong = {check["what"]: check["detail"] for check in json.loads(done.stdout) if not check["ok"]}
    assert done.returncode == 1
    assert "did you mean 'work'" in wrong["default"]
    assert "VM0_TOKEN" in wrong["source work"]
    config.write_text("[cach]\n")
    done = artifactfs(environ, "doctor", "--config", str(config), check=False)
    assert done.returncode == 1
    assert f"{config}, line 1: unknown key 'cach' (did you mean 'cache'?)" in done.stdout
