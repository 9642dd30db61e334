"""Values that several parts of the configuration contain: URLs, paths of claims, CA files."""

import re
from pathlib import Path
from urllib.parse import urlsplit

from dify_gateway.reading import Entry

MOST_PORT = 65_535
ANY_TEXT = re.compile(r"[ -~]{1,512}", re.ASCII)
CA_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\.pem", re.ASCII)


def url(entry: Entry, key: str, *, bare: bool = False) -> str:
    """Return a URL. A `bare` one has no path: RFC 8414 puts the metadata under the host. Raises FileError."""
    value = entry.text(key, ANY_TEXT, "a URL")
    problem = url_problem(value)
    if problem:
        entry.fail(key, problem)
    if bare and urlsplit(value).path:
        entry.fail(key, "must have no path and no trailing slash")
    return value


def url_problem(value: str) -> str:
    """Return why a text is not the URL of a service, empty when it is."""
    parts = urlsplit(value)
    try:
        usable = bool(parts.hostname) and (parts.port is None or 0 < parts.port <= MOST_PORT)
    except ValueError:
        usable = False
    if (
        not usable
        or parts.scheme not in {"https", "http"}
        or parts.query
        or parts.fragment
        or "@" in parts.netloc
    ):
        return (
            "must be an http(s) URL such as https://dify.example.com, without a user name, query or fragment"
        )
    return ""


def claim(entry: Entry, key: str, default: str | list[str]) -> tuple[str, ...]:
    """Return the path of a claim: a text is one name that may contain dots; a list leads into nested objects."""
    value = entry.values.get(key, default)
    path = [value] if isinstance(value, str) else value
    if not isinstance(path, list) or not all(isinstance(part, str) and part for part in path):
        entry.fail(key, "must be the name of a claim, or a list of names that leads into nested objects")
    if key in entry.values and not path:
        entry.fail(key, "must name a claim")
    return tuple(path)


def ca_file(entry: Entry, directory: Path) -> str:
    """Return the file of the same revision that `ca_file` names, empty without the key. Raises FileError."""
    if "ca_file" not in entry.values:
        return ""
    name = entry.text("ca_file", CA_FILE, "the name of a .pem file of the same revision")
    if not (directory / name).is_file():
        entry.fail("ca_file", "names a file that this revision lacks: add it, or remove the key")
    return name
