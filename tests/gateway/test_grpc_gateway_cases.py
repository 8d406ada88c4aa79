"""How an HTTP call becomes a request and a message an answer: the table of cases.

What grpc-gateway v2 does is what is expected, but for the cases under STRICTER, in which it takes
a call for something else than its sender may have meant, and ours says so (docs/rest.md has them).
"""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st

from services.gateway.json_answers import dumped, to_json
from services.gateway.transcode import build, find
from services.mesh.errors import PvcError
from tests.gateway.everything import routes, thing

ALIKE: list[tuple[str, str, dict[str, Any]]] = [
    # Paths. A variable of one "*" is decoded whole; one of several segments keeps its %2F.
    ("GET /t/things/a", "", {"name": "things/a"}),
    ("GET /t/things/a%2Fb", "", {"name": "things/a%2Fb"}),
    ("GET /t/things/a%2fb", "", {"name": "things/a%2fb"}),
    ("GET /t/things/%25%2F", "", {"name": "things/%%2F"}),
    ("GET /t/ones/a%2Fb", "", {"name": "a/b"}),
    ("GET /t/ones/a%252Fb", "", {"name": "a%2Fb"}),
    ("GET /t/shelves/1/things/x%20y", "", {"name": "shelves/1/things/x y"}),
    ("GET /t/things/%C3%A4%F0%9F%90%A7", "", {"name": "things/ä🐧"}),
    ("GET /t/things/a+b", "", {"name": "things/a+b"}),
    ("GET /t/things/a:b:c", "", {}),
    ("GET /t/things/a%3Ab", "", {"name": "things/a:b"}),
    ("GET /t/deep/a/b%2Fc/d:dive", "", {"name": "deep/a/b%2Fc/d"}),
    ("GET /t/deep:dive", "", {"name": "deep"}),
    ("GET /t/things:find", "", {}),
    ("REPORT /t/things", "", {}),
    ("GET /t/numbers/-9223372036854775808/true", "", {"i64": "-9223372036854775808", "flag": True}),
    ("GET /t/kinds/KIND_LARGE", "", {"kind": "KIND_LARGE"}),
    ("GET /t/kinds/2", "", {"kind": "KIND_LARGE"}),
    ("GET /t/wrapped/7", "", {"wrapped_int": "7"}),
    ("GET /t/times/2026-11-20T16:00:00Z", "", {}),
    ("GET /t/times/2026-11-20T16%3A00%3A00Z", "", {"time": "2026-11-20T16:00:00Z"}),
    ("GET /t/inner/a/b", "", {"inner": {"text": "a", "inner": {"text": "b"}}}),
    # Queries: JSON's names and the contract's, nested, repeated, maps, wrappers, well-known types.
    ("GET /t/things?i32=-5&i64=9007199254740993&u64=18446744073709551615", "",
     {"i32": -5, "i64": "9007199254740993", "u64": "18446744073709551615"}),
    *[(f"GET /t/things?flag={word}", "", {"flag": True})
       for word in ("1", "t", "T", "TRUE", "true", "True")],
    *[(f"GET /t/things?flag={word}", "", {})
       for word in ("0", "f", "F", "FALSE", "false", "False")],
    ("GET /t/things?real=1e3", "", {"real": 1000.0}),
    ("GET /t/things?real=NaN", "", {"real": "NaN"}),
    ("GET /t/things?blob=_-8%3D", "", {"blob": "/+8="}),
    ("GET /t/things?blob=/%2B8", "", {"blob": "/+8="}),
    ("GET /t/things?kind=KIND_SMALL", "", {"kind": "KIND_SMALL"}),
    ("GET /t/things?kind=1", "", {"kind": "KIND_SMALL"}),
    ("GET /t/things?kinds=KIND_SMALL&kinds=2", "", {"kinds": ["KIND_SMALL", "KIND_LARGE"]}),
    ("GET /t/things?texts=a&texts=&texts=a%2Cb", "", {"texts": ["a", "", "a,b"]}),
    ("GET /t/things?numbers=1&numbers=-1", "", {"numbers": ["1", "-1"]}),
    ("GET /t/things?times=2026-01-01T00:00:00Z&times=2027-01-01T00:00:00Z", "",
     {"times": ["2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"]}),
    ("GET /t/things?inner.inner.number=3&inner.text=x&inner.texts=a&inner.texts=b", "",
     {"inner": {"inner": {"number": 3}, "text": "x", "texts": ["a", "b"]}}),
    ("GET /t/things?labels[a]=1&labels[b.c]=x%20y&labels[%C3%A4]=", "",
     {"labels": {"a": "1", "b.c": "x y", "ä": ""}}),
    ("GET /t/things?switches[-3]=true", "", {"switches": {"-3": True}}),
    ("GET /t/things?maybe=0", "", {"maybe": 0}),
    ("GET /t/things?wrappedInt=0&wrapped_flag=false&wrappedText=&wrappedReal=1.5", "",
     {"wrapped_int": "0", "wrapped_flag": False, "wrapped_text": "", "wrapped_real": 1.5}),
    ("GET /t/things?wrappedBlob=aGk", "", {"wrapped_blob": "aGk="}),
    ("GET /t/things?time=2026-11-20T17:00:00.5%2B01:00", "", {"time": "2026-11-20T16:00:00.500Z"}),
    ("GET /t/things?span=-1.5s", "", {"span": "-1.500s"}),
    ("GET /t/things?mask=name,inner.text", "", {"mask": "name,inner.text"}),
    ("GET /t/things?struct=%7B%22a%22:1%7D&value=%5B1%5D", "",
     {"struct": {"a": 1.0}, "value": [1.0]}),
    ("GET /t/things?right=5", "", {"right": "5"}),
    ("GET /t/things?middle.text=a&middle.number=1", "", {"middle": {"text": "a", "number": 1}}),
    ("GET /t/things?odd_name=a", "", {"odd_name": "a"}),
    ("GET /t/things?strange=a", "", {"odd_name": "a"}),
    ("GET /t/things?name=a&", "", {"name": "a"}),
    ("GET /t/things?name=", "", {}),
    ("DELETE /t/things/a?flag=true", "", {"name": "things/a", "flag": True}),
    # Bodies.
    ("POST /t/things", "", {}),
    ("POST /t/things", " \n", {}),
    ("POST /t/things", '{"i32":"5","i64":5,"u64":"7","i32":null}', {}),
    ("POST /t/things", '{"i32":"5","i64":5,"u64":"7"}', {"i32": 5, "i64": "5", "u64": "7"}),
    ("POST /t/things", '{"i32":1.0,"i64":1e2}', {"i32": 1, "i64": "100"}),
    ("POST /t/things", '{"kind":"KIND_LARGE","kinds":[1,"KIND_LARGE"]}',
     {"kind": "KIND_LARGE", "kinds": ["KIND_SMALL", "KIND_LARGE"]}),
    ("POST /t/things", '{"kind":7}', {"kind": 7}),
    ("POST /t/things", '{"blob":"_-8"}', {"blob": "/+8="}),
    ("POST /t/things", '{"blob":"/+8="}', {"blob": "/+8="}),
    ("POST /t/things", '{"real":"Infinity","small_real":-0.5}',
     {"real": "Infinity", "small_real": -0.5}),
    ("POST /t/things", '{"time":"2026-11-20T17:00:00.123456789+01:00","span":"3.000000001s"}',
     {"time": "2026-11-20T16:00:00.123456789Z", "span": "3.000000001s"}),
    ("POST /t/things", '{"wrappedInt":"5","wrappedFlag":false,"wrappedText":null}',
     {"wrapped_int": "5", "wrapped_flag": False}),
    ("POST /t/things", '{"labels":{"a":"b"},"switches":{"1":true},"named":{"x":{"number":1}}}',
     {"labels": {"a": "b"}, "switches": {"1": True}, "named": {"x": {"number": 1}}}),
    ("POST /t/things", '{"struct":{"a":[1,null]},"value":"v"}',
     {"struct": {"a": [1.0, None]}, "value": "v"}),
    ("POST /t/things",
     '{"any":{"@type":"type.googleapis.com/google.protobuf.Duration","value":"1s"}}',
     {"any": {"@type": "type.googleapis.com/google.protobuf.Duration", "value": "1s"}}),
    ("POST /t/things", '{"left":"a"}', {"left": "a"}),
    ("POST /t/things", '{"left":null,"right":"1"}', {"right": "1"}),
    ("POST /t/things", '{"maybe":0,"strange":"a"}', {"maybe": 0, "odd_name": "a"}),
    ("POST /t/things", '{"inners":[{"text":"a"},{}],"mask":"inner.text,oddName"}',
     {"inners": [{"text": "a"}, {}], "mask": "inner.text,oddName"}),
    ("POST /t/things/a:do", '{"name":"things/b","flag":true}', {"name": "things/a", "flag": True}),
    ("PUT /t/things/a?flag=true", '{"text":"x"}',
     {"name": "things/a", "flag": True, "inner": {"text": "x"}}),
    ("PUT /t/texts/a", '["x","y"]', {"name": "a", "texts": ["x", "y"]}),
    # Field masks that a PATCH has from its body: its leaves.
    ("PATCH /t/things/a", '{"i32":1}',
     {"thing": {"name": "things/a", "i32": 1}, "update_mask": "i32"}),
    ("PATCH /t/things/a", '{"inner":{"inner":{"number":0}},"flag":null}',
     {"thing": {"name": "things/a", "inner": {"inner": {}}},
      "update_mask": "inner.inner.number,flag"}),
    ("PATCH /t/things/a", '{"inner":{},"labels":{"a":"b"}}',
     {"thing": {"name": "things/a", "inner": {}, "labels": {"a": "b"}},
      "update_mask": "inner,labels"}),
    ("PATCH /t/things/a", '{"inners":[{"text":"x"}]}',
     {"thing": {"name": "things/a", "inners": [{"text": "x"}]}, "update_mask": "inners"}),
    ("PATCH /t/things/a", '{"time":"2026-01-01T00:00:00Z","wrappedInt":"1","strange":"s"}',
     {"thing": {"name": "things/a", "time": "2026-01-01T00:00:00Z", "wrapped_int": "1",
                "odd_name": "s"},
      "update_mask": "time,wrappedInt,oddName"}),
    ("PATCH /t/things/a?updateMask=flag,inner.text", '{"i32":1}',
     {"thing": {"name": "things/a", "i32": 1}, "update_mask": "flag,inner.text"}),
    ("PATCH /t/things/a?update_mask=odd_name&dry=true", "{}",
     {"thing": {"name": "things/a"}, "update_mask": "oddName", "dry": True}),
    ("PATCH /t/things/a", "{}", {"thing": {"name": "things/a"}, "update_mask": ""}),
    ("PATCH /t/whole/things/a", '{"thing":{"i32":1},"updateMask":"i32"}',
     {"thing": {"name": "things/a", "i32": 1}, "update_mask": "i32"}),
    ("PATCH /t/whole/things/a", '{"thing":{"i32":1}}', {"thing": {"name": "things/a", "i32": 1}}),
    ("PUT /t/whole/things/a", '{"i32":1}', {"thing": {"name": "things/a", "i32": 1}}),
]  # fmt: skip
"""Call, body, and the request that it stands for, as JSON in the contract's names."""

