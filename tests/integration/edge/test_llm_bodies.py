"""Bodies of requests to the LLM proxy: what it decides on is what every reader behind it reads, byte for byte.

Each body is read by Python's json, by Go's encoding/json (which tells no upper from lower case) and by JavaScript's
JSON.parse as well, as upstreams written in them would.
"""

import base64
import json
import random
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from dify_kit.setup.go_toolchain import find_go
from infra.edge.paths import BODIES_DIRECTORY
from tests.integration.containers import printed
from tests.integration.edge.llm import LlmEdge

CHAT = "/llm/v1/chat/completions"
# `dave` may use this one only, so every reader must read this one.
MODEL = "claude-sonnet-4.5"
RAW = '"user":"first=raw"'
WANTED = '"stream_options":{"include_usage":true}'
# Larger than what is kept in memory.
PADDING = f'"padding":"{"x" * 1_000_000}"'
SEED = 20_261_128
BODIES = 400

JAVASCRIPT = """
const lines = require('fs').readFileSync(0, 'latin1').trim().split('\\n');
for (const line of lines) {
  let read = null;
  try {
    const text = new TextDecoder('utf-8', {fatal: true, ignoreBOM: true}).decode(Buffer.from(line, 'base64'));
    const b = JSON.parse(text);
    const o = b.stream_options;
    read = {model: b.model ?? null, stream: b.stream ?? null, max_tokens: b.max_tokens ?? null,
      max_completion_tokens: b.max_completion_tokens ?? null, n: b.n ?? null,
      usage: o ? o.include_usage ?? null : null};
  } catch (e) {}
  console.log(JSON.stringify(read));
}
"""
GO = """
package main

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
)

type options struct {
	Usage *bool `json:"include_usage"`
}

type body struct {
	Model         *string  `json:"model"`
	Stream        *bool    `json:"stream"`
	MaxTokens     *int64   `json:"max_tokens"`
	MaxCompletion *int64   `json:"max_completion_tokens"`
	N             *int64   `json:"n"`
	Options       *options `json:"stream_options"`
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<26)
	for lines.Scan() {
		raw, _ := base64.StdEncoding.DecodeString(lines.Text())
		var b body
		if json.Unmarshal(raw, &b) != nil {
			fmt.Println("null")
			continue
		}
		read := map[string]any{"model": b.Model, "stream": b.Stream, "max_tokens": b.MaxTokens,
			"max_completion_tokens": b.MaxCompletion, "n": b.N, "usage": nil}
		if b.Options != nil {
			read["usage"] = b.Options.Usage
		}
		text, _ := json.Marshal(read)
		fmt.Println(string(text))
	}
}
"""
FIELDS = ("model", "stream", "max_tokens", "max_completion_tokens", "n", "usage")


@pytest.fixture(scope="module")
def llm(open_directory: Callable[[], Path]) -> Iterator[LlmEdge]:
    """One edge with the LLM proxy, for all tests of this file."""
    one = LlmEdge(open_directory(), body_megabytes=50)
    try:
        yield one
    finally:
        one.remove()


def post(llm: LlmEdge, body: bytes | str, caller: str = "dave", *, in_file: bool = False) -> httpx.Response:
    raw = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body
    # What comes without its length is read into a file as well.
    content = (raw[at : at + 60_000] for at in range(0, len(raw), 60_000)) if in_file else raw
    return llm.http.post(CHAT, content=content, headers={"Authorization": f"Bearer {llm.keys[caller]}"})


def received(answer: httpx.Response) -> bytes:
    """Return the body that an upstream got."""
    return base64.b64decode(answer.json()["choices"][0]["message"]["content"])


def by_python(bodies: list[bytes]) -> list[dict[str, Any] | None]:
    def one(raw: bytes) -> dict[str, Any] | None:
        def refuse(constant: str) -> None:
            raise ValueError(constant)

        try:
            read = json.loads(raw.decode("utf-8"), parse_constant=refuse)
        except (ValueError, RecursionError):
            return None
        if not isinstance(read, dict):
            return None
        options = read.get("stream_options")
        usage = options.get("include_usage") if isinstance(options, dict) else None
        return {**{name: read.get(name) for name in FIELDS[:-1]}, "usage": usage}

    return [one(raw) for raw in bodies]


