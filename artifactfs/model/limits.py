"""What content and answers from outside may cost; each number is a default that the table ``[limits]`` may change.

Rules of this file: pure. Who meets a limit names it in the error as ``named`` writes it: so a person finds the key.
"""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024
# What limits are called in the configuration, where that is not their own name.
_KEYS = {
    "max_all_path_bytes": "max-paths",
    "max_header_bytes": "max-header",
    "max_answer_bytes": "max-answer",
    "max_file_bytes": "max-file",
    "max_listing_rows": "max-listing",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What an archive may cost.

    Attributes:
        max_output: decompressed bytes. The cache's default size: more could not be kept anyway.
        max_archive: compressed bytes. As many: an archive may swallow bytes for ever and give none (empty gzip members,
            a file name in a gzip header, garbage behind the end).
        max_ratio: output per input byte. Deflate's best is 1032; measured: logs 7-20, JSON lines 26, one line
            repeated 290-410, a sparse bitmap 510, zeros 1028. So this stops zeros and nothing that is meant.
        ratio_floor: output below which the ratio does not matter: it costs under a second to find out.
        max_gzip_members: an eStargz has about one per file, so the same as the entries.
        max_entries: headers in the tar, and entries in the tree with directories that are only implied. Peak
            memory is about 0.6 KB for each, so this bounds it to some 300 MB; trees of packages have 1e5.
        max_depth: components of a path; the service's own walk over a working directory stops there.
        max_name_bytes: one component; Linux' NAME_MAX.
        max_path_bytes: one path; Linux' PATH_MAX, beyond it no program can name the file.
        max_all_path_bytes: all paths and link targets together, so that long ones do not defeat max_entries.
        max_header_bytes: one PAX or GNU long-name header; they are the only tar data held in memory.
    """

    max_output: int = 10 * 1024 * MIB
    max_archive: int = 10 * 1024 * MIB
    max_ratio: float = 600
    ratio_floor: int = 256 * MIB
    max_gzip_members: int = 500_000
    max_entries: int = 500_000
    max_depth: int = 256
    max_name_bytes: int = 255
    max_path_bytes: int = 4095
    max_all_path_bytes: int = 128 * MIB
    max_header_bytes: int = 1 * MIB


@dataclass(frozen=True, slots=True)
class AnswerLimits:
    """What an answer of a service may cost, and content that says no size.

    Attributes:
        max_answer_bytes: of one metadata answer; the largest page seen (200 artifacts with content) stays below 16 MiB.
        max_values: in one answer. A page of 1,000 rows of 50 fields has 50,000. The parser takes 60 MB of these in 30
            seconds, and nothing else runs meanwhile (measured); so many take a second or two.
        max_json_depth: lists and objects within one another. Answers have about 5 of their own, but hold what an agent
            has made; Python's parser gives up at 1,000 less what it was called through.
        max_redirects: of one request, more than any of the services needs (one); browsers stop at 20.
        max_file_bytes: of content whose size nobody announced, or that has to be read whole before any of it can be
            shown: the cache's default size, more could not be kept. What comes by ranges has no limit.
        max_listing_rows: of one list, over all its pages. What they take of memory is in docs/limits.md: this bounds
            one directory to a few GB.
    """

    max_answer_bytes: int = 64 * MIB
    max_values: int = 500_000
    max_json_depth: int = 950
    max_redirects: int = 5
    max_file_bytes: int = 10 * 1024 * MIB
    max_listing_rows: int = 1_000_000


ANSWERS = AnswerLimits()


@dataclass(frozen=True, slots=True)
class Bounds:
    """All limits of one mount."""

    archives: Limits = Limits()
    answers: AnswerLimits = ANSWERS


DEFAULTS = Bounds()


def key_of(name: str) -> str:
    """Return what a limit is called in the configuration."""
    return _KEYS.get(name, name.replace("_", "-"))


def named(limits: Limits | AnswerLimits, name: str) -> str:
    """Return a limit as errors name it: its place in the configuration, and its value now."""
    value = getattr(limits, name)
    return f"limits.{key_of(name)} = {value:g}" if isinstance(value, float) else f"limits.{key_of(name)} = {value}"
