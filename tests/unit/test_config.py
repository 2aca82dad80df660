"""Configuration: what holds when several say something; a mistake is answered with where it is and what is valid."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifactfs import config, errors
from artifactfs.config import explain
from artifactfs.config.settings import variables
from artifactfs.config.values import parse_size, parse_url

SECRET = "sk_secret_0123456789"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def problem(file: Path, text: str, **environ: str) -> str:
    file.write_text(text)
    with pytest.raises(errors.ConfigError) as caught:
        config.load(file, environ)
    return str(caught.value)


def source(file: Path, text: str, name: str = "work", /, **environ: str) -> config.Source:
    file.write_text(text)
    return config.resolve(config.load(file, environ), name, environ)


# -- mistakes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        (
            "cach = 1",
            1,
            "unknown key 'cach' (did you mean 'cache'?); valid here: cache, default, journal, limits, log, log-level",
        ),
        (
            "\n\n[cache]\n# c\nmaxsize = 1",
            5,
            "'maxsize' (did you mean 'max-size'?); valid here: dir, max-size, min-free",
        ),
        ("[cache]\nmax_size = 1", 2, "did you mean 'max-size'?"),
        ("[sources.work]\ntype = 'vm0'\ntokn-env = 'X'", 3, "did you mean 'token-env'?"),
        ("[sources.'a.b']\ntype = 'vm0'\nxyz = 'X'", 3, "unknown key 'xyz'; valid here: allow-private-urls"),
        ("sources.work.type = 'vm0'\nsources.work.uri = 'h'", 2, "did you mean 'url'?"),
        ("[ sources . work ] # c\nurl = 'http://h'", 1, "sources.work needs the key 'type'"),
        ("[sources.work]\ntype = 'vm1'", 2, "sources.work.type: should be 'vm0', 'syntropic137', 'vlmrun' or 'local'"),
        ("[cache]\nmax-size = 'ten'", 2, "cache.max-size: 'ten' is not a size such as 10GiB or 500MB"),
        ("[cache]\nmax-size = -1", 2, "cache.max-size: should be greater than or equal to 0"),
        ("[cache]\ndir = 3", 2, "cache.dir: should be a path"),
        ("[mount]\ntimeout = 0", 2, "mount.timeout: should be greater than 0"),
        ("[mount]\ntimeout = nan", 2, "mount.timeout: should be greater than 0"),
        ("[mount]\nxattrs = 'perhaps'", 2, "mount.xattrs: should be a valid boolean"),
        ("default = 5", 1, "default: should be a valid string"),
        ("log-level = 'loud'", 1, "log-level: should be 'debug', 'info', 'warning' or 'error'"),
        ("cache = 3", 1, "cache: should be a table"),
        ("[[cache]]\ndir = 'x'", 1, "cache: should be a table"),
        ("sources = []", 1, "sources: should be a table"),
        ("[sources]\nwork = 'vm0'", 2, "sources.work: should be a table"),
        ("[sources.work]\ntype = 'vm0'\nrequests-per-minute = 0", 3, "should be greater than 0"),
        ("[sources.work]\ntype = 'vm0'\nurl = 'ftp://h'", 3, "should be an address such as https://host"),
        ("[sources.work]\ntype = 'vm0'\nurl = 'https://'", 3, "should be an address such as"),
        ("[sources.work]\ntype = 'vm0'\nurl = 'http://h:99999'", 3, "should be an address such as"),
        ("[sources.work]\ntype = 'vm0'\ntoken-env = 'a b'", 3, "should be the name of an environment variable"),
        ("[limits]\nmax-ratio = 1", 2, "limits.max-ratio: should be greater than 1"),
        ("[limits]\nmax-depth = 0", 2, "limits.max-depth: should be greater than 0"),
        ("[limits]\nmax-json-depth = 9999", 2, "limits.max-json-depth: should be less than or equal to 950"),
        ("[limits]\nmax-redirects = -1", 2, "limits.max-redirects: should be greater than or equal to 0"),
        ("[limits]\nmax-answer = 'much'", 2, "limits.max-answer: 'much' is not a size such as 10GiB or 500MB"),
    ],
)
def test_a_mistake_names_file_line_and_what_is_valid(file: Path, text: str, line: int, said: str) -> None:
    """However the file writes it: headers, dotted keys, quotes, comments."""
    message = problem(file, text)
    assert message.startswith(f"{file}, line {line}: ")
    assert said in message
    assert "\n" not in message


def test_every_mistake_is_told_at_once(file: Path) -> None:
    """A line each, so that one pass mends the file."""
    lines = problem(file, "x = 1\n[cache]\nmax-size = 'ten'\ny = 2\n").splitlines()
    assert sorted(line.split(", line ")[1].split(":")[0] for line in lines) == ["1", "3", "4"]


def test_what_is_no_toml_says_where(file: Path) -> None:
    """With line and column, as the parser gives them."""
    assert "not valid TOML" in problem(file, "[cache]\nmax-size = \n")
    assert "line 2" in problem(file, "[cache]\nmax-size = \n")


def test_a_file_that_cannot_be_read_is_a_mistake(file: Path, tmp_path: Path) -> None:
    """One that was asked for by name and is not there, a directory, other encodings; a byte order mark is none."""
    for path, environ in ((file, {}), (None, {"ARTIFACTFS_CONFIG": str(file)})):
        with pytest.raises(errors.ConfigError, match=f"{file}: there is no such configuration file"):
            config.load(path, environ)
    with pytest.raises(errors.ConfigError, match="cannot be read: Is a directory"):
        config.load(tmp_path, {})
    file.write_bytes(b"default = '\xff'")
    with pytest.raises(errors.ConfigError, match="not UTF-8"):
        config.load(file, {})
    file.write_bytes(b"\xef\xbb\xbflog-level = 'debug'")
    assert config.load(file, {}).log_level == "debug"


def test_no_file_is_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where none is asked for, none is needed."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    assert config.load(None, {}) == config.Config()


@given(st.text(max_size=60), st.lists(st.text(max_size=8), max_size=3))
def test_looking_for_a_line_never_fails(text: str, loc: list[str]) -> None:
    """Whatever the file holds: a number of one of its lines, or none."""
    found = explain.line_of(text, loc)
    assert found is None or 1 <= found <= len(text.splitlines())


# -- who says it last ----------------------------------------------------------------------------------------


def test_the_environment_goes_before_the_file_and_the_file_before_the_default(file: Path) -> None:
    """Each setting has a variable; what it says replaces what the file says, and nothing else."""
    file.write_text("log-level = 'error'\n[cache]\nmax-size = '2GiB'\nmin-free = 5\n[mount]\nxattrs = true\n")
    environ = {"ARTIFACTFS_LOG_LEVEL": "debug", "ARTIFACTFS_CACHE_MAX_SIZE": "3GiB", "ARTIFACTFS_MOUNT_XATTRS": "no"}
    plain, over = config.load(file, {}), config.load(file, environ)
    assert (plain.log_level, plain.cache.max_size, plain.cache.min_free, plain.mount.xattrs) == (
        "error", 2 << 30, 5, True,
    )  # fmt: skip
    assert (over.log_level, over.cache.max_size, over.cache.min_free, over.mount.xattrs) == ("debug", 3 << 30, 5, False)
    assert over.mount.timeout == config.MountConfig().timeout
    assert config.defaults({"ARTIFACTFS_MOUNT_TIMEOUT": "7"}).mount.timeout == 7
    assert config.defaults({"ARTIFACTFS_LOG_LEVEL": ""}).log_level == "info"


def test_a_variable_that_cannot_be_used_is_named(file: Path) -> None:
    """Also where a file stands beside it."""
    environ = {"ARTIFACTFS_CACHE_MAX_SIZE": "ten", "ARTIFACTFS_MOUNT_TIMEOUT": "soon"}
    message = problem(file, "[cache]\nmin-free = 1\n", **environ)
    assert "the variable ARTIFACTFS_CACHE_MAX_SIZE: 'ten' is not a size" in message
    assert "the variable ARTIFACTFS_MOUNT_TIMEOUT: should be a valid number" in message


def test_every_setting_has_a_variable() -> None:
    """Named after its place in the file; sources have those of their services."""
    assert variables()["ARTIFACTFS_DEFAULT"] == ("default",)
    assert variables()["ARTIFACTFS_MOUNT_ALLOW_OTHER"] == ("mount", "allow-other")
    assert not any("SOURCES" in name for name in variables())


def test_relative_paths_begin_beside_the_file(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They mean the same wherever the command runs; `~` is the home."""
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.chdir("/")
    (tmp_path / "token").write_text(SECRET)
    text = """
        [sources.work]
        type = "vm0"
        token-file = "token"
        [sources.mine]
        type = "local"
        path = "sub/store"
        [cache]
        dir = "~/cache"
    """
    assert source(file, text).authorization is not None
    assert source(file, text, "mine").path == tmp_path / "sub/store"
    assert config.cache_dir(config.load(file, {})) == Path("/home/somebody/cache")
    monkeypatch.chdir(tmp_path)
    assert config.config_path({"ARTIFACTFS_CONFIG": "config.toml"}) == file


