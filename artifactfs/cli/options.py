"""What ``mount`` was asked for, in the shape both the caller and the background process need."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from artifactfs import config


@dataclass(frozen=True, slots=True)
class MountOptions:
    """The options of one mount."""

    mountpoint: Path
    names: list[str]
    demo: bool = False
    everything: bool = False
    show_ids: bool = False
    xattrs: bool = False
    allow_other: bool = False
    log_level: str | None = None
    config_file: Path | None = None
    ready_fd: int | None = None

    def settings(self) -> config.Config:
        """Return the configuration with what the command line changes.

        Raises:
            ConfigError: it cannot be used.
        """
        loaded = config.Config() if self.demo and self.config_file is None else config.load(self.config_file)
        section = loaded.mount.model_copy(
            update={
                "show_ids": loaded.mount.show_ids or self.show_ids,
                "xattrs": loaded.mount.xattrs or self.xattrs,
                "allow_other": loaded.mount.allow_other or self.allow_other,
            }
        )
        changed: dict[str, object] = {"mount": section}
        if self.log_level:
            changed["log_level"] = self.log_level
        return loaded.model_copy(update=changed)

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

    def arguments(self) -> list[str]:
        """Return the command line that means the same."""
        found = [str(self.mountpoint), *self.names]
        flags = {
            "--demo": self.demo,
            "--all": self.everything,
            "--show-ids": self.show_ids,
            "--xattrs": self.xattrs,
            "--allow-other": self.allow_other,
        }
        found += [flag for flag, wanted in flags.items() if wanted]
        if self.log_level:
            found += ["--log-level", self.log_level]
        if self.config_file:
            found += ["--config", str(self.config_file.absolute())]
        return found
