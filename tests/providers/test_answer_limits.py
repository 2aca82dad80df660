"""What an answer may cost: each limit is named in the error, as a person may set it, and obeyed where it is set."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from artifactfs import config, errors, observe
from artifactfs.model.entry import Folder
from artifactfs.model.limits import ANSWERS, AnswerLimits, Bounds, Limits, named
from artifactfs.providers import messages, registry
from artifactfs.providers.messages import Reply, StreamReply, is_deeper
from tests.contract.worlds import Kept
from tests.support.serving import serving

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


def depth_of(value: object) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth_of, inner), default=0)


def reply(body: bytes, limits: AnswerLimits = ANSWERS) -> Reply:
    return Reply(200, {"content-type": "application/json"}, body, "http://x/y?secret=1", limits)


@given(JSON, st.integers(1, 8))
@example([[]], 1)
@example({"a": [1, {"b": {}}]}, 3)
def test_depth_is_that_of_lists_and_objects(value: object, most: int) -> None:
    """Text with brackets counts for nothing; what is refused says which limit, what is not is the value."""
    assert is_deeper(value, most) == (depth_of(value) > most)
    body = json.dumps(value).encode()
    if depth_of(value) <= most:
        # By its text: NaN is not equal to itself.
        assert repr(reply(body, AnswerLimits(max_json_depth=most)).json()) == repr(json.loads(body))
        return
    with pytest.raises(errors.ProviderMisbehaved, match=rf"deeper than limits\.max-json-depth = {most}\b"):
        reply(body, AnswerLimits(max_json_depth=most)).json()


@pytest.mark.parametrize(
    "body", [b"[" * 10_000 + b"]" * 10_000, b'{"a":' * 10_000 + b"1" + b"}" * 10_000, b"[" * 10**5]
)
def test_ten_thousand_levels_are_refused_by_name(body: bytes) -> None:
    """Also where it is the parser that gives up first."""
    with pytest.raises(errors.ProviderMisbehaved, match=r"limits\.max-json-depth = 950"):
        reply(body).json()


def test_values_are_counted_outside_of_text() -> None:
    """One too many is refused by name; commas and brackets in strings are none."""
    limits = AnswerLimits(max_values=10)
    assert reply(json.dumps(["[,{" * 100] * 4).encode(), limits).json() == ["[,{" * 100] * 4
    with pytest.raises(errors.ProviderMisbehaved, match=r"more values than limits\.max-values = 10"):
        reply(json.dumps(list(range(20))).encode(), limits).json()


@given(st.binary(max_size=80))
def test_any_bytes_are_json_or_an_error_of_ours(body: bytes) -> None:
    with contextlib.suppress(errors.ProviderMisbehaved):
        reply(body).json()


# -- headers -------------------------------------------------------------------------------------------------------


async def no_chunks() -> AsyncIterator[bytes]:
    return
    yield b""


@given(st.text(st.characters(max_codepoint=255), max_size=40) | st.integers(-1, 10**20).map(str))
@example("9223372036854775808")
@example("9999999999999999999")
@example("\u00b2")
def test_a_length_is_a_size_that_can_be_one(text: str) -> None:
    """In Content-Length, in both numbers of Content-Range, and in Retry-After: never beyond 63 bits, never an error."""
    found = messages.number(text)
    assert found is None or 0 <= found < 2**63
    headers = {"content-length": text, "content-range": f"bytes {text}-{text}/{text}", "retry-after": text}
    stream = StreamReply(206, headers, "http://x/", no_chunks())
    assert stream.length == found
    spans = stream.content_range()
    assert spans is None or all(value is None or 0 <= value < 2**63 for value in spans)
    wait_s = messages.retry_after_s(headers)
    assert wait_s is None or wait_s >= 0


@given(st.text(st.characters(max_codepoint=255), max_size=60))
@example("bytes 0-1/9223372036854775808")
@example("Wed, 21 Oct 9999999 07:28:00 GMT")
@example("Wed, 21 Oct 2015 07:28:00 +99999999999999")
@example("1 Jan 0 0:0:0")
def test_no_header_breaks_its_reader(text: str) -> None:
    """What does not parse is as if it were not there."""
    headers = {"content-length": text, "content-range": text, "retry-after": text}
    stream = StreamReply(206, headers, "http://x/", no_chunks())
    assert stream.length is None or stream.length >= 0
    assert stream.content_range() is None or stream.content_range()
    wait_s = messages.retry_after_s(headers)
    assert wait_s is None or wait_s >= 0


# -- from the configuration ----------------------------------------------------------------------------------------

GIVEN = """
max-output = "1MB"
max-archive = "2MB"
max-ratio = 7
max-entries = 3
max-depth = 4
max-paths = "5KB"
max-header = 600
max-gzip-members = 8
max-answer = "9KB"
max-values = 10
max-json-depth = 11
max-redirects = 1
max-file = 13
max-listing = 14
"""


def test_the_defaults_are_those_of_the_code() -> None:
    """One number, one place."""
    assert config.Config().limits.bounds() == Bounds()


def test_every_limit_can_be_set_and_is_named_as_it_is_set(tmp_path) -> None:
    """The key in the error is the key in the file."""
    path = tmp_path / "config.toml"
    path.write_text(f"[limits]{GIVEN}")
    bounds = config.load(path, {}).limits.bounds()
    fixed = {"ratio_floor", "max_name_bytes", "max_path_bytes"}  # costs nothing; Linux' own
    archives = [(bounds.archives, name) for name in Limits.__dataclass_fields__ if name not in fixed]
    told = {named(one, name) for one, name in archives}
    told |= {named(bounds.answers, name) for name in AnswerLimits.__dataclass_fields__}
    sizes = {'"1MB"': "1000000", '"2MB"': "2000000", '"5KB"': "5000", '"9KB"': "9000"}
    lines = (line.split(" = ") for line in GIVEN.strip().splitlines())
    assert told == {f"limits.{key} = {sizes.get(value, value)}" for key, value in lines}
    assert config.load(path, {"ARTIFACTFS_LIMITS_MAX_ENTRIES": "12"}).limits.max_entries == 12


async def around(request: Request) -> Response:
    return RedirectResponse(str(request.url.include_query_params(again="x" + request.query_params.get("again", ""))))


async def large(_request: Request) -> Response:
    return Response(b"[" + b"1," * 10_000 + b"1]", media_type="application/json")


@pytest.mark.parametrize(
    ("answer", "says"),
    [(around, "limits.max-redirects = 1"), (large, "limits.max-answer = 9000")],
    ids=["redirects", "size"],
)
@pytest.mark.parametrize("service", ["vm0", "syntropic137", "vlmrun"])
async def test_a_source_obeys_what_was_set(service: str, answer, says: str, tmp_path) -> None:
    """The whole way from the file to the error."""
    path = tmp_path / "config.toml"
    async with serving(Starlette(routes=[Route("/{path:path}", answer)])) as at:
        path.write_text(f'[limits]{GIVEN}\n[sources.work]\ntype = "{service}"\nurl = "{at.url}"\ntoken-env = "T"\n')
        settings = config.load(path, {})
        source = config.resolve(settings, "work", {"T": "secret"})
        provider = registry.create(source, Kept(), observe.Observer(), 5.0, settings.limits.bounds().answers)
        try:
            with pytest.raises(errors.ProviderMisbehaved) as caught:
                todo = [provider.root().ref]
                while ref := todo.pop():
                    entries = (await provider.list(ref, None)).entries
                    todo += [entry.ref for entry in entries if isinstance(entry, Folder)]
            assert says in str(caught.value)
        finally:
            await provider.aclose()