def test_a_path_in_a_variable_is_the_callers(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It begins where the command runs, whether there is a file or not."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    file.write_text("[cache]\ndir = 'elsewhere'\n")
    environ = {"ARTIFACTFS_CACHE_DIR": "cache"}
    for settings in (config.load(file, environ), config.load(None, {**environ, "HOME": str(tmp_path)})):
        assert config.cache_dir(settings) == tmp_path / "here/cache"


# -- sources -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        ({}, []),
        ({"VM0_TOKEN": "t"}, ["vm0"]),
        ({"VM0_TOKEN": ""}, []),
        ({"SYN_API_URL": "http://h", "VLMRUN_API_KEY": "k"}, ["syntropic137", "vlmrun"]),
        ({"SYN_API_TOKEN": "t"}, []),
    ],
)
def test_a_service_whose_variable_is_set_is_a_source(environ: dict[str, str], names: list[str]) -> None:
    """Without a file; `mount` takes all there are, and the local store if there is none."""
    assert list(config.all_sources(config.Config(), environ)) == names
    assert config.choose(config.Config(), [], everything=False, environ=environ) == (names or ["local"])


def test_what_the_file_says_of_a_service_is_not_said_twice(file: Path) -> None:
    """A source of that type, under whatever name, is that service's; another service is added."""
    file.write_text('[sources.work]\ntype = "vm0"\n')
    found = config.all_sources(config.load(file, {}), {"VM0_TOKEN": "t", "VLMRUN_API_KEY": "k"})
    assert list(found) == ["work", "vlmrun"]


