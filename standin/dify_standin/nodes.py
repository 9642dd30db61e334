"""Workflow nodes that do not run here: code goes to the sandbox, HTTP requests go through the SSRF proxy."""

import base64
import http.client
import json
import re
import urllib.request
from collections.abc import Callable
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode, urlsplit

from dify_standin.config import integer, text

Variables = dict[str, Any]
RESULT = "<<RESULT>>"
UNAVAILABLE = 503
REFUSED = (401, 403)
METHODS = frozenset({"get", "head", "post", "put", "delete", "patch", "options"})
LARGEST = 1024 * 1024


class NodeError(Exception):
    """A node failed; its text goes to the caller."""


def chosen_case(data: dict[str, Any], variables: Variables) -> str:
    """Return the handle by which an if-else node is left: the id of the first case that holds, else `false`."""
    for case in data["cases"]:
        held = [_holds(condition, variables) for condition in case["conditions"]]
        if all(held) if case.get("logical_operator", "and") == "and" else any(held):
            return str(case["case_id"])
    return "false"


def _holds(condition: dict[str, Any], variables: Variables) -> bool:
    value, expected = variables.get(".".join(condition["variable_selector"])), condition.get("value", "")
    tests: dict[str, Callable[[], bool]] = {
        "is": lambda: value == expected,
        "is not": lambda: value != expected,
        "contains": lambda: expected in str(value or ""),
        "not contains": lambda: expected not in str(value or ""),
        "empty": lambda: not value,
        "not empty": lambda: bool(value),
    }
    operator = condition["comparison_operator"]
    if operator not in tests:
        raise NodeError(f"the stand-in does not compare by {operator!r}: it knows {', '.join(tests)}")
    return bool(tests[operator]())


def run_code(data: dict[str, Any], variables: Variables) -> dict[str, Any]:
    """Run a code node in the sandbox, by its own contract, and return the declared outputs."""
    inputs = {
        item["variable"]: variables.get(".".join(item["value_selector"]))
        for item in data.get("variables", [])
    }
    outputs = _result(_in_sandbox(data.get("code_language", "python3"), runner(data["code"], inputs)))
    missing = [name for name in data.get("outputs", {}) if name not in outputs]
    if missing:
        raise NodeError(f"Output {missing[0]} is missing.")
    return outputs


def runner(code: str, inputs: dict[str, Any]) -> str:
    """Return the script that calls `main` of a code node and prints its result between two marks.

    The inputs travel in base64, so that no text of theirs can end the script's own.
    """
    encoded = base64.b64encode(json.dumps(inputs).encode()).decode()
    return "\n".join(
        (
            code,
            "from base64 import b64decode as _decode",
            "import json as _json",
            f"_inputs = _json.loads(_decode('{encoded}').decode('utf-8'))",
            f"print('{RESULT}' + _json.dumps(main(**_inputs), indent=4) + '{RESULT}')",
            "",
        )
    )


def _in_sandbox(language: str, script: str) -> str:
    """Let the sandbox run a script; return what it printed."""
    body = {"language": language, "code": script, "preload": "", "enable_network": True}
    request = urllib.request.Request(  # noqa: S310  # the sandbox of this stack
        f"{text('CODE_EXECUTION_ENDPOINT')}/v1/sandbox/run",
        data=json.dumps(body).encode(),
        headers={"X-Api-Key": text("CODE_EXECUTION_API_KEY"), "Content-Type": "application/json"},
    )
    try:
        with _direct().open(request, timeout=integer("CODE_EXECUTION_READ_TIMEOUT", 60)) as answer:
            result = json.load(answer)
    except HTTPError as problem:
        if problem.code == UNAVAILABLE:
            raise NodeError("Code execution service is unavailable") from None
        raise NodeError(_sandbox_away(f"got status code {problem.code}")) from None
    except (OSError, http.client.HTTPException) as problem:
        raise NodeError(_sandbox_away(str(problem))) from None
    except ValueError:
        raise NodeError("Failed to parse response") from None
    if result.get("code") != 0:
        raise NodeError(f"Got error code: {result.get('code')}. Got error msg: {result.get('message')}")
    if result["data"].get("error"):
        raise NodeError(str(result["data"]["error"]))
    return str(result["data"].get("stdout") or "")


def _sandbox_away(why: str) -> str:
    return (
        "Failed to execute code, which is likely a network issue, please check if the sandbox service is "
        f"running. ( Error: {why} )"
    )