NOWHERE = {"GET /t/things/a:b:c", "GET /t/times/2026-11-20T16:00:00Z"}
"""A colon that is not encoded begins a verb: no such path."""
REPEATED = '{"i32":"5","i64":5,"u64":"7","i32":null}'

REFUSED: list[tuple[str, str, str, str]] = [
    ("GET /t/things?i32=2147483648", "", "i32", "out of range"),
    ("GET /t/things?u64=-1", "", "u64", "out of range"),
    ("GET /t/things?i64=1.5", "", "i64", "whole number"),
    ("GET /t/things?i64=", "", "i64", "whole number"),
    ("GET /t/things?flag=yes", "", "flag", "true or false"),
    ("GET /t/things?real=x", "", "real", "float"),
    ("GET /t/things?blob=%21", "", "blob", "base64"),
    ("GET /t/things?wrappedBlob=a", "", "wrapped_blob", "base64"),
    ("GET /t/things?kind=LARGE", "", "kind", "enum"),
    ("GET /t/things?kind=9", "", "kind", "no Kind"),
    ("GET /t/things?i32=1&i32=2", "", "i32", "twice"),
    ("GET /t/things?labels[a]=1&labels[a]=2", "", "labels[a]", "twice"),
    ("GET /t/things?labels=x", "", "labels", "labels[KEY]=VALUE"),
    ("GET /t/things?texts[a]=x", "", "texts", "no map"),
    ("GET /t/things?named[a]=x", "", "named", "object"),
    ("GET /t/things?switches[x]=true", "", "switches", "x"),
    ("GET /t/things?inner=x", "", "inner", "inner.FIELD=VALUE"),
    ("GET /t/things?inners=x", "", "inners", "object"),
    ("GET /t/things?inners.text=x", "", "inners", "no fields inside"),
    ("GET /t/things?i32.x=1", "", "i32", "no fields inside"),
    ("GET /t/things?time.seconds=1", "", "time", "one value"),
    ("GET /t/things?mask=a&mask.paths=b", "", "mask", "one value"),
    ("GET /t/things?time=yesterday", "", "time", "timestamp"),
    ("GET /t/things?span=5", "", "span", "s"),
    ("GET /t/things?left=a&right=1", "", "choice", "only one"),
    ("GET /t/things?left=a&middle.text=b", "", "choice", "only one"),
    ("GET /t/numbers/x/true", "", "i64", "whole number"),
    ("GET /t/numbers/1/maybe", "", "flag", "true or false"),
    ("GET /t/kinds/NONE", "", "kind", "enum"),
    ("POST /t/things", '{"left":"a","right":"1"}', "choice", "only one"),
    ("POST /t/things", '{"inner":{"number":2147483648}}', "inner.number", "out of range"),
    ("POST /t/things", '{"i32":1.5}', "i32", "integer"),
    ("POST /t/things", '{"i32":" 5"}', "i32", "whole number"),
    ("POST /t/things", '{"i64":"0x10"}', "i64", "whole number"),
    ("POST /t/things", '{"flag":"true"}', "flag", "true or false"),
    ("POST /t/things", '{"flag":1}', "flag", "true or false"),
    ("POST /t/things", '{"name":5}', "name", "string"),
    ("POST /t/things", '{"blob":"a b"}', "blob", "base64"),
    ("POST /t/things", '{"kind":"2"}', "kind", "in quotes"),
    ("POST /t/things", '{"kind":"SMALL"}', "kind", "enum"),
    ("POST /t/things", '{"time":"2026-02-30T00:00:00Z"}', "time", "day"),
    ("POST /t/things", '{"span":"1m"}', "span", "s"),
    ("POST /t/things", '{"texts":[null]}', "texts", "null"),
    ("POST /t/things", '{"named":{"x":null}}', "named", "null"),
    ("POST /t/things", '{"switches":{"x":true}}', "switches", "x"),
    ("POST /t/things", '{"labels":[]}', "labels", "an object"),
    ("POST /t/things", REPEATED, "", "twice"),
    ("POST /t/things", '{"oddName":"a"}', "oddName", "no such field"),
    ("POST /t/things", "{'a':1}", "", "not JSON"),
    ("PUT /t/texts/a", '{"a":1}', "texts", "a list"),
    ("PATCH /t/things/a", "[]", "thing", "an object"),
]  # fmt: skip
"""Call, body, the field at fault and what is said of it: refused by grpc-gateway too."""