def test_which_sources_are_mounted(file: Path) -> None:
    """Those named, once; else the default; else all; `--all` whatever the default is."""
    file.write_text('default = "b"\n[sources.a]\ntype = "local"\n[sources.b]\ntype = "local"\n')
    loaded = config.load(file, {})

    def chosen(*names: str, everything: bool = False) -> list[str]:
        return config.choose(loaded, names, everything=everything, environ={})

    assert chosen() == ["b"]
    assert chosen("a", "b", "a") == ["a", "b"]
    assert chosen("local") == ["local"]
    assert chosen(everything=True) == ["a", "b"]


def test_a_source_that_is_not_there_says_which_are(file: Path) -> None:
    """With a near match; of a service, how to have one; a default that is not there says that it is the default."""
    file.write_text('default = "wrk"\n[sources.work]\ntype = "local"\n')
    loaded = config.load(file, {})
    for names, everything, said in [
        (["wrok"], False, "there is no source 'wrok' (did you mean 'work'?); sources: local, work"),
        (["vm0"], False, "there is no source 'vm0': set the variable VM0_TOKEN, or put it under [sources.vm0] in "),
        ([], False, "the default source 'wrk' does not exist (did you mean 'work'?); sources: local, work"),
    ]:
        with pytest.raises(errors.ConfigError) as caught:
            config.choose(loaded, names, everything=everything, environ={})
        assert said in str(caught.value)
    assert config.choose(loaded, ["work"], everything=False, environ={}) == ["work"]
    assert config.choose(loaded, [], everything=True, environ={}) == ["work"]