def by_program(command: list[str], bodies: list[bytes]) -> list[dict[str, Any] | None]:
    lines = "\n".join(base64.b64encode(raw).decode() for raw in bodies) + "\n"
    done = subprocess.run(command, input=lines, capture_output=True, text=True, check=True, timeout=120)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def go_reader(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Compile Go's reader with the toolchain that the kit builds with."""
    place = tmp_path_factory.mktemp("go")
    (place / "main.go").write_text(GO, encoding="utf-8")
    toolchain = find_go()
    subprocess.run(
        [str(toolchain.go), "build", "-o", str(place / "reader"), str(place / "main.go")],
        env=toolchain.environment(),
        check=True,
        timeout=300,
        capture_output=True,
    )
    return [str(place / "reader")]


# --- what can be read in two ways ---------------------------------------------------------------------------------


@pytest.mark.parametrize("in_file", [False, True], ids=["in memory", "in a file"])
@pytest.mark.parametrize(
    ("members", "code", "param"),
    [
        # The case that was found open.
        (f'"Model":"gpt-4.1","messages":[],"model":"{MODEL}","MODEL":"gpt-4.1"', "ambiguous_member", "model"),
        (f'"model":"{MODEL}","model":"gpt-4.1"', "ambiguous_member", "model"),
        (f'"model":"{MODEL}","model":"{MODEL}"', "ambiguous_member", "model"),
        (f'"model":"{MODEL}","model\\u0000":"gpt-4.1"', "ambiguous_member", "model"),
        (f'"model":"{MODEL}","model\\u0000x":"gpt-4.1"', "ambiguous_member", "model"),
        (f'"model":"{MODEL}","\\u006dodel":"gpt-4.1"', "ambiguous_member", "model"),
        ('"\\u006dodel":"gpt-4.1"', "ambiguous_member", "model"),
        (f'"model":"{MODEL}","model ":"gpt-4.1"', "ambiguous_member", "model"),
        (f'"model":"{MODEL}","models":["gpt-4.1"]', "unsupported_member", "models"),
        (f'"model":"{MODEL}","fallbacks":["gpt-4.1"]', "unsupported_member", "fallbacks"),
        (f'"model":"{MODEL}","Models":["gpt-4.1"]', "ambiguous_member", "models"),
        (f'"model":"{MODEL}","stream":false,"Stream":true', "ambiguous_member", "stream"),
        # Go takes this letter for an s, and the next one for a k.
        (f'"model":"{MODEL}","\u017ftream":true', "ambiguous_member", "stream"),
        (f'"model":"{MODEL}","max_to\u212aens":9', "ambiguous_member", "max_tokens"),
        (f'"model":"{MODEL}","max_tokens":1,"Max_Tokens":100000', "ambiguous_member", "max_tokens"),
        (f'"model":"{MODEL}","max_tokens":1,"max_tokens":2', "ambiguous_member", "max_tokens"),
        (f'"model":"{MODEL}","maxTokens":2', "ambiguous_member", "maxtokens"),
        (f'"model":"{MODEL}","n":1,"N":100', "ambiguous_member", "n"),
        (f'"model":"{MODEL}","stream":"true"', "invalid_value", "stream"),
        (f'"model":"{MODEL}","stream":1', "invalid_value", "stream"),
        (f'"model":"{MODEL}","max_tokens":1e3', "invalid_value", "max_tokens"),
        (f'"model":"{MODEL}","max_tokens":10.0', "invalid_value", "max_tokens"),
        (f'"model":"{MODEL}","max_tokens":-1', "invalid_value", "max_tokens"),
        (f'"model":"{MODEL}","max_tokens":9007199254740993', "invalid_value", "max_tokens"),
        (f'"model":"{MODEL}","n":"100"', "invalid_value", "n"),
        (
            f'"model":"{MODEL}","stream":true,"stream_options":{{"include_usage":true,"include_usage":false}}',
            "ambiguous_member",
            "stream_options",
        ),
        (
            f'"model":"{MODEL}","stream":true,"stream_options":{{"include_usage":true,"Include_Usage":false}}',
            "ambiguous_member",
            "stream_options",
        ),
        (f'"model":"{MODEL}","stream":true,"stream_options":[1]', "invalid_value", "stream_options"),
        ('"model":["gpt-4.1"]', "model_required", "model"),
        ('"model":null', "model_required", "model"),
        (f'"model":"{MODEL}","x":NaN', "invalid_json", None),
        (f'"model":"{MODEL}","x":-Infinity', "invalid_json", None),
        (f'"model":"{MODEL}","x":01', "invalid_json", None),
        (f'"model":"{MODEL}","x":1.', "invalid_json", None),
        (f'"model":"{MODEL}","x":+1', "invalid_json", None),
        (f'"model":"{MODEL}","x":.5', "invalid_json", None),
        (f'"model":"{MODEL}","x":"\\x41"', "invalid_json", None),
        (f'"model":"{MODEL}","x":"\\u12g4"', "invalid_json", None),
        (f'"model":"{MODEL}","x":[1,]', "invalid_json", None),
        (f'"model":"{MODEL}","x":{{"a":1,}}', "invalid_json", None),
        (f'"model":"{MODEL}","x":[1}}', "invalid_json", None),
        (f'"model":"{MODEL}","x":\'a\'', "invalid_json", None),
        (f'"model":"{MODEL}",/* no */"x":1', "invalid_json", None),
        (f'"model":"{MODEL}",', "invalid_json", None),
        (f'"model":"{MODEL}",,"x":1', "invalid_json", None),
        (f'"model":"{MODEL}","x" 1', "invalid_json", None),
        (f'"model":"{MODEL}"}},{{"x":1', "invalid_json", None),
        (f'"model":"{MODEL}","x":tru', "invalid_json", None),
        (f'"model":"{MODEL}","x":{"[" * 10_001}{"]" * 10_001}', "invalid_json", None),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(
    llm: LlmEdge, members: str, code: str, param: str | None, in_file: bool
) -> None:
    answer = post(llm, "{" + members + "}", in_file=in_file)

    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, code), answer.text
    if param is not None:
        assert error["param"].replace("_", "") == param.replace("_", "")
        assert param.replace("_", "") in error["message"].replace("_", "").lower()


@pytest.mark.parametrize(
    "raw",
    [
        b'{"model":"MODEL","x":"\n"}',
        b'{"model":"MODEL","x":"\x00"}',
        b'{"model":"MODEL","x":"\xff"}',
        b'{"model":"MODEL","x":"\xc0\xa2"}',
        b'{"model":"MODEL","x":"\xed\xa0\x80"}',
        b'{"model":"MODEL","x":"\xf4\x90\x80\x80"}',
        b'\xef\xbb\xbf{"model":"MODEL"}',
        b'{"model":"MODEL"}\x00',
        b'{"model":"MODEL"}{}',
        b'{\x0c"model":"MODEL"}',
        b'{"model":"MODEL","\t":1}',
    ],
)
def test_bytes_that_no_strict_reader_takes_are_refused(llm: LlmEdge, raw: bytes) -> None:
    answer = post(llm, raw.replace(b"MODEL", MODEL.encode()))

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_json")


# --- what passes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_file", [False, True], ids=["in memory", "in a file"])
@pytest.mark.parametrize("caller_asks", [None, "none", "false", "other", "true"])
@pytest.mark.parametrize("model", [MODEL, "gemini-2.5-flash"], ids=["same name", "another name"])
def test_everything_else_passes_byte_for_byte(
    llm: LlmEdge, in_file: bool, caller_asks: str | None, model: str
) -> None:
    kept = (
        ' "a" : 9007199254740993 ,\t"b":1.0,"c":1e400,"d":"\\ud800 \\/ \\u00e9 \u00e9 \u72d0",\r\n"e":-0,'
        '"f":{"model":"x","model":"y","stream":1},"":[[],{}],"g":123456789012345678901234567890,'
        f'"deep":{"[" * 300}{"]" * 300},"tools":{"{" + chr(34) + "a" + chr(34) + ":"}null{"}"}'
    )
    name = "first" if model == MODEL else "second"
    options = {
        None: "",
        "none": ',"stream_options":null',
        "false": ',"stream_options": {"include_usage" : false}',
        "other": ',"stream_options":{"include_obfuscation":1.0}',
        "true": ',"stream_options":{"include_usage":true, "x":1.0}',
    }[caller_asks]
    body = f'{{"stream":true,"model" : "{model}",{kept},"user":"{name}=raw"{options} }}'

    came = received(post(llm, body, "alice", in_file=in_file)).decode("utf-8")

    assert kept in came
    read = json.loads(re.sub(r'"deep":\[+\]+,', "", came).strip())
    assert read["model"] == (MODEL if model == MODEL else "flash")
    assert read["stream"] is True
    assert read["stream_options"]["include_usage"] is True
    assert ('"include_obfuscation":1.0' in came) is (caller_asks == "other")
    # Each name is there once.
    json.loads(came, object_pairs_hook=lambda pairs: pairs)
    for part in ('"stream_options"', '"user"', '"stream":true'):
        assert came.count(part) == 1
    if caller_asks == "true" and model == MODEL and not in_file:
        assert came == body


def test_a_member_at_any_place_of_a_body_in_a_file_can_be_edited(llm: LlmEdge) -> None:
    parts = [
        '"model":"gemini-2.5-flash"',
        '"stream_options":null',
        '"stream":true',
        '"user":"second=raw"',
        PADDING,
    ]
    orders = [parts[place:] + parts[:place] for place in range(len(parts))]
    orders += [[*parts[2:], parts[1], parts[0]], [parts[0], *parts[2:], parts[1]]]
    for order in orders:
        answer = post(llm, "{" + ",".join(order) + "}", "alice")
        assert answer.status_code == 200, answer.text
        read = json.loads(received(answer), object_pairs_hook=lambda pairs: pairs)
        names = sorted(name for name, _ in read)
        assert names == ["model", "padding", "stream", "stream_options", "user"]
        assert dict(read)["model"] == "flash"
        assert dict(read)["stream_options"] == [("include_usage", True)]
    # Nothing else is in it.
    chunks = iter([b'{"model":"gemini-2.5-flash"', b"}"])
    alone = llm.http.post(CHAT, content=chunks, headers={"Authorization": f"Bearer {llm.keys['alice']}"})
    assert alone.status_code == 200


def test_the_next_upstream_gets_the_same_body_under_its_own_name(llm: LlmEdge) -> None:
    for padding in ("", f"{PADDING},"):
        body = f'{{{padding}"stream":true,"model":"gemini-2.5-flash","x":1.0,"user":"second=raw"}}'
        came = received(post(llm, body, "alice"))
        assert b'"model":"flash"' in came
        assert b'"x":1.0' in came
        assert WANTED.encode() in came


def peak(llm: LlmEdge) -> int:
    """Return how many bytes nginx's largest worker had at most."""
    output = printed(llm.nginx, ["sh", "-c", "cat /proc/[0-9]*/status | grep VmHWM"])
    return max(int(line.split()[1]) * 1024 for line in output.splitlines())


def test_fifty_megabytes_take_no_memory_and_leave_no_file(llm: LlmEdge) -> None:
    picture = base64.b64encode(bytes(range(256)) * 140_000).decode()
    text = f'{{"messages":[{{"content":"{picture}"}}],"stream":true,"model":"gemini-2.5-flash"}}'
    assert 45_000_000 < len(text) < 50_000_000
    # Many values, and many escapes: what is made while they pass would stay until the end.
    values = '{"model":"claude-sonnet-4.5","x":[' + '{"a":true,"b\\n":-1.5e3},' * 180_000 + "0]}"
    before = peak(llm)

    assert post(llm, text, "alice").status_code == 200
    assert post(llm, values).status_code == 200
    refused = post(llm, '{"model":"claude-sonnet-4.5","x":[' + "1," * 5_000_000 + "0]}")

    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "too_complex")
    assert peak(llm) - before < 20_000_000
    assert printed(llm.nginx, ["sh", "-c", f"find {BODIES_DIRECTORY} -type f; echo end"]).strip() == "end"


def test_a_query_stays_here(llm: LlmEdge) -> None:
    answer = llm.http.post(
        f"{CHAT}?api-version=1&model=gpt-4.1",
        json={"model": MODEL, "messages": [], "user": "first=echo"},
        headers={"Authorization": f"Bearer {llm.keys['dave']}"},
    )

    assert json.loads(answer.json()["choices"][0]["message"]["content"])["path"] == "/v1/chat/completions"


# --- every reader reads the same ---------------------------------------------------------------------------------

NAMES = [
    *[
        "model",
        "stream",
        "stream_options",
        "max_tokens",
        "max_completion_tokens",
        "n",
        "messages",
        "x",
        "tools",
    ]
    * 3,
    *["Model", "MODEL", "mod\\u0065l", "model\\u0000", "models", "mODEl", "model_", "_model", "mo\\u0000del"],
    *[
        "Stream",
        "STREAM",
        "\u017ftream",
        "stream ",
        "Max_Tokens",
        "max_to\u212aens",
        "maxtokens",
        "N",
        "\uff4e",
    ],
    *["Stream_Options", "streamoptions", "", "\u72d0", "constructor", "__proto__", "x\\ty", "model\\"],
]
SCALARS = [
    "null",
    "true",
    "false",
    "0",
    "1",
    "100000",
    "-1",
    "1.0",
    "1e3",
    "1e400",
    "9007199254740993",
    "01",
    "NaN",
    '"a"',
]
STRINGS = [
    f'"{MODEL}"',
    '"gpt-4.1"',
    '"claude\\u002dsonnet-4.5"',
    '"\\ud800"',
    '"\n"',
    '"\\x"',
    "'a'",
    '"true"',
    '"1"',
]
OTHERS = [
    "[]",
    "{}",
    "[1,]",
    "[[[1.0]]]",
    '{"include_usage":true}',
    '{"include_usage":false,"include_usage":true}',
]
OTHERS += [
    '{"Include_usage":true}',
    '{"include_usage":null}',
    '{"model":"x","Model":2}',
    f"{'[' * 40}{']' * 40}",
]


def bodies() -> list[bytes]:
    """Return bodies, most of them nearly right."""
    chance = random.Random(SEED)  # noqa: S311  # the same ones each time
    made = []
    for _ in range(BODIES):
        members = [f'"model":"{MODEL}"'] if chance.random() < 0.9 else []
        for _ in range(chance.randrange(4)):
            name = chance.choice(NAMES)
            value = chance.choice(chance.choice([SCALARS, STRINGS, OTHERS]))
            if name in {"stream", "max_tokens", "n"} and chance.random() < 0.7:
                value = chance.choice(
                    ["true", "false", "null"] if name == "stream" else ["1", "null", "100000"]
                )
            if name == "stream_options" and chance.random() < 0.5:
                value = '{"include_usage":true}'
            members.append(f'"{name}"{chance.choice(["", " "])}:{value}')
        members.append(RAW)
        chance.shuffle(members)
        text = "{" + chance.choice([",", ", ", ",\n"]).join(members) + "}"
        raw = text.encode("utf-8", "surrogatepass")
        if chance.random() < 0.05:
            place = chance.randrange(len(raw))
            raw = raw[:place] + chance.choice([b"\xff", b"\x00", b",", b'"', b"}", b"\\"]) + raw[place:]
        made.append(raw)
    return made


def test_every_reader_reads_what_was_decided(llm: LlmEdge, go_reader: list[str]) -> None:
    passed: list[tuple[bytes, bytes]] = []
    refused: list[bytes] = []
    for sent in bodies():
        answer = post(llm, sent)
        if answer.status_code == 200 and answer.headers["Content-Type"] == "application/json":
            passed.append((sent, received(answer)))
        elif answer.status_code != 200:
            assert answer.status_code in {400, 403, 404}, (sent, answer.text)
            refused.append(sent)

    # Neither is an empty set.
    assert min(len(passed), len(refused)) > BODIES // 10
    came = [got for _, got in passed]
    fields = {
        "Python": by_python(came),
        "Go": by_program(go_reader, came),
        "JavaScript": by_program(["node", "-e", JAVASCRIPT], came),
    }
    for place, (sent, got) in enumerate(passed):
        read = {reader: answers[place] for reader, answers in fields.items()}
        first = read["Python"]
        assert first is not None, sent
        # A value that no reader needs may be too large for one of them.
        assert all(one == first for one in read.values()), (sent, read)
        assert first["model"] == MODEL, sent
        assert first["stream"] in {None, True, False}, sent
        if first["stream"]:
            assert first["usage"] is True, sent
        if not first["stream"] or b'"include_usage":true' in sent:
            assert got == sent
        else:
            assert got.replace(b"," + WANTED.encode(), b"") in {sent, got}
    # What every reader takes, with names that mean nothing else, is not refused for its form.
    plain = re.compile(
        rb'(?i)\\u|\\t|model_|_model|stream |options|models|max|\xc5\xbf|\xe2\x84\xaa|"n"|stream'
    )
    for sent, read_as in zip(refused, by_python(refused), strict=True):
        if read_as is not None and sent.lower().count(b'"model"') == 1 and not plain.search(sent):
            assert read_as["model"] != MODEL, sent