STRICTER: list[tuple[str, str, str, str]] = [
    # It leaves out what it does not know: a misspelt field would be as good as not sent.
    ("GET /t/things?i33=1", "", "i33", "did you mean i32"),
    ("POST /t/things", '{"i33":1}', "i33", "did you mean i32"),
    ("POST /t/things", '{"inners":[{"txt":"a"}]}', "inners[0].txt", "did you mean text"),
    ("PATCH /t/things/a", '{"unknown":1}', "thing.unknown", "no such field"),
    # It leaves out the query where the body has the request, and the body where the query has it.
    ("POST /t/things?i32=1", "{}", "i32", "from the body"),
    ("GET /t/things", "{}", "", "must be empty"),
    ("DELETE /t/things/a", '{"flag":true}', "", "must be empty"),
    # It takes the path's word, and leaves out the query's.
    ("GET /t/things/a?name=things/b", "", "name", "by the path"),
    ("PUT /t/things/a?inner.number=1", "{}", "inner.number", "by the path or the body"),
    # It takes the first value of a body and leaves out what follows.
    ("POST /t/things", "{} {}", "", "not JSON"),
    ("POST /t/things", '{"i32":1}{"i32":2}', "", "not JSON"),
    # It takes Go's durations in a query, and JSON's in a body: here they are the same.
    ("GET /t/things?span=1h30m", "", "span", "s"),
]  # fmt: skip
"""Call, body, the field at fault and what is said of it: refused by us alone."""


