"""What ``mount`` was asked for, in the shape both the caller and the background process need."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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
    log_level: str | None = None
    config_file: Path | None = None
    ready_fd: int | None = None

    def settings(self) -> config.Config:
        """Return the configuration with what the command line changes.

        Raises:
            ConfigError: it cannot be used.
        """
        loaded = config.defaults() if self.demo and self.config_file is None else config.load(self.config_file)
        said = {"show_ids": self.show_ids, "xattrs": self.xattrs, "allow_other": self.allow_other}
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

    def arguments(self) -> list[str]:
        """Return the command line that means the same, wherever it runs."""
        switches = {"show-ids": self.show_ids, "xattrs": self.xattrs, "allow-other": self.allow_other}
        found = [f"--{'' if wanted else 'no-'}{name}" for name, wanted in switches.items() if wanted is not None]
        found += [flag for flag, wanted in {"--demo": self.demo, "--all": self.everything}.items() if wanted]
        if self.log_level:
            found += ["--log-level", self.log_level]
        if self.config_file:
            found += ["--config", str(self.config_file.expanduser().absolute())]
        # What follows "--" is no option, however it is called.
        return [*found, "--", str(self.mountpoint), *self.names]
