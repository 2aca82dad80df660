"""Which type an artifact is given when it is made here.

Rules of this file: pure. The service has 26 types (service source, May 2026); the last seven of them mean that the
content is a reference to something elsewhere, so they are never given. Up to 0.18.0 it knew three, of names of its own,
and took every other for ``research_summary``.
"""

from __future__ import annotations

from collections.abc import Mapping

BY_SUFFIX: Mapping[str, str] = {
    **dict.fromkeys(("md", "markdown", "mdx"), "markdown"),
    **dict.fromkeys(("txt", "text", "log", "csv", "tsv"), "text"),
    **dict.fromkeys(("json", "jsonl", "ndjson", "json5", "geojson", "ipynb"), "json"),
    **dict.fromkeys(("yaml", "yml"), "yaml"),
    **dict.fromkeys(("toml", "ini", "cfg", "conf", "env", "properties"), "configuration"),
    **dict.fromkeys(("sh", "bash", "zsh", "fish", "ps1", "bat"), "script"),
    **dict.fromkeys(("rst", "adoc", "tex", "html", "htm"), "documentation"),
    **dict.fromkeys(
        ("py", "pyi", "js", "mjs", "ts", "tsx", "jsx", "c", "h", "cc", "cpp", "hpp", "cs", "go", "rs", "java", "kt",
         "rb", "php", "swift", "scala", "lua", "pl", "r", "sql", "css", "scss", "proto", "ex", "exs", "hs", "zig"),
        "code",
    ),
}  # fmt: skip
OTHER = "other"
README = "readme"
CODE = frozenset({"code", "script"})
OLD_CODE, OLD_DOCUMENT = "code", "document"


def artifact_type(name: str, *, is_old: bool = False) -> str:
    """Return the type of a new artifact by its name; ``is_old`` for a server of 0.18.0."""
    stem, dot, suffix = name.lower().rpartition(".")
    found = README if (stem if dot else suffix) == "readme" else BY_SUFFIX.get(suffix if stem else "", OTHER)
    if is_old:
        return OLD_CODE if found in CODE else OLD_DOCUMENT
    return found
