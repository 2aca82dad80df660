"""Titles through the kernel: what each service may list, under names that lead back; and names that people give."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from artifactfs.providers.vlmrun import names as vlmrun_names
from artifactfs.tree import names
from tests.support import demo_tree, titles
from tests.support.at_store import AtStore
from tests.support.awkward import Served
from tests.support.lab import Lab, Mounted, mounted, service_source

pytestmark = pytest.mark.fuse

PLACES = {"vm0": "artifacts", "syntropic137": "wf-1", "vlmrun": "files"}
SUFFIX = {"vm0": "", "syntropic137": "", "vlmrun": "/v1"}
# Names of the tree's own among what is listed.
OWN = {b"by-id", b".artifacts"}


def described(title: str) -> str:
    """The title as an attribute or JSON can say it."""
    return title.encode("utf-8", "backslashreplace").decode()


def shown(place: Path) -> dict[str, bytes]:
    """Return the path below ``place`` of every artifact by its id, as a walk finds them."""
    found: dict[str, bytes] = {}
    todo = [b""]
    while todo:
        here = todo.pop()
        for name in os.listdir(os.path.join(os.fsencode(place), here)):
            if not here and name in OWN:
                continue
            assert 1 <= len(name) <= 255
            assert not {0, 47} & set(name)
            assert name.decode("utf-8") not in {".", ".."}
            path = os.path.join(here, name)
            where = os.path.join(os.fsencode(place), path)
            attributes = {key: os.getxattr(where, key, follow_symlinks=False) for key in os.listxattr(where)}
            identifier = attributes.get("user.artifactfs.id", b"").decode()
            if identifier:
                assert identifier not in found, "one artifact has two names"
                found[identifier] = path
            else:
                todo.append(path)
    return found


@pytest.mark.parametrize("service", list(PLACES))
def test_every_title_is_listed_once_and_leads_to_its_artifact(service: str, tmp_path: Path) -> None:
    """Whatever the order and the pages; the title itself stands in the attributes and in artifact.json."""
    by_id = titles.ids(titles.sample())
    chance = random.Random(5)
    seen = []
    for number, page in enumerate((1000, 37)):
        order = list(by_id.items())
        chance.shuffle(order)
        app = titles.Listing(dict(order), page if service == "vm0" else 1000).app(service)
        with (
            Served(app) as served,
            mounted(
                tmp_path / str(number),
                {service: service_source(service, served.url + SUFFIX[service])},
                extra_config="[mount]\nxattrs = true\n",
            ) as mount,
        ):
            place = mount.path / PLACES[service]
            found = shown(place)
            assert found.keys() == by_id.keys()
            assert len(set(found.values())) == len(found)
            for identifier, title in by_id.items():
                check(service, place, found[identifier], title)
            for identifier in list(by_id)[:: len(by_id) // 7]:
                facts = json.loads((place / identifier / "artifact.json").read_text())
                assert facts["id"] == identifier
                title = by_id[identifier]
                assert facts["path"][-1] == (told(service, title)[-1] if title or service != "vlmrun" else identifier)
            assert os.statvfs(place).f_namemax == 255
            with pytest.raises(OSError, match="File name too long"):
                os.stat(place / ("n" * 256))
            seen.append(found)
    assert seen[0] == seen[1]


def told(service: str, title: str) -> tuple[str, ...]:
    """The path that a service's own word for a title is: VLM Run's filenames may be paths."""
    return vlmrun_names.path_of(title) if service == "vlmrun" and title else (title,)


def check(service: str, place: Path, path: bytes, title: str) -> None:
    where = os.path.join(os.fsencode(place), path)
    assert os.path.lexists(where)
    if title:  # some services have no empty titles, and say something else in their place
        raw = os.getxattr(where, "user.artifactfs.title").decode()
        assert raw in {described(part) for part in (told(service, title)[-1], title)}
    name = os.path.basename(path).decode()
    # Nothing that a terminal obeys.
    assert all(c.isprintable() or c in "\u2028\u2029\u200b\ufeff\u00a0\u3000" or not 0 <= ord(c) < 0xA0 for c in name)


# -- names that people give ------------------------------------------------------------------------------------

GIVEN = (
    " lead.md", "Caf\u00e9.md", "Cafe\u0301.md", "100%.md", "%2e%2e%2f.md", "^2f.md", "x^y.md", "a\uff0fb.md",
    "\u65e5\u672c\u8a9e.md",
    "\U0001f468\u200d\U0001f469.md", "-rf.md", "UPPER.md", "upper.md", "\ufb01le.md", "n" * 252 + ".md",
    "\u65e5" * 84 + ".md", "a;b.md",
    "con.md", ".env.md", "\u2066x\u2069.md", "noextension", "two  spaces.md", "tilde~x.md", "$HOME.md", "...md",
)  # fmt: skip
REFUSED = {
    "trail ": "EILSEQ", "a\nb": "EILSEQ", "\x1b[31m": "EILSEQ", "\u202egpj.exe": "EILSEQ", "^2F.md": "EILSEQ",
    "^empty": "EILSEQ",
    "\x7f": "EILSEQ", "\u3000": "EILSEQ", "n" * 256: "ENAMETOOLONG", "\u65e5" * 86: "ENAMETOOLONG",
    "n" * 1000: "ENAMETOOLONG",
}  # fmt: skip


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Mounted, Lab]]:
    """All four sources in one mount, with a place to write at each."""
    from artifactfs.store.catalog import Store
    from artifactfs.store.rows import TreeFile

    with Lab(Store(tmp_path_factory.mktemp("lab") / "store")) as lab:
        for workflow in ("of-local", "of-syntropic137"):
            lab.store.add_workflow(workflow)
        of_vm0 = lab.store.add_workflow("of-vm0")
        tree = lab.store.add_artifact(of_vm0.id, "a-tree", "tree")
        data = b"first"
        lab.store.save_tree(tree.id, [TreeFile("first", lab.store.objects.put(data), len(data))])
        with mounted(tmp_path_factory.mktemp("desk"), demo_tree.sources(lab), "--all") as mount:
            yield mount, lab


AT = {
    "local": "local/of-local", "syntropic137": "syntropic137/of-syntropic137", "vm0": "vm0/artifacts/a-tree",
    "vlmrun": "vlmrun/files",
}  # fmt: skip


@pytest.mark.parametrize("service", list(AT))
def test_a_file_is_sent_under_exactly_the_name_it_was_given(desk: tuple[Mounted, Lab], service: str) -> None:
    """Nothing trimmed, folded or decoded, in the listing and at the service."""
    mount, lab = desk
    place = mount.path / AT[service]
    for number, name in enumerate(GIVEN):
        (place / name).write_text(f"{number}\n")
    names_here = set(os.listdir(os.fsencode(place)))
    assert {name.encode() for name in GIVEN} <= names_here
    mount.artifactfs("flush", str(place), timeout=100)
    store = AtStore(lab.store)
    if service == "vlmrun":
        there = {file.path for file in store.uploads()}
    else:
        there = {file.path.removeprefix("a-tree/") for file in store.files(f"of-{service}") if file.now}
    assert set(GIVEN) <= there
    assert there - set(GIVEN) <= {"first"}
    assert set(os.listdir(os.fsencode(place))) >= {name.encode() for name in GIVEN}


@pytest.mark.parametrize("service", list(AT))
def test_a_name_that_would_not_come_back_is_refused(desk: tuple[Mounted, Lab], service: str) -> None:
    """At once, in words; and nothing is left of the try."""
    import errno

    mount, _ = desk
    place = mount.path / AT[service]
    before = set(os.listdir(place))
    for name, wanted in REFUSED.items():
        with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is looked at
            (place / name).write_text("x")
        assert errno.errorcode[caught.value.errno or 0] == wanted, ascii(name)
        assert names.encode(name) != name
    for raw in (b"\xff", b"caf\xe9.md"):
        with pytest.raises(OSError):  # noqa: PT011 - which one depends on the service
            os.open(os.path.join(os.fsencode(place), raw), os.O_CREAT | os.O_WRONLY)
    assert set(os.listdir(place)) == before
