"""Fuzzing by coverage where atheris is installed, else by a simple loop that mutates a corpus.

A crash is written beside the corpus, and fails; run it again with ``--replay FILE``.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

# What one input may have in bytes: tar archives of a hundred members.
MAX_LENGTH = 1 << 16
INTERESTING = (
    b"\0" * 8,
    b"\xff" * 8,
    b"\x80" + b"\0" * 10 + b"\1",
    b"../",
    b"/",
    b"ustar\x0000",
    b"9" * 11,
    b"\0" * 512,
)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description="fuzz one parser")
    parser.add_argument(
        "target", nargs="?", default="tar", choices=("tar", "archive", "index", "kept", "title", "answer")
    )
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--corpus", type=Path, default=None, help="a directory that keeps what was found worth keeping")
    parser.add_argument("--simple", action="store_true", help="without atheris, also where it is installed")
    parser.add_argument("--replay", type=Path, default=None, help="run one input and end")
    return parser.parse_args()


def main() -> None:
    """Run a target on one input, or on many."""
    given = arguments()
    by_coverage = not (given.simple or given.replay) and importlib.util.find_spec("atheris") is not None
    if by_coverage:
        atheris = importlib.import_module("atheris")
        with atheris.instrument_imports(include=["artifactfs"]):
            targets = importlib.import_module("tests.fuzz.targets")
    else:
        targets = importlib.import_module("tests.fuzz.targets")
    run = targets.TARGETS[given.target]
    if given.replay:
        run(given.replay.read_bytes())
        return
    corpus: Path = given.corpus or Path(f".fuzz/{given.target}")
    corpus.mkdir(parents=True, exist_ok=True)
    for data in targets.seeds(given.target):
        (corpus / f"seed-{hashlib.sha256(data).hexdigest()[:16]}").write_bytes(data)
    if not by_coverage:
        mutate(run, corpus, given.seconds, given.seed)
        return
    limits = [f"-max_total_time={given.seconds}", f"-max_len={MAX_LENGTH}", "-timeout=20", "-rss_limit_mb=2048"]
    prefix = f"-artifact_prefix={corpus.parent}/"
    atheris.Setup([sys.argv[0], str(corpus), f"-seed={given.seed}", "-print_final_stats=1", prefix, *limits], run)
    atheris.Fuzz()


def mutate(run: Callable[[bytes], None], corpus: Path, seconds: int, seed: int) -> None:
    """Change inputs of the corpus at random, a bounded time, the same each time for one seed."""
    chance, inputs, tried = random.Random(seed), [path.read_bytes() for path in sorted(corpus.iterdir())], 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        data = bytearray(chance.choice(inputs))
        for _ in range(chance.randint(1, 8)):
            change(data, chance, inputs)
        tried += 1
        began = time.monotonic()
        try:
            run(bytes(data[:MAX_LENGTH]))
        except BaseException:
            where = corpus.parent / f"crash-{hashlib.sha256(data).hexdigest()[:16]}"
            where.write_bytes(data[:MAX_LENGTH])
            sys.stdout.write(f"failed on {where} after {tried} executions, seed {seed}" + "\n")
            raise
        if time.monotonic() - began > 10:
            sys.exit(f"an input took {time.monotonic() - began:.0f} s: {bytes(data[:60])!r}")
    sys.stdout.write(f"{tried} executions in {seconds} s, seed {seed}: nothing found" + "\n")


def change(data: bytearray, chance: random.Random, inputs: list[bytes]) -> None:
    """Change an input at one place."""
    at = chance.randrange(len(data) + 1)
    if chance.random() < 0.5:
        at -= at % 512 - chance.choice((0, 0, 100, 124, 136, 156, 157, 257, 345))
        at = max(0, at)
    match chance.randrange(6):
        case 0:
            data[at : at + 1] = chance.randbytes(1)
        case 1:
            del data[at : at + chance.choice((1, 16, 512, 1024))]
        case 2:
            data[at:at] = chance.randbytes(chance.choice((1, 12, 512)))
        case 3:
            piece = chance.choice(INTERESTING)
            data[at : at + len(piece)] = piece
        case 4:
            other = chance.choice(inputs)
            start = chance.randrange(len(other) + 1)
            data[at:at] = other[start : start + chance.choice((12, 512, 1024, 4096))]
        case _:
            data[at : at + 512], data[:512] = data[:512], data[at : at + 512]


if __name__ == "__main__":
    main()