@pytest.mark.parametrize("service", ["vm0", "vlmrun"])
def test_a_missing_token_says_which_variable(file: Path, service: str) -> None:
    """The service's own, or the one that the file names; and where else it can come from."""
    own = {"vm0": "VM0_TOKEN", "vlmrun": "VLMRUN_API_KEY"}[service]
    with pytest.raises(errors.ConfigError, match=f"set the environment variable {own}, or token-env or token-file"):
        source(file, f'[sources.work]\ntype = "{service}"\n', HOME="/nowhere")
    with pytest.raises(errors.ConfigError, match="set the environment variable MY_TOKEN"):
        source(file, f'[sources.work]\ntype = "{service}"\ntoken-env = "MY_TOKEN"\n', **{own: SECRET})


def test_a_token_in_the_place_of_a_variables_name_is_not_shown(file: Path) -> None:
    """The mistake is easy to make, and the message goes to screens and logs."""
    with pytest.raises(errors.ConfigError) as caught:
        source(file, f'[sources.work]\ntype = "vm0"\ntoken-env = "{SECRET}"\n')
    assert "takes the name of a variable" in str(caught.value)
    assert SECRET not in str(caught.value)
    for url in (f"https://u:{SECRET}@host", f"https://host?token={SECRET}", f"http:// {SECRET}"):
        assert SECRET not in problem(file, f'[sources.work]\ntype = "vm0"\nurl = "{url}"\n')


def test_where_a_token_comes_from(file: Path, tmp_path: Path) -> None:
    """The variable a source names, else its file, else the service's variable, else what its own command saved."""
    (tmp_path / "t").write_text("from-file\n")
    (tmp_path / ".vm0").mkdir()
    (tmp_path / ".vm0/config.json").write_text(json.dumps({"token": "from-vm0", "apiUrl": "https://own.example"}))
    both = '[sources.work]\ntype = "vm0"\ntoken-env = "MINE"\ntoken-file = "t"\n'
    only_file = '[sources.work]\ntype = "vm0"\ntoken-file = "t"\n'
    none = '[sources.work]\ntype = "vm0"\n'
    home = str(tmp_path)
    for text, environ, expected in [
        (both, {"MINE": "from-mine", "VM0_TOKEN": "from-own"}, "from-mine"),
        (both, {"VM0_TOKEN": "from-own"}, "from-file"),
        (only_file, {"VM0_TOKEN": "from-own"}, "from-file"),
        (none, {"VM0_TOKEN": " from-own\n", "HOME": home}, "from-own"),
        (none, {"HOME": home}, "from-vm0"),
    ]:
        found = source(file, text, **environ)
        assert found.authorization is not None
        assert found.authorization.get_secret_value() == f"Bearer {expected}"
        assert expected not in repr(found)
    assert source(file, none, HOME=home).url == "https://own.example"


def test_what_the_services_own_commands_saved_is_used(file: Path, tmp_path: Path) -> None:
    """VLM Run's file too; one that cannot be understood is as if it were not there."""
    own = tmp_path / ".vlmrun/config.toml"
    own.parent.mkdir()
    own.write_text('api_key = "from-vlmrun"\nbase_url = "https://vlm.example/v1/"\n')
    text = '[sources.work]\ntype = "vlmrun"\n'
    found = source(file, text, HOME=str(tmp_path))
    assert (found.url, found.authorization is not None) == ("https://vlm.example/v1", True)
    for broken in ("api_key = ", "api_key = 3", "[]", ""):
        own.write_text(broken)
        with pytest.raises(errors.ConfigError, match="VLMRUN_API_KEY"):
            source(file, text, HOME=str(tmp_path))


def test_a_token_file_that_cannot_be_read_is_named(file: Path, tmp_path: Path) -> None:
    """Missing or empty."""
    text = '[sources.work]\ntype = "vm0"\ntoken-file = "t"\n'
    with pytest.raises(errors.ConfigError, match=f"source 'work': the token file {tmp_path}/t cannot be read: No such"):
        source(file, text)
    (tmp_path / "t").write_text(" \n")
    with pytest.raises(errors.ConfigError, match="is empty"):
        source(file, text)