def _result(printed: str) -> dict[str, Any]:
    found = re.search(f"{RESULT}(.*){RESULT}", printed, re.DOTALL)
    if not found:
        raise NodeError("Failed to parse result: no result tag found in response.")
    try:
        result = json.loads(found.group(1))
    except ValueError as problem:
        raise NodeError(f"Failed to parse JSON response: {problem}") from None
    if not isinstance(result, dict):
        raise NodeError(f"Result must be a dict, got {type(result).__name__}")
    return result


def run_http(data: dict[str, Any], variables: Variables) -> dict[str, Any]:
    """Send the request of an HTTP node through the SSRF proxy; return status code, headers and body.

    An answer other than 2xx is no failure, unless the node retries; a refusal of squid is, in Dify's words.
    """
    url = filled(data["url"], variables)
    if not url.startswith(("http://", "https://")):
        raise NodeError("url should start with http:// or https://")
    if data["method"].lower() not in METHODS:
        raise NodeError(f"Invalid http method {data['method']}")
    if parameters := _lines(filled(data.get("params") or "", variables)):
        url += ("&" if "?" in url else "?") + urlencode(parameters)
    request = urllib.request.Request(  # noqa: S310  # its scheme is checked above
        url,
        method=data["method"].upper(),
        headers={"User-Agent": "python-httpx", **dict(_lines(filled(data.get("headers") or "", variables)))},
        data=_body(data.get("body") or {}, variables),
    )
    timeout = data.get("timeout") or {}
    # One for both, as the library has it.
    seconds = max(timeout.get("connect") or 10, timeout.get("read") or 60)
    try:
        with _through_proxy().open(request, timeout=seconds) as answer:
            status, headers, body = answer.status, answer.headers, answer.read(LARGEST)
    except HTTPError as answer:
        status, headers, body = answer.code, answer.headers, answer.read(LARGEST)
    except (OSError, http.client.HTTPException):
        raise NodeError(f"Reached maximum retries (0) for URL {url}") from None
    found = {name.lower(): value for name, value in headers.items()}
    if status in REFUSED and "squid" in f"{found.get('server', '')} {found.get('via', '')}".lower():
        raise NodeError(
            f"Access to '{url}' was blocked by SSRF protection. The URL may point to a private or local network "
            "address. "
        )
    retries = (data.get("retry_config") or {}).get("retry_enabled", False)
    if retries and not 200 <= status < 300:  # noqa: PLR2004  # what HTTP calls success
        raise NodeError(f"Request failed with status code {status}")
    return {"status_code": status, "body": body.decode("utf-8", "replace"), "headers": found, "files": []}


def filled(template: str, variables: Variables) -> str:
    """Fill `{{#node.name#}}` places, Dify's own notation."""
    return re.sub(
        r"\{\{#([^#}]+)#\}\}", lambda found: str(variables.get(found.group(1).strip(), "")), template
    )


def _lines(text_of: str) -> list[tuple[str, str]]:
    """Return the `name:value` lines of headers or parameters."""
    pairs = (line.partition(":") for line in text_of.splitlines() if line.strip())
    return [(name.strip(), value.strip()) for name, _, value in pairs]


def _body(body: dict[str, Any], variables: Variables) -> bytes | None:
    kind, parts = body.get("type", "none"), body.get("data") or []
    if kind == "none":
        return None
    if kind not in {"json", "raw-text"} or len(parts) != 1:
        raise NodeError(f"the stand-in sends no body of type {kind}: it knows none, json and raw-text")
    return filled(parts[0]["value"], variables).encode()


def _direct() -> urllib.request.OpenerDirector:
    """Return a client that ignores the proxies of the environment."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))


class _ForAll(urllib.request.ProxyHandler):
    """Sends every request to the proxy, those to hosts of NO_PROXY as well."""

    def proxy_open(self, req: urllib.request.Request, proxy: str, type: str) -> None:  # noqa: A002, ARG002  # urllib's names
        """Direct a request to the proxy."""
        req.set_proxy(urlsplit(proxy).netloc, "http")


def _through_proxy() -> urllib.request.OpenerDirector:
    # As the library has it: one proxy for all schemes takes no exceptions, proxies by scheme follow NO_PROXY.
    if one := text("SSRF_PROXY_ALL_URL"):
        return urllib.request.build_opener(_ForAll({"http": one, "https": one}))
    proxies = {"http": text("SSRF_PROXY_HTTP_URL"), "https": text("SSRF_PROXY_HTTPS_URL")}
    # Dify goes without one unless it has both.
    return urllib.request.build_opener(urllib.request.ProxyHandler(proxies if all(proxies.values()) else {}))
