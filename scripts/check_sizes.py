"""Fails where a file, class or function has outgrown what a reader can hold at once.

Ruff has no rule for these. A docstring does not count as part of a function: nobody should shorten one to
pass.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHECKED = ("artifactfs/**/*.py", "scripts/*.py")

# Lines. What import-linter, the best measured of our models, does without having to (median file 97 lines,
# p95 function 38, largest class 246).
MAX_FILE = 400
MAX_CLASS = 250
MAX_FUNCTION = 40

# What may be longer, and why: "artifactfs/module.py" or "artifactfs/module.py:Class.method" -> reason.
# An entry that is no longer needed fails too.
ALLOWED: dict[str, str] = {
    "artifactfs/fuse/operations.py:Operations": "a short handler for each operation, in pyfuse3's words",
    "artifactfs/vfs/filesystem.py:FileSystem": "a short method for each of the kernel's operations; it decides nothing",
}

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def length(node: Definition) -> int:
    """Lines from `def` or `class` to the end; of a function without its docstring."""
    end = node.end_lineno or node.lineno
    lines = end - node.lineno + 1
    if isinstance(node, ast.ClassDef) or ast.get_docstring(node, clean=False) is None:
        return lines
    docstring = node.body[0]
    return lines - ((docstring.end_lineno or docstring.lineno) - docstring.lineno + 1)


def definitions(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, Definition]]:
    """Every class and function below `node`, nested ones too, with its dotted name."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Definition):
            name = f"{prefix}{child.name}"
            yield name, child
            yield from definitions(child, f"{name}.")
        else:
            yield from definitions(child, prefix)


def measure(path: Path) -> Iterator[tuple[str, int, int]]:
    """What is in a file: name, its length, the longest it may be."""
    source = path.read_text(encoding="utf-8")
    name = path.relative_to(ROOT).as_posix()
    yield name, len(source.splitlines()), MAX_FILE
    for inner, node in definitions(ast.parse(source, filename=name)):
        yield f"{name}:{inner}", length(node), MAX_CLASS if isinstance(node, ast.ClassDef) else MAX_FUNCTION


def main() -> int:
    """Print what is too long; 1 if anything is."""
    paths = sorted(path for pattern in CHECKED for path in ROOT.glob(pattern))
    too_long = {
        name: f"{lines} lines, at most {limit}"
        for path in paths
        for name, lines, limit in measure(path)
        if lines > limit
    }
    problems = [f"{name}: {text}" for name, text in too_long.items() if name not in ALLOWED]
    problems += [f"{name}: allowed to be long, but is not" for name in ALLOWED if name not in too_long]
    print(*problems, sep="\n", end="\n" if problems else "")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
