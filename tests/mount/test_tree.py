"""The tree of design section 3 through the kernel: ids, versions, runs, names, attributes, .artifactfs."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import demo_tree
from tests.support.demo_tree import sha256
from tests.support.lab import Lab, Mounted, mounted

pytestmark = pytest.mark.fuse


@pytest.fixture(scope="module")
def demo(demo_lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    """One mount of the demo's four sources for all that only look."""
    with mounted(tmp_path_factory.mktemp("demo"), demo_tree.sources(demo_lab), names=demo_tree.SERVICES) as mount:
        yield mount


@dataclass(frozen=True)
class Known:
    """An artifact of the demo as one source shows it: where its workflow is, its id there, its newest bytes."""

    workflow: str
    id: str
    digests: frozenset[str]
    versions: int


def known(lab: Lab, service: str) -> Known:
    """Return an artifact of the demo, by what the store says."""
    store = lab.store
    names = {workflow.id: workflow.name for workflow in store.workflows()}
    if service in {"vm0", "local"}:
        tree = next(a for w in names for a in store.artifacts(w) if a.name == "site-report")
        digests = frozenset(file.sha256 for file in store.tree(tree.id, tree.current) if file.sha256)
        return (
            Known("vm0/artifacts", tree.uuid, digests, 5)
            if service == "vm0"
            else Known("local/site-audit", tree.id, digests, 5)
        )
    name = "audit.md" if service == "syntropic137" else "screenshots/home.jpg"
    one = next(a for w in names for a in store.artifacts(w) if a.name == name)
    version = store.version(one.id, one.current)
    assert version is not None
    assert version.sha256
    identifier = one.uuid if service == "syntropic137" else f"img_{one.id.removeprefix('art_')}"
    return Known(f"{service}/{names[one.workflow_id]}", identifier, frozenset({version.sha256}), 1)


@pytest.fixture(params=demo_tree.SERVICES)
def place(request: pytest.FixtureRequest, demo_lab: Lab) -> Known:
    return known(demo_lab, request.param)


def refusal(attempt: Callable[..., object], *arguments: object) -> int | None:
    """Return the errno with which a call fails, None if it does not."""
    try:
        attempt(*arguments)
    except OSError as error:
        return error.errno
    return None


# -- artifacts by id -------------------------------------------------------------------------------------------


def test_an_artifact_of_each_service_resolves_by_its_id(place: Known, demo: Mounted) -> None:
    """/<workflow>/<artifact id>/versions/vN holds the bytes the store has, and latest leads to the newest."""
    here = demo.path / place.workflow / place.id
    assert os.readlink(here) == f".artifacts/{place.id}"
    assert sorted(os.listdir(here)) == ["artifact.json", "latest", "versions"]
    versions = sorted(os.listdir(here / "versions"))
    assert versions == [f"v{number}" for number in range(1, place.versions + 1)]
    assert os.readlink(here / "latest") == f"versions/v{place.versions}"
    newest = demo_tree.read_tree(here / "versions" / versions[-1])
    assert {digest for digest, _ in newest.values()} == place.digests


def test_the_facts_stand_in_artifact_json(place: Known, demo: Mounted) -> None:
    """artifact.json is JSON with id, title, service, source, workflow, versions and the service's own answer."""
    facts = json.loads((demo.path / place.workflow / place.id / "artifact.json").read_text())
    service = place.workflow.split("/")[0]
    assert facts["id"] == place.id
    assert (facts["service"], facts["source"]) == (service, service)
    assert facts["title"] in {"site-report", "audit.md", "home.jpg"}
    assert facts["kind"] == ("tree" if facts["title"] == "site-report" else "file")
    assert facts["current_version"]
    assert facts["created_at"].endswith("Z")
    assert facts["metadata"]


def test_every_artifact_is_listed_by_its_id_and_nowhere_else(place: Known, demo: Mounted) -> None:
    """by-id shows all artifacts; the ids and .artifacts resolve without being listed in the workflow."""
    workflow = demo.path / place.workflow
    assert os.readlink(workflow / "by-id") == ".artifacts"
    ids = set(os.listdir(workflow / "by-id"))
    assert place.id in ids
    listed = set(os.listdir(workflow))
    assert not listed & {".artifacts", ".artifactfs", *ids}
    for identifier in sorted(ids)[:5]:
        said = json.loads((workflow / identifier / "artifact.json").read_text())["id"]
        assert said.replace("/", "^2F") == identifier  # VLM Run has ids that are paths
        assert os.path.samefile(workflow / identifier, workflow / ".artifacts" / identifier)


