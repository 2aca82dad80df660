"""One demo, served once for all tests that only read it; mounts are made by each module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from artifactfs.store import demo
from artifactfs.store.catalog import Store
from tests.support.lab import Lab


@pytest.fixture(scope="session")
def demo_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The demo's store behind real HTTP; nobody may change it."""
    store = Store(tmp_path_factory.mktemp("demo") / "store")
    demo.fill(store)
    with Lab(store) as lab:
        yield lab


@pytest.fixture
def own_demo(demo_lab: Lab) -> Iterator[Lab]:
    """The demo's store on a server of the test's own, to be disturbed and counted."""
    with Lab(Store(demo_lab.store.root)) as made:
        yield made


@pytest.fixture
def lab(tmp_path: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """An empty store of the test's own behind real HTTP."""
    with Lab(Store(tmp_path_factory.mktemp("lab") / "store")) as made:
        yield made
