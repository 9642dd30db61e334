"""The corpus: what is decided runs and answers as before, what is not stays byte for byte as it was."""

import contextlib
import io
import json
import re
import textwrap
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from dify_kit.app import app, register
from dify_kit.migration.report import Result, Target
from dify_kit.migration.rewriting import migrate

CORPUS = Path(__file__).parent / "corpus"
DECIDED = sorted((CORPUS / "decided").glob("*.py"))
# What Dify refuses to answer, as the reading of a stream as one document, and what a move makes work.
REPAIRED = sorted((CORPUS / "repaired").glob("*.py"))
# Clients by packages that cannot be installed beside `dify-client`: all are called `dify_client`.
PACKAGES = sorted((CORPUS / "packages").glob("*.py"))
UNDECIDED = sorted((CORPUS / "undecided").glob("*.py"))
KEY = "key-of-the-new-service"
TARGET = Target("https://api.holysheep.ai/v1", "gpt-4.1", "HOLYSHEEP_API_KEY")


class Service(BaseHTTPRequestHandler):
    """Dify's routes under /dify, OpenAI's under /openai; each takes only its own key and shape."""

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        bearer = self.headers["Authorization"]
        if self.path == "/dify/oauth/token" and b"grant_type=client_credentials" in raw:
            self.reply(200, {"access_token": "app-secret"})
            return
        body = json.loads(raw)
        if self.path == "/dify/chat-messages" and bearer == "Bearer app-secret" and body["user"]:
            pieces = [f"You said {body['query']}", " to the 狐"]
            if body.get("response_mode") == "streaming":
                answers = [{"event": "message", "answer": piece, "conversation_id": "c"} for piece in pieces]
                self.stream(
                    [*answers, {"event": "message_end", "metadata": {}}],
                    "; charset=utf-8",
                    before="event: ping\n\n",
                )
            else:
                self.reply(200, {"answer": "".join(pieces)})
        elif self.path == "/openai/chat/completions" and bearer == f"Bearer {KEY}":
            assert set(body) <= {"model", "messages", "stream", "user"}
            assert body["model"] == "gpt-4.1"
            body.setdefault("stream", False)
            [message] = body["messages"]
            assert message["role"] == "user"
            pieces = [f"You said {message['content']}", " to the 狐"]
            if body["stream"]:
                deltas: list[dict[str, str]] = [
                    {"role": "assistant"},
                    *({"content": piece} for piece in pieces),
                ]
                chunks: list[object] = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
                chunks += [{"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}, {"choices": []}]
                self.stream([*chunks, "[DONE]"], "")
            else:
                self.reply(200, {"choices": [{"message": {"content": "".join(pieces)}}]})
        else:
            self.reply(401, {"error": {"message": "refused"}})

    def stream(self, events: list[object], charset: str, before: str = "") -> None:
        self.send_response(200)
        self.send_header("Content-Type", f"text/event-stream{charset}")
        self.end_headers()
        self.wfile.write(before.encode())
        for event in events:
            data = event if isinstance(event, str) else json.dumps(event, ensure_ascii=False)
            self.wfile.write(f"data: {data}\n\n".encode())

    def reply(self, status: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def run(code: bytes, name: str) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, name, "exec", dont_inherit=True), {"__name__": "__main__"})  # noqa: S102
    return out.getvalue()


@pytest.mark.parametrize("file", DECIDED, ids=lambda file: file.stem)
def test_decided_clients_answer_as_before(file: Path, service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = file.read_bytes()
    monkeypatch.setenv("DIFY_URL", f"{service}/dify")
    before = run(source, file.name)
    assert "You said" in before
    target = Target(f"{service}/openai", "gpt-4.1", "HOLYSHEEP_API_KEY")
    result = migrate(source, target)
    assert not result.undecided
    # Dify is gone: a migrated client may not reach for it.
    monkeypatch.setenv("DIFY_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("HOLYSHEEP_API_KEY", KEY)
    assert run(result.source, file.name) == before
    assert migrate(result.source, target).source == result.source


@pytest.mark.parametrize("file", REPAIRED + PACKAGES, ids=lambda file: file.stem)
def test_what_dify_cannot_answer_here_is_answered_afterwards(
    file: Path, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = file.read_bytes()
    monkeypatch.setenv("DIFY_URL", f"{service}/dify")
    with pytest.raises((ValueError, ImportError, TypeError)):
        run(source, file.name)
    target = Target(f"{service}/openai", "gpt-4.1", "HOLYSHEEP_API_KEY")
    result = migrate(source, target)
    assert not result.undecided
    monkeypatch.setenv("DIFY_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("HOLYSHEEP_API_KEY", KEY)
    after = run(result.source, file.name)
    assert after.count("You said ") == after.count(" to the 狐\n") >= 1
    assert b"dify_client" not in result.source
    assert migrate(result.source, target).source == result.source


@pytest.mark.parametrize("file", UNDECIDED, ids=lambda file: file.stem)
def test_undecided_clients_stay_as_they_were(file: Path) -> None:
    source = file.read_bytes()
    result = migrate(source, TARGET)
    assert result.source == source
    assert result.undecided
    assert all(item.reason and 1 <= item.line <= source.count(b"\n") + 1 for item in result.undecided)


def test_the_corpus_is_large_enough() -> None:
    assert len(DECIDED + REPAIRED + PACKAGES) >= 40
    assert len(UNDECIDED) >= 30


def leftovers(source: str, *shared: str) -> list[tuple[int, str]]:
    found = migrate(textwrap.dedent(source).encode(), TARGET, shared.__contains__).leftovers
    return [(one.line, one.reason.split(",")[0]) for one in found]


CLIENT = """\
import os

import requests

BASE = os.environ["DIFY_URL"]
KEY = os.getenv("DIFY_KEY", "")
TRACE = os.environ.get("TRACE", "0")
UNUSED = os.environ["ALWAYS_UNUSED"]
URL = f"{BASE}/chat-messages"


def ask(query):
    headers = {"Authorization": f"Bearer {KEY}"}
    body = {"query": query, "user": TRACE}
    return requests.post(URL, headers=headers, json=body).json()["answer"]
"""


def test_variables_that_nothing_needs_any_more_are_reported() -> None:
    assert leftovers(CLIENT) == [
        (5, "`BASE` reads DIFY_URL from the environment"),
        (6, "`KEY` reads DIFY_KEY from the environment"),
    ]
    # Another file may read it.
    assert leftovers(CLIENT, "BASE") == [(6, "`KEY` reads DIFY_KEY from the environment")]
    assert leftovers(CLIENT + '\nprint(BASE)\nrequests.get(f"{BASE}/info", headers={"X": KEY})\n') == []
    assert leftovers(CLIENT.replace("/chat-messages", "/workflows/run")) == []


def test_arguments_of_a_client_that_nothing_needs_any_more_are_reported() -> None:
    source = """\
    import os

    import requests


    class Dify:
        def __init__(self, base, key, user):
            self.base = base
            self.headers = {"Authorization": f"Bearer {key}"}
            self.user = user

        def _post(self, path, body):
            return requests.post(f"{self.base}{path}", headers=self.headers, json=body).json()

        def ask(self, query):
            return self._post("/chat-messages", {"query": query, "user": self.user})["answer"]


    client = Dify(
        os.environ["DIFY_URL"],
        key=os.environ["DIFY_KEY"],
        user=os.environ["USER"],
    )
    """

    assert leftovers(source) == [
        (20, "`Dify(base=...)` reads DIFY_URL from the environment"),
        (21, "`Dify(key=...)` reads DIFY_KEY from the environment"),
    ]


def test_headers_that_another_call_needs_keep_their_key() -> None:
    other = "\nrequests.get(BASE, headers=HEADERS)\n"
    source = (CORPUS / "decided" / "url_constant.py").read_text()

    alone, mixed = (migrate(text.encode(), TARGET).source.decode() for text in (source, source + other))

    assert 'HEADERS = {"Authorization": "Bearer " + os.environ["HOLYSHEEP_API_KEY"]' in alone
    assert "headers=HEADERS" in alone
    assert 'HEADERS = {"Authorization": f"Bearer {KEY}"' in mixed
    assert mixed.count('headers={**HEADERS, "Authorization"') == 2


def test_constant_that_another_call_needs_keeps_its_url() -> None:
    source = (CORPUS / "decided" / "url_constant.py").read_bytes()

    result = migrate(source + b"\nprint(URL)\n", TARGET)
    shared = migrate(source, TARGET, {"URL"}.__contains__)

    for one in (result, shared):
        assert one.migrated == 2
        assert b'URL = f"{BASE}/chat-messages"' in one.source
        assert one.source.count(b'requests.post("https://api.holysheep.ai/v1/chat/completions"') == 2
        # The constant is reported: somebody still asks Dify by it.
        assert [item.line for item in one.undecided] == [8]


def test_attributes_of_a_class_that_another_file_has_keep_their_values() -> None:
    source = (CORPUS / "decided" / "url_attribute.py").read_bytes()

    alone, imported = (migrate(source, TARGET, names.__contains__) for names in (set[str](), {"Bot"}))

    assert b'self.url = "https://api.holysheep.ai/v1/chat/completions"' in alone.source
    assert b"headers=self.headers," in alone.source
    assert b"self.url = f\"{base.rstrip('/')}/chat-messages\"" in imported.source
    assert b'self.headers = {"Authorization": f"Bearer {key}"' in imported.source
    assert imported.migrated == 1
    # A local variable is nobody else's.
    local = migrate((CORPUS / "decided" / "header_method.py").read_bytes(), TARGET, {"Bot"}.__contains__)
    assert (local.migrated, local.undecided) == (1, ())


def test_wrapper_with_other_routes_keeps_them_on_dify() -> None:
    source = (CORPUS / "decided" / "wrapper_mixed.py").read_text()

    result = migrate(source.encode(), TARGET).source.decode()

    # All of the old function is there, and its other calls.
    before, after = (
        text[text.index("    def _request(") : text.index("    def ask(")] for text in (source, result)
    )
    assert after.startswith(before[: before.index("    def parameters(")])
    assert 'self._request("GET", "parameters")' in after
    assert result.count("def _request_model(") == 1
    again = migrate(result.encode(), TARGET)
    assert (again.source.decode(), again.migrated, again.undecided) == (result, 0, ())


def test_wrapper_that_another_file_uses_is_left_alone() -> None:
    source = (CORPUS / "decided" / "wrapper_class.py").read_bytes()

    result = migrate(source, TARGET, {"_post"}.__contains__)

    assert result.source == source
    assert {item.reason for item in result.undecided} == {"another file uses the function that sends it"}


def test_line_endings_mark_and_encoding_are_kept() -> None:
    plain = (CORPUS / "decided" / "requests_flat.py").read_text()
    crlf = b"\xef\xbb\xbf" + plain.replace("\n", "\r\n").encode()
    result = migrate(crlf, TARGET)
    assert result.migrated == 1
    assert result.source.startswith(b"\xef\xbb\xbf")
    assert result.source.count(b"\n") == result.source.count(b"\r\n")
    latin = ("# -*- coding: latin-1 -*-\n" + plain.replace("hello", "h\xe9llo")).encode("latin-1")
    assert b"h\xe9llo" in migrate(latin, TARGET).source


NAMES = st.sampled_from(["response", "requests", "answer", "query", "json", "data", "post"])
LINES = st.one_of(
    st.builds("{} = {}".format, NAMES, NAMES),
    st.builds('{} = {{"query": {}}}["answer"]'.format, NAMES, NAMES),
    st.builds("{}.post({}, json={})".format, NAMES, NAMES, NAMES),
    st.builds("def {}({}):\n\treturn {}.json()['answer']".format, NAMES, NAMES, NAMES),
    st.builds("# {}".format, st.text(st.characters(codec="utf-8", exclude_categories=["C", "Zl", "Zp"]))),
)


# Functions that ask other services, with the words and the ways of Dify's clients.
ELSEWHERE = st.sampled_from(
    ["https://other.example/messages", "https://other.example/chat", "/ask", "http://127.0.0.1:9/v1/chat"]
)
FIELDS = st.sampled_from(["query", "answer", "event", "conversation_id", "response_mode", "inputs", "user"])
VALUES = st.one_of(
    st.sampled_from(["streaming", "blocking", "message", "message_end"]), st.text(max_size=8)
).map(repr)
BODIES = st.dictionaries(FIELDS, VALUES, max_size=4).map(
    lambda fields: "{" + ", ".join(f'"{name}": {value}' for name, value in fields.items()) + "}"
)
WAYS = st.sampled_from(
    [
        """def {name}(question):
    response = requests.post("{url}", headers={{"Authorization": "Bearer k"}}, json={body})
    return response.json()["{field}"]
""",
        """def {name}(question):
    payload = {body}
    with requests.Session() as http:
        for line in http.post("{url}", json=payload, stream=True).iter_lines(decode_unicode=True):
            if line.startswith("data: "):
                event = json.loads(line[6:])
                if event["event"] == "message":
                    yield event.get("{field}", "")
""",
        """async def {name}(question):
    async with httpx.AsyncClient(base_url="https://other.example") as client:
        async with client.stream("POST", "{url}", json={body}) as response:
            async for line in response.aiter_lines():
                print(json.loads(line)["{field}"])
        reply = await client.post("{url}", json={body})
    return reply.json().get("{field}")
""",
        """async def {name}(question):
    async with aiohttp.ClientSession() as session, session.post("{url}", json={body}) as response:
        async for raw in response.content:
            print(raw)
        return (await response.json())["{field}"]
""",
        """class {name}:
    def create_chat_message(self, inputs, query, user, response_mode="blocking"):
        return self.session.post("{url}", json={body})

    def ask(self):
        return self.create_chat_message({{}}, "q", "u").json()["{field}"]
""",
    ]
)
OTHERS = st.lists(st.tuples(WAYS, ELSEWHERE, BODIES, FIELDS), max_size=4).map(
    lambda made: [
        way.format(name=f"Other{place}", url=url, body=body, field=field)
        for place, (way, url, body, field) in enumerate(made)
    ]
)
IMPORTS = "import json\n\nimport aiohttp\nimport httpx\nimport requests\n\n"


@settings(max_examples=60, deadline=None)
@given(OTHERS, st.sampled_from(["\n", "\r\n"]))
def test_clients_of_other_services_are_never_changed(others: list[str], newline: str) -> None:
    source = (IMPORTS + "\n\n".join(others)).replace("\n", newline).encode()
    result = migrate(source, TARGET)
    assert (result.source, result.migrated, result.undecided) == (source, 0, ())


# Its session is a local name; the module of the corpus has one of its own.
LOCAL_SESSION = """async def Other0(question):
    async with aiohttp.ClientSession() as session, session.post("https://other.example/messages", json={}) as response:
        async for raw in response.content:
            print(raw)
        return (await response.json())["query"]
"""


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(DECIDED + REPAIRED + PACKAGES), OTHERS)
@example(next(one for one in DECIDED if one.stem == "request_method"), [LOCAL_SESSION])
def test_code_around_a_moved_client_is_kept_to_the_letter(file: Path, others: list[str]) -> None:
    alone = file.read_text()
    moved = migrate(alone.encode(), TARGET)
    result = migrate("\n".join([alone, *others]).encode(), TARGET)
    assert result.migrated == moved.migrated > 0
    assert result.source == "\n".join([moved.source.decode(), *others]).encode()
    assert migrate(result.source, TARGET) == Result(result.source, 0, ())


def test_a_local_of_another_function_with_the_same_name_is_another_object() -> None:
    [file] = [one for one in DECIDED if one.stem == "returned_and_read"]
    other = (
        "async def other():\n"
        "    async with httpx.AsyncClient() as client:\n"
        "        return await client.get('/')\n"
    )

    result = migrate(f"{file.read_text()}\n{other}".encode(), TARGET)

    assert (result.migrated, result.undecided) == (1, ())


@pytest.mark.parametrize(
    "other",
    [
        "def other(session):\n    return session.get('/')\n",
        "def other():\n    for session in range(3):\n        print(session)\n",
        "def other():\n    session = connect()\n    return session.get('/')\n",
        # Locals with the names of imports.
        "def other(requests):\n    return [httpx for httpx in requests]\n",
        "def other():\n    requests = [1]\n    httpx = json = requests\n    return httpx, json\n",
        "def other():\n    import fake as requests, fake as httpx, fake as json\n    return requests, httpx, json\n",
        "other = lambda requests, httpx, json: (requests, httpx, json)\n",
    ],
)
def test_names_of_another_function_are_other_names(other: str) -> None:
    [file] = [one for one in DECIDED if one.stem == "request_method"]
    alone = migrate(file.read_bytes(), TARGET)

    result = migrate(f"{file.read_text()}\n{other}".encode(), TARGET)

    assert (result.migrated, result.undecided) == (3, ())
    assert result.source == f"{alone.source.decode()}\n{other}".encode()


@pytest.mark.parametrize(
    "local",
    ["session = connect()", "import fake as requests", "requests = connect()", "for requests in (): pass"],
)
def test_a_local_that_hides_a_client_is_no_client(local: str) -> None:
    name = "session" if local.startswith("session") else "requests"
    source = f"""import os

import requests

session = requests.Session()


def ask():
    {local}
    answer = {name}.post(os.environ["DIFY_URL"] + "/chat-messages", json={{"query": "q", "user": "u"}})
    return answer.json()["answer"]
"""

    result = migrate(source.encode(), TARGET)

    assert (result.source, result.migrated, len(result.undecided)) == (source.encode(), 0, 1)


@settings(max_examples=60, deadline=None)
@given(st.lists(LINES), st.sampled_from(["\n", "\r\n"]))
def test_unrelated_code_is_never_changed(lines: list[str], newline: str) -> None:
    source = newline.join(lines).encode()
    assert migrate(source, TARGET).source == source


@settings(max_examples=40, deadline=None)
@given(st.lists(LINES), st.sampled_from(DECIDED + REPAIRED + PACKAGES + UNDECIDED), st.lists(LINES))
def test_the_result_parses_and_is_final(before: list[str], file: Path, after: list[str]) -> None:
    source = "\n".join([*before, file.read_text(), *after]).encode()
    result = migrate(source, TARGET)
    if result.source != source:
        compile(result.source, "generated", "exec", dont_inherit=True)
    assert migrate(result.source, TARGET).source == result.source


WORDS = st.sampled_from(
    ["line", "event", "response", "r", "client", "answer", "data", "json", "self", "break", "print"]
)


@settings(max_examples=40, deadline=None)
@given(st.data(), st.sampled_from(DECIDED + REPAIRED + PACKAGES))
def test_clients_that_are_nearly_like_those_known_stay_programs(data: st.DataObject, file: Path) -> None:
    lines = file.read_text().splitlines(keepends=True)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(lines) - 1))
        match data.draw(st.sampled_from(["drop", "double", "rename"])):
            case "drop":
                lines[place] = "\n"
            case "double":
                lines.insert(place, lines[place])
            case _:
                old, new = data.draw(WORDS), data.draw(WORDS)
                lines[place] = re.sub(rf"\b{old}\b", new, lines[place])
    source = "".join(lines).encode()
    try:
        compile(source, "mutant", "exec", dont_inherit=True)
    except SyntaxError:
        assert migrate(source, TARGET).source == source
        return
    result = migrate(source, TARGET)
    compile(result.source, "moved", "exec", dont_inherit=True)
    assert result.migrated or result.source == source
    assert migrate(result.source, TARGET).source == result.source


@settings(max_examples=100, deadline=None)
@given(st.binary())
def test_any_bytes_are_survived(source: bytes) -> None:
    assert migrate(source, TARGET).source == source


def test_command_shows_then_writes(tmp_path: Path) -> None:
    register("migrate")
    file = tmp_path / "client.py"
    file.write_bytes((CORPUS / "decided" / "requests_flat.py").read_bytes())
    file.chmod(0o750)
    skipped = tmp_path / "venv" / "lib.py"
    skipped.parent.mkdir()
    (skipped.parent / "pyvenv.cfg").touch()
    skipped.write_bytes(file.read_bytes())
    before = file.read_bytes()
    shown = CliRunner().invoke(app, ["migrate", str(tmp_path)])
    assert shown.exit_code == 0
    assert "+++ b/" in shown.stdout
    assert file.read_bytes() == before
    written = CliRunner().invoke(app, ["migrate", str(tmp_path), "--write", "--json"])
    assert json.loads(written.stdout)["files"][0]["migrated"] == 1
    assert json.loads(written.stdout)["files"][0]["leftovers"][0]["line"] == 6
    assert "client.py:6: `BASE` reads DIFY_URL from the environment" in shown.stderr
    assert b"api.holysheep.ai/v1/chat/completions" in file.read_bytes()
    assert file.stat().st_mode & 0o777 == 0o750
    assert skipped.read_bytes() == before
    assert {entry.name for entry in tmp_path.iterdir()} == {"client.py", "venv"}


def test_what_a_function_returns_is_left_alone_when_another_file_uses_it(tmp_path: Path) -> None:
    register("migrate")
    file = tmp_path / "client.py"
    file.write_bytes((CORPUS / "decided" / "returned_and_read.py").read_bytes())
    before = file.read_bytes()
    other = tmp_path / "other.py"
    other.write_text("from client import client\n\nprint(client.chat('three')['answer'])\n")

    together = CliRunner().invoke(app, ["migrate", str(tmp_path), "--write"])

    assert together.exit_code == 4
    assert "client.py:15: where its response goes cannot be followed" in together.stderr
    assert file.read_bytes() == before
    other.unlink()
    assert CliRunner().invoke(app, ["migrate", str(tmp_path), "--write"]).exit_code == 0
    assert file.read_bytes() != before


def test_a_client_that_another_file_uses_is_left_alone() -> None:
    source = (CORPUS / "decided" / "dify_client_blocking.py").read_bytes()
    result = migrate(source, TARGET, {"chat_client"}.__contains__)
    assert result.source == source
    assert [item.reason for item in result.undecided] == ["another file uses its client"]


def test_command_tells_what_is_undecided() -> None:
    register("migrate")
    result = CliRunner().invoke(app, ["migrate", str(CORPUS / "undecided" / "workflow.py")])
    assert result.exit_code == 4
    assert "workflow.py:10: workflows have no counterpart" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("wrong", [["--to", "ftp://x"], ["--key-variable", "a-b"]])
def test_wrong_options_are_refused(wrong: list[str]) -> None:
    register("migrate")
    assert CliRunner().invoke(app, ["migrate", str(CORPUS), *wrong]).exit_code == 2


def test_the_guide_shows_what_comes_out(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    guide = (Path(__file__).parents[3] / "docs" / "guides" / "migrate.md").read_text()
    before, after = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    assert migrate(before.encode(), TARGET).source.decode() == after
    monkeypatch.setenv("DIFY_URL", f"{service}/dify")
    monkeypatch.setenv("HOLYSHEEP_API_KEY", KEY)
    moved = after.replace("https://api.holysheep.ai/v1", f"{service}/openai")
    assert run(before.encode(), "before") == run(moved.encode(), "after") == "You said hello to the 狐\n"