def test_by_id_shows_the_artifacts_of_every_run(demo: Mounted, demo_lab: Lab) -> None:
    """The local store's by-id of a workflow is exactly what the store has in it, over all its runs."""
    for workflow in demo_lab.store.workflows():
        wanted = {artifact.id for artifact in demo_lab.store.artifacts(workflow.id)}
        assert set(os.listdir(demo.path / "local" / workflow.name / "by-id")) == wanted


def test_an_id_of_another_workflow_does_not_resolve(demo: Mounted, demo_lab: Lab) -> None:
    """An artifact is found in its own workflow only, and an id that nobody has nowhere."""
    place = known(demo_lab, "syntropic137")
    for workflow, identifier in (
        ("syntropic137/product-docs", place.id), ("local/product-docs", known(demo_lab, "local").id),
        ("vm0/volumes", known(demo_lab, "vm0").id), ("local/product-docs", "art_000000"),
        ("vm0/artifacts", "00000000-0000-4000-8000-000000000000"),
    ):  # fmt: skip
        with pytest.raises(FileNotFoundError):
            os.stat(demo.path / workflow / identifier)


# -- versions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("service", ["vm0", "local"])
def test_version_ids_and_their_prefixes(service: str, demo: Mounted, demo_lab: Lab) -> None:
    """A version id and each prefix of at least 8 characters lead to its vN; shorter and unknown ones to nothing."""
    place = known(demo_lab, service)
    artifact = demo_lab.store.artifact(place.id)
    assert artifact is not None
    here = demo.path / place.workflow / place.id / "versions"
    for number, version in enumerate(demo_lab.store.versions(artifact.id), 1):
        assert os.readlink(here / version.id) == os.readlink(here / version.id[:8]) == f"v{number}"
        assert os.path.samefile(here / version.id[:12], here / f"v{number}")
        for name in (version.id[:7], version.id + "0", "0" * 64, "v99", "v0"):
            assert not (here / name).exists()
    assert sorted(os.listdir(here)) == ["v1", "v2", "v3", "v4", "v5"]


@pytest.mark.parametrize("service", ["vm0", "local"])
def test_diff_shows_exactly_the_change(service: str, demo: Mounted, demo_lab: Lab) -> None:
    """``diff -r versions/v1 versions/v2`` names the files that differ in the store, and no others."""
    place = known(demo_lab, service)
    artifact = demo_lab.store.artifact(place.id)
    assert artifact is not None
    v1, v2 = ({f.path: (f.sha256, f.target) for f in demo_lab.store.tree(artifact.id, seq)} for seq in (1, 2))
    here = f"{place.workflow}/{place.id}/versions"
    done = demo.run("diff", "-rq", f"{here}/v1", f"{here}/v2", check=False)
    assert done.returncode == 1
    said = set()
    for line in done.stdout.splitlines():
        if line.startswith("Only in "):
            where, _, name = line.removeprefix("Only in ").partition(": ")
            path = os.path.join(where, name)
        else:
            path = line.split()[1]
        said.add(path.removeprefix(f"{here}/")[len("v1/") :])
    wanted = {path for path in v1.keys() | v2.keys() if v1.get(path) != v2.get(path)}
    # diff follows links: one that leads to another file differs in what it shows.
    assert said == wanted
    text = demo.run("diff", f"{here}/v1/index.html", f"{here}/v2/index.html", check=False).stdout
    assert "\n< " in text
    assert "\n> " in text


def test_the_current_version_is_what_the_listed_tree_shows(demo: Mounted, demo_lab: Lab) -> None:
    """The listed tree and versions/<newest> have the same files and bytes."""
    place = known(demo_lab, "vm0")
    listed = demo_tree.read_tree(demo.path / place.workflow / "site-report")
    assert listed == demo_tree.read_tree(demo.path / place.workflow / place.id / "latest")
    assert os.readlink(demo.path / place.workflow / "site-report/data/latest.txt") == "2026-05-20.txt"