def request_of(call: str, body: str) -> dict[str, Any] | None:
    """The request that a call stands for, as JSON in the contract's names; None for no path."""
    verb, _, target = call.partition(" ")
    path, _, query = target.partition("?")
    matches = [match for match in find(routes(), path) if match.route.verb == verb]
    if not matches:
        return None
    message = build(matches[0], query, body.encode())
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


@pytest.mark.parametrize(("call", "body", "request_"), [c for c in ALIKE if c[1] != REPEATED])
def test_a_call_stands_for(call: str, body: str, request_: dict[str, Any]) -> None:
    assert request_of(call, body) == (None if call in NOWHERE else request_)


@pytest.mark.parametrize(("call", "body", "field", "words"), REFUSED + STRICTER)
def test_a_call_is_refused(call: str, body: str, field: str, words: str) -> None:
    with pytest.raises(PvcError) as refused:
        request_of(call, body)
    assert refused.value.reason_name == "INVALID_FIELD"
    assert refused.value.field == field
    assert words in refused.value.message


WORDS = st.sampled_from(
    ["i32", "i64", "flag", "inner", "text", "labels", "[", "]", "=", "&", ".", "mask", "paths", "1",
     "%", "%2F", "%FF", "+", "kind", "times", "struct", "{", "}", '"', ":", ",", "null", "value",
     "left", "right", "any", "@type", "\ud800", "ä", "\0", "wrappedInt", "named", "-1", "1e999"]
)  # fmt: skip
TEXTS = st.lists(WORDS, max_size=12).map("".join)


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(["GET /t/things", "POST /t/things", "PUT /t/things/a", "PATCH /t/things/a",
                     "PUT /t/texts/a"]),
    TEXTS, TEXTS | st.binary(max_size=40).map(lambda b: b.decode("latin-1")),
)  # fmt: skip
def test_whatever_is_sent_is_a_request_or_a_refusal(call: str, query: str, body: str) -> None:
    query = query.encode("utf-8", "surrogatepass").decode("latin-1")
    with contextlib.suppress(PvcError):
        request_of(f"{call}?{query}", body.encode("utf-8", "surrogatepass").decode("latin-1"))


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_whatever_the_path_is_it_is_one_or_none(path: str) -> None:
    path = path.encode("utf-8", "surrogatepass").decode("latin-1")
    for start in ("GET /t/ones/", "GET /t/things/", "GET /t/numbers/", "GET /t/times/", "GET /"):
        with contextlib.suppress(PvcError):
            request_of(start + path.replace("?", ""), "")


