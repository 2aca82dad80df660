"""What the documents say about the code is so: tests, files, commands, options, keys and variables they name exist."""

from __future__ import annotations

import ast
import re
import textwrap
import tomllib
from pathlib import Path

import pytest
from typer.main import get_command

from artifactfs import config
from artifactfs.cli.app import app
from artifactfs.config.settings import SECTIONS, Section, SourceConfig, keys_of

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
SEMANTICS = ROOT / "docs/semantics.md"
DOCUMENTS = [README, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]

PROOF = re.compile(r"\[([\w/]+\.py)::(\w+)\]")


def sentences() -> list[str]:
    """Return what semantics.md promises, a sentence each."""
    return [line for line in SEMANTICS.read_text().splitlines() if line.startswith("- ")]


def names_in(path: Path) -> set[str]:
    """Return the tests that a file defines."""
    tree = ast.parse(path.read_text())
    found = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    targets = (target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets)
    return found | {target.id for target in targets if isinstance(target, ast.Name)}


def test_every_sentence_about_behaviour_names_a_test_that_exists() -> None:
    """Nothing is promised that nothing shows."""
    assert [sentence for sentence in sentences() if not PROOF.search(sentence)] == []
    proofs = {proof for sentence in sentences() for proof in PROOF.findall(sentence)}
    defined = {file: names_in(ROOT / "tests" / file) for file, _ in proofs if (ROOT / "tests" / file).is_file()}
    assert [f"{file}::{name}" for file, name in sorted(proofs) if name not in defined.get(file, ())] == []


def quoted(text: str) -> set[str]:
    """Return what stands between backticks."""
    return set(re.findall(r"`([^`\n]+)`", text))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_documents_name_exist(document: Path) -> None:
    """Python files, scripts and documents; relative to the repository, the package or the tests."""
    named = {
        text for text in quoted(document.read_text()) if re.fullmatch(r"[\w./-]+\.(py|md|toml|lock)|scripts/\w+", text)
    }
    # Files of a mount, of a user's, and of examples.
    theirs = {"notes.md", "config.toml", "deliverable.md", "idea.md"}
    bases = (ROOT, ROOT / "artifactfs", ROOT / "tests", ROOT / "docs")
    lost = [n for n in named - theirs if not any((base / n).exists() for base in bases) and "/" in n]
    assert lost == []


def commands() -> dict[str, set[str]]:
    """Return every command and its options."""
    found: dict[str, set[str]] = {}
    group = get_command(app)
    for name, command in getattr(group, "commands", {}).items():
        for inner, leaf in getattr(command, "commands", {"": command}).items():
            options = {text for parameter in leaf.params for text in (*parameter.opts, *parameter.secondary_opts)}
            found[f"{name} {inner}".strip()] = {text for text in options if text.startswith("-")}
    return found


def test_the_readme_names_every_command_and_no_other() -> None:
    """The table is what `artifactfs --help` has."""
    section = README.read_text().partition("## Commands")[2].partition("\n## ")[0]
    rows = [row.split("|")[1] for row in section.splitlines() if row.startswith("| `")]
    named = {re.sub(r" *[\[A-Z].*", "", text) for row in rows for text in quoted(row)}
    assert named == set(commands())


def test_every_option_in_the_readme_exists() -> None:
    """Each is one of some command."""
    known = set().union(*commands().values())
    lines = [line for line in README.read_text().splitlines() if "artifactfs" in line or line.startswith("| `")]
    named = {option for line in lines for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", line)}
    assert named
    assert named - known == set()


def test_exit_codes_are_those_of_the_help() -> None:
    """One wording of what 0 to 3 mean."""
    help_text = str(get_command(app).epilog).replace(" (the message says why)", "").rstrip(".")
    assert help_text.removeprefix("Exit codes: ") in " ".join(README.read_text().split())


def test_the_readmes_configuration_is_valid() -> None:
    """Copied as it stands it loads, and every key the program knows is named."""
    section = README.read_text().partition("## Configuration")[2].partition("\n## ")[0]
    block = re.search(r"(?:^    .*\n|^\n)+", section.partition("none.\n")[2], re.MULTILINE)
    assert block is not None
    loaded = config.Config.model_validate(tomllib.loads(textwrap.dedent(block.group(0))))
    assert loaded.default in loaded.sources
    tables: list[type[Section]] = [*SECTIONS.values(), SourceConfig]
    keys = {key for table in tables for key in keys_of(table)}
    missing = {key for key in keys if not re.search(rf"(?<![\w-]){key}(?![\w-])", section)}
    assert missing == set()


def test_the_readme_names_the_services_variables() -> None:
    """Each that is read, and none that is not."""
    section = README.read_text().partition("## Configuration")[2].partition("\n## ")[0]
    named = set(re.findall(r"\b(?:VM0|SYN|VLMRUN)_[A-Z_]+\b", section))
    known = {*config.TOKEN_ENV.values(), *config.URL_ENV.values(), *config.PRESENCE_ENV.values()}
    assert named == known | {"SYN_API_USER", "SYN_API_PASSWORD"}


def test_line_one_tells_this_project_from_its_namesake() -> None:
    """People will confuse the two."""
    first = README.read_text().splitlines()[0]
    assert "Cloudflare" in first
    assert "git" in first


def test_decisions_are_numbered() -> None:
    """Without gaps, each headed by its number."""
    files = sorted((ROOT / "docs/decisions").glob("[0-9]*.md"))
    numbers = [int(path.name[:4]) for path in files]
    assert numbers == list(range(1, len(files) + 1))
    for number, path in zip(numbers, files, strict=True):
        assert path.read_text().startswith(f"# {number}. ")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    """Relative ones; those into the web are left to their owners."""
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if "://" not in target and not target.startswith("#"):
            assert (document.parent / target.partition("#")[0]).exists(), target