def test_the_past_is_read_only(demo: Mounted, place: Known) -> None:
    """Nothing can be made, changed or removed below versions: EROFS."""
    here = demo.path / place.workflow / place.id / "versions"
    file = next(path for path in sorted((here / "v1").rglob("*")) if path.is_file())
    attempts: tuple[tuple[Callable[..., object], tuple[object, ...]], ...] = (
        (file.open, ("r+b",)), ((here / "v1" / "new").touch, ()), ((here / "v9").mkdir, ()), (file.unlink, ()),
        (os.rename, (file, here / "v1" / "other")),
    )  # fmt: skip
    for attempt, arguments in attempts:
        assert refusal(attempt, *arguments) == errno.EROFS


# -- runs ------------------------------------------------------------------------------------------------------


def test_latest_leads_to_the_newest_run(demo: Mounted, demo_lab: Lab) -> None:
    """Where a service knows runs, latest is a link to the one that started last."""
    (workflow,) = (w for w in demo_lab.store.workflows() if w.name == "market-research")
    newest = max(demo_lab.store.runs(workflow.id), key=lambda run: run.started_at_ns)
    for service, name in (("local", newest.id), ("syntropic137", newest.id), ("vlmrun", newest.uuid)):
        assert os.readlink(demo.path / service / "market-research" / "latest") == name
        assert (demo.path / service / "market-research/latest/plan/plan.md").is_file()


def test_looking_into_a_run_leaves_its_workflow_as_it_is(demo: Mounted) -> None:
    """A listing made anew because somebody looked into a folder inside of it is still that of its own directory."""
    inside = demo.path / "local/market-research/latest/plan"
    # Its listings are believed for a second.
    done = demo.run(
        "sh", "-c", 'cd -P "$1" && ls && sleep 1.2 && ls && ls ../../by-id/ && ls ../../latest/', "sh", str(inside)
    )
    assert done.stdout.count("plan.md") == 2
    assert "art_" in done.stdout


# -- names that tools do not descend ---------------------------------------------------------------------------


def test_ids_are_listed_when_asked_for_and_recursion_stays_in_the_present(demo_lab: Lab, tmp_path: Path) -> None:
    """With --show-ids the workflow lists its ids as links; find, du and grep -r meet no file twice."""
    sources = demo_tree.sources(demo_lab)
    with mounted(tmp_path, sources, "--show-ids", names=("syntropic137", "local")) as mount:
        for workflow in ("syntropic137/product-docs", "local/product-docs"):
            listed = set(os.listdir(mount.path / workflow))
            ids = set(os.listdir(mount.path / workflow / "by-id"))
            assert ids
            assert ids <= listed
            assert all((mount.path / workflow / name).is_symlink() for name in ids)
            files = mount.run("find", workflow, "-type", "f").stdout.splitlines()
            assert len(files) == len(listed - ids - {"by-id"})
            matches = mount.run("grep", "-rl", "", workflow).stdout.splitlines()
            assert sorted(matches) == sorted(path for path in files if os.stat(mount.path / path).st_size)


# -- .artifactfs -----------------------------------------------------------------------------------------------


def test_the_state_of_the_mount_is_in_artifactfs(demo: Mounted) -> None:
    """.artifactfs is at the top only, not listed, and its files are what they say."""
    assert sorted(os.listdir(demo.path)) == sorted(demo_tree.SERVICES)
    here = demo.path / ".artifactfs"
    names = {"README", "status.json", "metrics", "listings", "errors", "progress", "pending"}
    assert set(os.listdir(here)) == names
    state = json.loads((here / "status.json").read_text())
    assert [source["name"] for source in state["sources"]] == list(demo_tree.SERVICES)
    assert "status.json" in (here / "README").read_text()
    assert 'artifactfs_requests_total{source="vm0"}' in (here / "metrics").read_text()
    assert (here / "pending").read_text() == ""
    assert demo.run("cat", ".artifactfs/errors").returncode == 0
    assert not (demo.path / "vm0/.artifactfs").exists()
    assert demo.run("wc", "-c", ".artifactfs/README").stdout.split()[0] == str(len((here / "README").read_bytes()))