ANSWERS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"i32": 0, "i64": "0", "flag": False, "blob": "", "kind": "KIND_UNSPECIFIED", "texts": [],
          "labels": {}, "real": 0.0, "strange": ""}),
    ({"i64": 2**53 + 1, "u64": 2**64 - 1, "numbers": [1]},
     {"i64": "9007199254740993", "u64": "18446744073709551615", "numbers": ["1"]}),
    ({"blob": b"\xff\xef", "wrapped_blob": {"value": b"hi"}},
     {"blob": "/+8=", "wrappedBlob": "aGk="}),
    ({"kind": 2, "kinds": [1, 9]}, {"kind": "KIND_LARGE", "kinds": ["KIND_SMALL", 9]}),
    ({"time": {"seconds": 1, "nanos": 5_000_000}, "span": {"seconds": 3}},
     {"time": "1970-01-01T00:00:01.005Z", "span": "3s"}),
    ({"real": float("nan"), "small_real": float("-inf")},
     {"real": "NaN", "smallReal": "-Infinity"}),
    ({"maybe": 0, "left": "", "wrapped_int": {"value": 0}},
     {"maybe": 0, "left": "", "wrappedInt": "0"}),
    ({"labels": {"a": "b"}, "switches": {-1: True}},
     {"labels": {"a": "b"}, "switches": {"-1": True}}),
    ({"mask": {"paths": ["odd_name", "inner.text"]}}, {"mask": "oddName,inner.text"}),
    ({"name": "</script>\u2028ä"}, {"name": "</script>\u2028ä"}),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "shown"), ANSWERS)
def test_an_answer_shows(fields: dict[str, Any], shown: dict[str, Any]) -> None:
    answer = json.loads(dumped(to_json(thing()(**fields))))
    assert {key: answer[key] for key in shown} == shown


def test_an_answer_leaves_out_what_is_not_there() -> None:
    """Of fields that can be absent; all others are always shown."""
    answer = to_json(thing()())
    assert not {"maybe", "left", "right", "wrappedInt", "time", "inner", "any", "value"} & set(
        answer
    )
