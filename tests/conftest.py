"""What holds for every test: no FUSE where it is needed, a leak, or an unannounced warning is a failure."""

import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.support import fuse_check, leaks
from tests.support.log_guard import LogGuard

# Deadlines would measure how busy the machine is; pytest-timeout catches what hangs.
hypothesis.settings.register_profile("artifactfs", deadline=None)
hypothesis.settings.load_profile("artifactfs")

# A shell that starts the tests in the background has them, and all that they start, ignore these.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)

OPEN: list[leaks.Held] = []
# Whose modules leave no descriptor and no thread behind. What others open is mostly a server's or a cache's, which they
# leave to the garbage collector.
WATCHED = (
    "unit/journal/", "unit/tree/", "unit/leaking_", "unit/test_", "unit/content/", "vfs/", "store/", "fuse/", "server/",
)  # fmt: skip


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test that mounts fails where it cannot; `-m 'not fuse'` is the way to leave such tests out."""
    if item.get_closest_marker("fuse") and (missing := fuse_check.missing()):
        pytest.fail("this test mounts for real, but " + "; ".join(missing), pytrace=False)


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_left_behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    directory = tmp_path_factory.getbasetemp().resolve()
    mark = leaks.mark_session()
    temporary = tmp_path_factory.mktemp("t")
    with pytest.MonkeyPatch.context() as patched:
        # Also for the processes that tests start: what they leave is found, and is not somebody else's.
        patched.setenv("TMPDIR", str(temporary))
        patched.setattr("tempfile.tempdir", None)
        yield
    if left := leaks.find(directory, mark, temporary):
        leaks.remove(directory, mark)
        pytest.fail("the tests left behind:\n" + "\n".join(left), pytrace=False)


@pytest.fixture(scope="module", autouse=True)
def _nothing_stays_open(_nothing_is_left_behind: None, request: pytest.FixtureRequest) -> Iterator[None]:
    """By module: to look costs as long as many a test takes."""
    OPEN[:] = [leaks.Held()]
    yield
    is_watched = request.path.relative_to(Path(__file__).parent).as_posix().startswith(WATCHED)
    if is_watched and (left := OPEN[0].more()):
        pytest.fail("the tests of this module left open:\n" + "\n".join(left), pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[object]) -> Generator[None, object, object]:
    """What a fixture of the session opens is open on purpose, to its end."""
    before = leaks.Held() if fixturedef.scope == "session" else None
    made = yield
    if before is not None:
        for held in OPEN:
            held.keep(before)
    return made


@pytest.fixture(autouse=True)
def expected_logs() -> Iterator[LogGuard]:
    """Announce warnings: `expected_logs("gave up after", logger="artifactfs.journal", level=logging.ERROR)`.

    Set up before and torn down after all other fixtures of the test, so what those log counts too.
    """
    with LogGuard() as guard:
        yield guard
    if unannounced := guard.unannounced():
        pytest.fail("logged, but not announced by the test:\n" + "\n".join(unannounced), pytrace=False)
