"""What answers mean: statuses, the messages of all known error shapes, JSON of the right type, and times."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifactfs import errors
from artifactfs.providers import answers
from artifactfs.providers.http import Reply


def reply(body: bytes, status: int = 200, content_type: str = "application/json") -> Reply:
    return Reply(status, {"content-type": content_type}, body, "http://x/y?secret=1")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.InvalidRequest),
        (401, errors.AccessDenied),
        (402, errors.QuotaExceeded),
        (403, errors.AccessDenied),
        (404, errors.NotFound),
        (405, errors.NotPermitted),
        (409, errors.Conflict),
        (410, errors.NotFound),
        (412, errors.Conflict),
        (413, errors.TooLarge),
        (418, errors.InvalidRequest),
        (422, errors.InvalidRequest),
        (429, errors.RateLimited),
        (500, errors.Unavailable),
        (501, errors.NotPermitted),
        (503, errors.Unavailable),
        (599, errors.Unavailable),
        (204, errors.ProviderMisbehaved),
        (304, errors.ProviderMisbehaved),
    ],
)
def test_a_status_is_an_error_of_one_kind(status: int, kind: type[errors.ArtifactFSError]) -> None:
    """The error carries source, subject, status and request id."""
    found = answers.refusal(status, {"x-request-id": "req_1"}, b'{"error":{"message":"no"}}', "work", "/v1/x")
    assert type(found) is kind
    assert (found.provider, found.subject, found.status, found.request_id) == ("work", "/v1/x", status, "req_1")
    assert str(found).startswith("no")


def test_a_404_that_explains_nothing_is_no_absence() -> None:
    """A wrong address must not look like an artifact that is gone."""
    kong = b'{"message":"no Route matched with those values"}'
    for body in (b"", b"<html>Not Found</html>", b"Not Found", b"[]", b"null", b"{}", kong):
        assert type(answers.refusal(404, {}, body, "work", "/x")) is errors.Unsupported
    with pytest.raises(errors.NotFound):
        answers.refuse(404, {}, b'{"detail":"Not Found"}', "work", "/x")


FIREWALL = b"<html><title>Access denied</title></html>"
DENIAL = b'{"error":{"message":"not for you","code":"FORBIDDEN"}}'


@pytest.mark.parametrize(
    ("status", "media_type", "body", "kind", "says"),
    [
        (403, "text/html; x=y", FIREWALL, errors.Barred, "what stands before the service refused (text/html) (403)"),
        (403, "", b"", errors.Barred, "what stands before the service refused (without an explanation) (403)"),
        (403, "application/json", b'{"message":"Forbidden"}', errors.Barred, "Forbidden (403)"),
        (401, "text/html", FIREWALL, errors.Barred, "what stands before the service refused (text/html) (401)"),
        (451, "text/html", FIREWALL, errors.Barred, "what stands before the service refused (text/html) (451)"),
        (401, "text/plain", b"", errors.AccessDenied, "the service gave no reason (401)"),
        (401, "application/json", b'{"message":"No API key found"}', errors.AccessDenied, "No API key found (401)"),
        (401, "application/json", DENIAL, errors.AccessDenied, "not for you (401)"),
        (403, "application/json", DENIAL, errors.AccessDenied, "not for you (403)"),
        (403, "text/html", DENIAL, errors.AccessDenied, "not for you (403)"),
        (403, "application/json", b'{"detail":"Invalid API Key"}', errors.AccessDenied, "Invalid API Key (403)"),
    ],
)  # fmt: skip
def test_a_denial_is_the_services_only_in_its_own_words(
    status: int, media_type: str, body: bytes, kind: type[errors.ArtifactFSError], says: str
) -> None:
    """A firewall's page, or a proxy's to sign in at, is not: the error says what came."""
    found = answers.refusal(status, {"content-type": media_type}, body, "work", "/x")
    assert type(found) is kind
    assert str(found) == says


@pytest.mark.parametrize("status", [404, 410])
@pytest.mark.parametrize("body", [b'{"detail":"Not Found"}', b'{"error":{"message":"no such thing"}}'])
def test_what_is_always_there_is_not_gone(status: int, body: bytes) -> None:
    with pytest.raises(errors.ProviderMisbehaved, match="does not find what it always has") as caught:
        answers.always_there(reply(body, status=status), "work", "/x")
    assert caught.value.status == status
    answers.always_there(reply(body, status=403), "work", "/x")
    answers.always_there(reply(b"[]"), "work", "/x")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": {"message": "gone", "code": "x"}}, "gone"),
        ({"error": "plain"}, "plain"),
        ({"detail": "text"}, "text"),
        ({"detail": [{"loc": ["body", "limit"], "msg": "too large"}]}, "body.limit: too large"),
        ({"detail": {"message": "inner"}}, "inner"),
        ({"message": "top"}, "top"),
        ({"error": {"message": {"message": {"message": {"message": "deep"}}}}}, ""),
        ({"error": 7}, ""),
        ({}, ""),
    ],
)
def test_messages_are_found_in_all_known_shapes(body: object, message: str) -> None:
    """VM0's envelope, FastAPI's details, and shapes near them."""
    assert answers.message_of(json.dumps(body).encode()) == message


def test_messages_of_object_stores_are_found() -> None:
    """S3's XML says a code and a sentence."""
    xml = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
    assert answers.message_of(xml) == "AccessDenied: Request has expired"


