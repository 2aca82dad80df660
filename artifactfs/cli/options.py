"""What ``mount`` was asked for, in the shape both the caller and the background process need."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifactfs import config

LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True)
class MountOptions:
    """The options of one mount; None is "not said": what environment and file say holds."""

    mountpoint: Path
    names: list[str]
    demo: bool = False
    everything: bool = False
    show_ids: bool | None = None
    xattrs: bool | None = None
    allow_other: bool | None = None
    read_only: bool | None = None
    write_through: bool | None = None
    publish_delay: float | None = None
    poll_interval: float | None = None
    log_level: str | None = None
    config_file: Path | None = None

    def settings(self) -> config.Config:
        """Return the configuration with what the command line changes.

        Raises:
            ConfigError: it cannot be used.
        """
        loaded = config.defaults() if self.demo and self.config_file is None else config.load(self.config_file)
        said = {
            "show_ids": self.show_ids, "xattrs": self.xattrs, "allow_other": self.allow_other,
            "read_only": self.read_only, "write_through": self.write_through, "publish_delay": self.publish_delay,
            "poll_interval": self.poll_interval,
        }  # fmt: skip
        section = loaded.mount.model_copy(update={key: value for key, value in said.items() if value is not None})
        level = self.log_level or loaded.log_level
        return loaded.model_copy(update={"mount": section, "log_level": level})

    def sources(self, settings: config.Config) -> list[config.Source]:
        """Return the sources to mount, ready to be used.

        Raises:
            ConfigError: one is unknown, or its token is missing.
        """
        names = config.choose(settings, self.names, everything=self.everything)
        return [config.resolve(settings, name) for name in names]

    def check(self) -> None:
        """Find mistakes before anything is started.

        Raises:
            ConfigError: what is wrong.
        """
        settings = self.settings()
        if not self.demo:
            self.sources(settings)

    def describe(self) -> str:
        """Return what is mounted, in words."""
        if self.demo:
            return "the demo"
        return ", ".join(source.name for source in self.sources(self.settings()))

    def to_json(self) -> dict[str, Any]:
        """Return the options as JSON has them; they mean the same wherever they are read."""
        found = dataclasses.asdict(self)
        found["mountpoint"] = str(self.mountpoint)
        found["config_file"] = str(self.config_file.expanduser().absolute()) if self.config_file else None
        return found

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> MountOptions:
        """Return the options that ``to_json`` wrote."""
        config_file = found["config_file"]
        paths = {"mountpoint": Path(found["mountpoint"]), "config_file": Path(config_file) if config_file else None}
        return cls(**{**found, **paths})
