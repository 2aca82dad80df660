"""What holds for every test: no FUSE where it is needed, a leak, or an unannounced warning is a failure."""

from collections.abc import Iterator

import hypothesis
import pytest

from tests.support import fuse_check, leaks
from tests.support.log_guard import LogGuard

# Deadlines would measure how busy the machine is; pytest-timeout catches what hangs.
hypothesis.settings.register_profile("artifactfs", deadline=None)
hypothesis.settings.load_profile("artifactfs")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test that mounts fails where it cannot; `-m 'not fuse'` is the way to leave such tests out."""
    if item.get_closest_marker("fuse") and (missing := fuse_check.missing()):
        pytest.fail("this test mounts for real, but " + "; ".join(missing), pytrace=False)


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_left_behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    directory = tmp_path_factory.getbasetemp().resolve()
    mark = leaks.mark_session()
    yield
    if left := leaks.find(directory, mark):
        leaks.remove(directory, mark)
        pytest.fail("the tests left behind:\n" + "\n".join(left), pytrace=False)


@pytest.fixture(autouse=True)
def expected_logs() -> Iterator[LogGuard]:
    """Announce warnings: `expected_logs("gave up after", logger="artifactfs.journal", level=logging.ERROR)`.

    Set up before and torn down after all other fixtures of the test, so what those log counts too.
    """
    with LogGuard() as guard:
        yield guard
    if unannounced := guard.unannounced():
        pytest.fail("logged, but not announced by the test:\n" + "\n".join(unannounced), pytrace=False)