def test_a_token_comes_out_of_a_pipe_or_in_time_not(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who writes it may need a moment; a pipe that nobody writes to holds nobody."""
    text = '[sources.work]\ntype = "vm0"\ntoken-file = "t"\n'
    os.mkfifo(tmp_path / "t")
    with monkeypatch.context() as patch:
        patch.setattr("artifactfs.config.tokens.PIPE_S", 0.1)
        with pytest.raises(errors.ConfigError, match="timed out"):
            source(file, text)
        writer = os.open(tmp_path / "t", os.O_RDWR)
        with pytest.raises(errors.ConfigError, match="timed out"):
            source(file, text)
        os.close(writer)

    def say(writer: int) -> None:
        writer = writer or os.open(tmp_path / "t", os.O_WRONLY)
        os.write(writer, b"from-pipe\n")
        os.close(writer)

    for is_open in (False, True):
        late = threading.Timer(0.3, say, [os.open(tmp_path / "t", os.O_RDWR) if is_open else 0])
        late.start()
        found = source(file, text)
        late.join()
        assert found.authorization is not None
        assert found.authorization.get_secret_value() == "Bearer from-pipe"


def test_a_token_that_cannot_be_sent_is_refused_without_showing_it(file: Path) -> None:
    """A line break in it would be another header."""
    for token in ("two words", "a\r\nX: y", "\u00e9"):
        with pytest.raises(errors.ConfigError, match="cannot be sent") as caught:
            source(file, '[sources.work]\ntype = "vm0"\n', VM0_TOKEN=token)
        assert token not in str(caught.value)


def test_syntropic137_needs_no_token_but_may_have_a_password(file: Path) -> None:
    """Basic from SYN_API_USER and SYN_API_PASSWORD, `admin` by default; a token goes before."""
    text = '[sources.work]\ntype = "syntropic137"\n'
    assert source(file, text).authorization is None

    def header(**environ: str) -> str:
        found = source(file, text, **environ).authorization
        assert found is not None
        return found.get_secret_value()

    basic = base64.b64encode(b"admin:pw").decode()
    assert header(SYN_API_PASSWORD="pw") == f"Basic {basic}"
    assert header(SYN_API_PASSWORD="pw", SYN_API_USER="me") == "Basic " + base64.b64encode(b"me:pw").decode()
    assert header(SYN_API_PASSWORD="pw", SYN_API_TOKEN="t") == "Bearer t"


@pytest.mark.parametrize(
    ("service", "url", "environ", "expected"),
    [
        ("vm0", None, {}, "https://api.vm0.ai"),
        ("vm0", None, {"VM0_API_URL": "https://other.example/"}, "https://other.example"),
        ("vm0", "https://mine.example", {"VM0_API_URL": "https://other.example"}, "https://mine.example"),
        ("syntropic137", None, {}, "http://localhost:8137"),
        ("syntropic137", "http://h:1/api/v1/", {}, "http://h:1"),
        ("vm0", "http://h:1/v1", {}, "http://h:1"),
        ("vlmrun", "http://h:1", {}, "http://h:1/v1"),
        ("vlmrun", "http://h:1/vlmrun/v1/", {}, "http://h:1/vlmrun/v1"),
        ("syntropic137", None, {"SYN_API_URL": "http://h:2/api/v1"}, "http://h:2"),
        ("vlmrun", None, {}, "https://api.vlm.run/v1"),
        ("vlmrun", "host.example/v1", {}, "https://host.example/v1"),
        ("vlmrun", "http://[::1]:8/v1", {}, "http://[::1]:8/v1"),
    ],
)
def test_where_a_source_is(file: Path, service: str, url: str | None, environ: dict[str, str], expected: str) -> None:
    """What the source says, else its service's variable, else its service's address."""
    text = f'[sources.work]\ntype = "{service}"\n' + (f'url = "{url}"\n' if url else "")
    tokens = {"VM0_TOKEN": "t", "VLMRUN_API_KEY": "t", "HOME": "/nowhere"}
    assert source(file, text, **tokens, **environ).url == expected


def test_an_address_in_a_variable_is_checked_too(file: Path) -> None:
    """The message names the variable, not what is in it."""
    with pytest.raises(errors.ConfigError, match=r"^VM0_API_URL: should be an address"):
        source(file, '[sources.work]\ntype = "vm0"\n', VM0_TOKEN="t", VM0_API_URL="file:///etc/passwd")


def test_a_fingerprint_tells_places_apart_and_stays(file: Path) -> None:
    """By name, service and address; not by token, which changes while the account stays."""

    def of(name: str, url: str, token: str) -> str:
        return source(file, f'[sources.{name}]\ntype = "vm0"\nurl = "{url}"\n', name, VM0_TOKEN=token).fingerprint

    assert of("a", "https://h", "1") == of("a", "https://h", "2")
    assert len({of("a", "https://h", "1"), of("b", "https://h", "1"), of("a", "https://i", "1")}) == 3


# -- values and places ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("64K", 64 << 10),
        ("500 MB", 500 * 10**6),
        ("10GiB", 10 << 30),
        ("1.5g", 3 << 29),
        (" 2 tib ", 2 << 40),
    ],
)
def test_sizes(text: str, size: int) -> None:
    """As people write them."""
    assert parse_size(text) == size


@given(st.text(max_size=20))
def test_any_text_is_a_size_and_an_address_or_neither(text: str) -> None:
    """Never another error than the one that becomes a message."""
    for parse in (parse_size, parse_url):
        with contextlib.suppress(ValueError):
            parse(text)


@pytest.mark.parametrize("given", ["", "relative"])
def test_a_directory_of_sockets_that_is_not_absolute_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    """Else what is called artifactfs in the directory that one happens to be in would be taken for it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "relative").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", given)
    assert config.runtime_dir() == Path(f"/tmp/artifactfs-{os.getuid()}")
    assert sorted(tmp_path.iterdir()) == [tmp_path / "relative"]


