"""What ``mount`` was asked for: flags go before everything, and the background process is asked for the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifactfs.cli.options import LEVELS, MountOptions

switches = st.sampled_from([None, True, False])
asked = st.builds(
    MountOptions,
    mountpoint=st.sampled_from([Path("/mnt"), Path("/a b/-c"), Path("/--demo"), Path("/\u7814")]),
    names=st.lists(st.sampled_from(["work", "-x", "--all", "a b"]), max_size=3),
    demo=st.booleans(),
    everything=st.booleans(),
    show_ids=switches,
    xattrs=switches,
    allow_other=switches,
    read_only=switches,
    write_through=switches,
    publish_delay=st.sampled_from([None, 0.0, 2.5]),
    poll_interval=st.sampled_from([None, 0.0, 2.5]),
    log_level=st.sampled_from([None, *LEVELS]),
    config_file=st.sampled_from([None, Path("/etc/a b.toml")]),
)


@given(asked)
def test_the_background_process_is_asked_for_the_same(options: MountOptions) -> None:
    """Every option survives the way there, also names and places that look like options."""
    assert MountOptions.from_json(json.loads(json.dumps(options.to_json()))) == options


@pytest.mark.parametrize(
    ("flag", "variable", "file", "expected"),
    [
        (None, None, None, False),
        (None, None, True, True),
        (None, "no", True, False),
        (None, "yes", False, True),
        (True, "no", False, True),
        (False, "yes", True, False),
    ],
)
def test_a_flag_goes_before_the_environment_and_that_before_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flag: bool | None, variable: str | None, file: bool | None,
    expected: bool,
) -> None:  # fmt: skip
    """For each switch, in both directions."""
    config = tmp_path / "config.toml"
    config.write_text("" if file is None else f"[mount]\nxattrs = {str(file).lower()}\n")
    if variable is not None:
        monkeypatch.setenv("ARTIFACTFS_MOUNT_XATTRS", variable)
    options = MountOptions(tmp_path, [], xattrs=flag, config_file=config)
    assert options.settings().mount.xattrs is expected


def test_the_demo_does_without_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken file is no reason not to see it; what was asked for with --config still counts."""
    config = tmp_path / "config.toml"
    config.write_text("[mount]\nxattrs = true\n")
    monkeypatch.setenv("ARTIFACTFS_CONFIG", "/no/such/file")
    monkeypatch.setenv("ARTIFACTFS_LOG_LEVEL", "debug")
    assert MountOptions(tmp_path, [], demo=True).settings().log_level == "debug"
    assert MountOptions(tmp_path, [], demo=True, config_file=config).settings().mount.xattrs