def test_messages_are_safe_to_print() -> None:
    """Cut to 300 characters, without escape sequences, line breaks, bidi controls or lone surrogates."""
    said = answers.message_of(json.dumps({"error": {"message": "a\x1b[31m\n\u202eb\ud800 " + "x" * 1000}}).encode())
    assert len(said) == 300
    assert said.isprintable()
    assert said.startswith("a [31m b x")


@given(st.binary(max_size=200), st.integers(100, 599))
def test_no_body_breaks_the_reading_of_an_error(body: bytes, status: int) -> None:
    """Whatever comes, what is made of it is an error of ours."""
    assert isinstance(answers.refusal(status, {}, body, "work", "/x"), errors.ArtifactFSError)


@pytest.mark.parametrize("body", [b"[" * 200_000, b"\xff\xfe", b'{"error":' * 50_000, b"9" * 10_000, b"NaN"])
def test_hostile_json_is_an_error_too(body: bytes) -> None:
    """Nesting deeper than the parser goes, broken text, huge numbers."""
    assert isinstance(answers.refusal(500, {}, body, "work", "/x"), errors.Unavailable)
    with pytest.raises(errors.ProviderMisbehaved):
        answers.json_object(reply(body))


@pytest.mark.parametrize(
    "body", [b'{"data": [{"id": "x"}], "data": []}', b'{"data": [{"id": "x", "id": "y"}]}', b'{"a": 1, "\\u0061": 1}']
)
def test_json_with_a_key_twice_is_misbehaviour(body: bytes) -> None:
    """A parser that takes the last one would show an empty list where another shows what is in the first."""
    with pytest.raises(errors.ProviderMisbehaved, match="a key twice"):
        answers.json_object(reply(body))


def test_retry_after_is_carried() -> None:
    """In seconds; anything else counts as not said."""
    for value, seconds in (("7", 7.0), ("", None), ("soon", None), ("²", None), ("9" * 400, None)):
        found = answers.refusal(429, {"retry-after": value}, b"{}", "work", "/x")
        assert isinstance(found, errors.RateLimited)
        assert found.retry_after_s == seconds


def test_json_of_the_wrong_kind_is_misbehaviour() -> None:
    """HTML with 200, 204, an empty body, an array for an object and the other way round."""
    for wrong in (
        reply(b"<html></html>", content_type="text/html"),
        reply(b"", status=204),
        reply(b"{}", status=206),
        reply(b"  "),
        reply(b"[]"),
        reply(b"null"),
    ):
        with pytest.raises(errors.ProviderMisbehaved) as caught:
            answers.json_object(wrong, "work", "/x")
        assert "secret" not in str(caught.value) + caught.value.subject
    with pytest.raises(errors.ProviderMisbehaved):
        answers.json_array(reply(b"{}"))
    assert answers.json_array(reply(b"[1]")) == [1]


def test_json_of_a_refusal_is_the_refusal() -> None:
    """The status is looked at before the body."""
    with pytest.raises(errors.AccessDenied, match="who are you"):
        answers.json_object(reply(b'{"error":{"message":"who are you"}}', status=401))


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("2026-02-03T08:00:00.000Z", 1_770_105_600 * 10**9),
        ("2026-02-03t08:00:00z", 1_770_105_600 * 10**9),
        ("2026-02-03 08:00:00", 1_770_105_600 * 10**9),
        ("2026-02-03 08:00:00 UTC", 1_770_105_600 * 10**9),
        ("2026-02-03T10:00:00+02:00", 1_770_105_600 * 10**9),
        ("2026-02-03T10:00:00+0200", 1_770_105_600 * 10**9),
        ("2026-02-03T06:30:00-01:30", 1_770_105_600 * 10**9),
        ("2026-02-03T08:00Z", 1_770_105_600 * 10**9),
        ("2026-02-03", 1_770_076_800 * 10**9),
        ("2026-02-03T08:00:00.123456789123Z", 1_770_105_600 * 10**9 + 123_456_789),
        ("1969-12-31T23:59:59.5Z", -(10**9) // 2),
    ],
)
def test_times_are_read_to_the_nanosecond(text: str, ns: int) -> None:
    """In every form the services write."""
    assert answers.parse_time_ns(text) == ns


@pytest.mark.parametrize(
    "value",
    [None, 7, 7.5, True, [], {}, "", "yesterday", "2026-13-01", "2026-02-30", "2026-02-03T25:00:00Z", "9999-12-31",
     "0001-01-01", "2026-02-03T08:00:61Z", "2026-02-03T08:00:00Zx", "٢٠٢٦-٠٢-٠٣", "2026-02-03T08:00:00." + "1" * 999],
)  # fmt: skip
def test_what_is_no_time_is_none(value: object) -> None:
    """Never an error, and never a number that does not fit 64 bits."""
    assert answers.parse_time_ns(value) is None


@given(st.text(max_size=40))
def test_no_text_breaks_the_reading_of_a_time(text: str) -> None:
    """Any text is a time or is none."""
    found = answers.parse_time_ns(text)
    assert found is None or abs(found) < 2**63


@given(st.datetimes())
def test_isoformat_is_read_back(at: object) -> None:
    """What Python writes is read, within the years that fit."""
    text = str(at)
    found = answers.parse_time_ns(text)
    year = int(text[:4])
    assert (found is not None) == (1678 <= year < 2262) or year in {1677, 2262}