def test_the_directory_of_sockets_is_the_owners_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made 0700, made so again if it is not, and refused where it is a link or somebody else's."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    path = config.runtime_dir()
    assert path.stat().st_mode & 0o777 == 0o700
    path.chmod(0o755)
    assert config.runtime_dir().stat().st_mode & 0o777 == 0o700
    path.rmdir()
    (tmp_path / "elsewhere").mkdir()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(errors.ConfigError, match="set XDG_RUNTIME_DIR"):
        config.runtime_dir()
    path.unlink()
    path.write_text("")
    with pytest.raises(errors.ConfigError, match="cannot be made"):
        config.runtime_dir()


@pytest.mark.parametrize(
    ("given", "meant"),
    [("", ""), ("unix", "unix"), ("127.0.0.1:9137", "127.0.0.1:9137"), ("localhost:0", "127.0.0.1:0"),
     ("[::1]:9137", "[::1]:9137"), ("127.9.9.9:1", "127.9.9.9:1")],
)  # fmt: skip
def test_metrics_are_served_on_this_machine(given: str, meant: str) -> None:
    """On a socket, on loopback, or nowhere."""
    assert config.Config.model_validate({"metrics": {"listen": given}}).metrics.listen == meant


@pytest.mark.parametrize(
    ("given", "said"),
    [("0.0.0.0:9137", "loopback"), ("192.168.1.4:9137", "loopback"), ("[::]:9137", "loopback"),
     ("9137", 'should be "unix"'), ("host:9137", 'should be "unix"'), ("127.0.0.1", 'should be "unix"'),
     ("127.0.0.1:99999", 'should be "unix"'), ("127.0.0.1:-1", 'should be "unix"')],
)  # fmt: skip
def test_metrics_are_not_served_to_other_machines(file: Path, given: str, said: str) -> None:
    """File, line and what would be valid."""
    message = problem(file, f'[metrics]\nlisten = "{given}"')
    assert message.startswith(f"{file}, line 2: metrics.listen: ")
    assert said in message
