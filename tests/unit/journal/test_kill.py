"""A process that is killed while it saves: whatever it was told is kept is there, whole, for the next one."""

import contextlib
import random
import subprocess
import sys
from pathlib import Path

import pytest

from artifactfs.journal.staging import Staging

# Says a line on its standard output for what it was told, after it was told.
WRITER = """
import sys
from pathlib import Path
from artifactfs.journal.records import Record
from artifactfs.journal.staging import Staging

staging = Staging.fresh(Path(sys.argv[1]))

def tell(*words):
    print(*words, flush=True)

tell("ready", staging.root)
while True:
    staged = staging.open()
    for text in ("a", "b"):
        staged.truncate(0)
        staged.write(0, text.encode() * (5000 + staged.number))
        staging.seal(staged, Record(staged.number, {"text": text}))
        tell("sealed", staged.number, text)
    removal = staging.next_number()
    staging.journal.put(Record(removal, {"remove": removal}))
    tell("recorded", removal)
    match staged.number % 4:
        case 0:
            tell("discarding", staged.number)
            staging.discard(staged)
            tell("discarded", staged.number)
        case 1:
            twin = staging.clone(staged)
            staging.seal(twin, Record(twin.number, {"text": "b"}))
            tell("sealed", twin.number, "b", staged.number)
            twin.close()
    staged.close()
"""
KILLS = 10  # each a process of its own, half a second on a busy machine


def told(output: str) -> tuple[dict[int, str], set[int], set[int]]:
    """Return what was sealed with its text, what has no draft, and what may or must be gone."""
    sealed, recorded, given_up = dict[int, str](), set[int](), set[int]()
    for line in output.splitlines():
        match line.split():
            case ["sealed", number, text, *_]:
                sealed[int(number)] = text
            case ["recorded", number]:
                recorded.add(int(number))
            case ["discarding" | "discarded", number]:
                given_up.add(int(number))
            case _:
                pass
    return sealed, recorded, given_up


def killed(base: Path, lines: int, after_s: float) -> str:
    """Run the writer, kill it some time after it has said so many lines, and return the whole lines that it said."""
    with subprocess.Popen([sys.executable, "-c", WRITER, str(base)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        said = [writer.stdout.readline() for _ in range(1 + lines)]
        with contextlib.suppress(subprocess.TimeoutExpired):
            writer.wait(after_s)
            pytest.fail("the writer ended by itself")
        writer.kill()
        return ("".join(said) + writer.stdout.read()).rpartition("\n")[0]


def check(base: Path, output: str) -> int:
    """Compare what the next mount finds with what was told; return how much that was."""
    sealed, recorded, given_up = told(output)
    (staging,) = Staging.abandoned(base)
    found = staging.left_over()
    numbers = [record.number for record, _ in found]
    assert numbers == sorted(numbers)
    assert {*sealed, *recorded} - given_up <= set(numbers)
    discarded = {int(line.split()[1]) for line in output.splitlines() if line.startswith("discarded")}
    assert not discarded & set(numbers)
    # One more may have been kept that nobody was told of yet.
    assert len(set(numbers) - {*sealed, *recorded}) <= 1
    for record, staged in found:
        if "remove" in record.what:
            assert staged is None
            staging.journal.put(drop=[record.number])
            continue
        assert staged is not None
        content = staged.read(0, 1 << 20)
        # The killed process may have been writing the second text over the first.
        assert content.replace(b"b", b"").replace(b"a", b"") == b""
        if sealed.get(record.number) == "b":
            assert set(content) == {ord("b")}
            assert len(content) >= 5000
        staging.discard(staged)
    staging.close()
    assert not list(base.iterdir())
    return len(numbers)


def test_whatever_was_acknowledged_is_left_over(tmp_path: Path):
    """Kills at chance moments under a load of seals, discards, clones and records without a draft."""
    chance, base, kept = random.Random(11), tmp_path / "drafts", 0
    for _ in range(KILLS):
        # A round of the writer takes about 2 ms.
        kept += check(base, killed(base, chance.randrange(40), chance.uniform(0, 0.003)))
    assert kept > KILLS, "no kill hit a pending save"


def test_two_processes_do_not_share_a_directory(tmp_path: Path):
    """What a living process holds is not abandoned; it is the moment that the process has ended, however."""
    base = tmp_path / "drafts"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(base)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline().startswith("ready")
        assert Staging.abandoned(base) == []
        mine = Staging.fresh(base)
        assert Staging.abandoned(base) == []
        mine.close()
        writer.kill()
        writer.communicate()
    (left,) = Staging.abandoned(base)
    left.close()