def test_one_source_stands_at_the_root(demo_lab: Lab, tmp_path: Path) -> None:
    """One source mounted: its workflows are the top, with .artifactfs beside them, not listed."""
    with mounted(tmp_path, demo_tree.sources(demo_lab), names=("vm0",)) as mount:
        assert sorted(os.listdir(mount.path)) == ["artifacts", "volumes"]
        assert json.loads((mount.path / ".artifactfs/status.json").read_text())["sources"][0]["name"] == "vm0"
        assert (mount.path / "volumes/reference-catalogue/README.md").is_file()


# -- attributes ------------------------------------------------------------------------------------------------


def test_modes_and_owner(demo: Mounted) -> None:
    """0644 or 0755 by the x bit, 0755 for directories, the mounting user's, nothing more."""
    tree = demo.path / "vm0/artifacts/site-report"
    modes = {name: stat.filemode(os.lstat(tree / name).st_mode) for name in ("index.html", "serve.sh", "data")}
    assert modes == {"index.html": "-rw-r--r--", "serve.sh": "-rwxr-xr-x", "data": "drwxr-xr-x"}
    assert stat.filemode(os.stat(demo.path / "local/product-docs/deploy-check.sh").st_mode) == "-rwxr-xr-x"
    found = os.stat(tree / "index.html")
    assert (found.st_uid, found.st_gid) == (os.getuid(), os.getgid())
    with pytest.raises(PermissionError):  # noexec
        os.execve(tree / "serve.sh", ["serve.sh"], {})


def test_umask_masks_the_modes(demo_lab: Lab, tmp_path: Path) -> None:
    """A mount made under umask 077 shows nothing to others."""
    before = os.umask(0o077)
    try:
        with mounted(tmp_path, demo_tree.sources(demo_lab), names=("local",)) as mount:
            assert stat.filemode(os.stat(mount.path / "product-docs").st_mode) == "drwx------"
            assert stat.filemode(os.stat(mount.path / "product-docs/VERSION").st_mode) == "-rw-------"
            assert stat.filemode(os.stat(mount.path / "product-docs/deploy-check.sh").st_mode) == "-rwx------"
    finally:
        os.umask(before)


def test_statfs_says_how_long_names_may_be(demo: Mounted) -> None:
    """f_namemax is 255, and longer names are ENAMETOOLONG."""
    assert os.statvfs(demo.path).f_namemax == 255
    assert refusal(os.stat, demo.path / ("x" * 256)) == errno.ENAMETOOLONG


def test_without_xattrs_there_are_none(demo: Mounted) -> None:
    """Not implemented, so that the kernel stops asking: ENOTSUP."""
    path = demo.path / "local/product-docs/VERSION"
    assert refusal(os.getxattr, path, "user.artifactfs.id") == errno.ENOTSUP
    assert refusal(os.listxattr, path) == errno.ENOTSUP


def test_xattrs_say_what_a_file_is(demo_lab: Lab, tmp_path: Path) -> None:
    """With --xattrs the facts are attributes, in every service; an unknown one is ENODATA, none can be set."""
    services = {
        "vm0": "artifacts/site-report/index.html", "local": "site-audit/site-report/index.html",
        "syntropic137": "site-audit/latest/write/audit.md", "vlmrun": "site-audit/latest/write/audit.md",
    }  # fmt: skip
    with mounted(tmp_path, demo_tree.sources(demo_lab), "--xattrs", names=demo_tree.SERVICES) as mount:
        for service, path in services.items():
            file = mount.path / service / path
            facts = {name: os.getxattr(file, name).decode() for name in os.listxattr(file)}
            assert facts["user.artifactfs.service"] == service
            assert facts["user.artifactfs.title"] in {"site-report", "audit.md"}
            assert {f"user.artifactfs.{name}" for name in ("id", "version", "created-at", "state")} <= facts.keys()
            assert facts["user.artifactfs.state"] == "synced"
            assert refusal(os.getxattr, file, "user.artifactfs.nothing") == errno.ENODATA
            assert refusal(os.setxattr, file, "user.artifactfs.id", b"x") in {errno.EPERM, errno.EROFS}
        plain = mount.path / "local/product-docs/VERSION"
        assert os.getxattr(plain, "user.artifactfs.sha256").decode() == sha256(b"0.6.0\n")
