"""Origins that a guarded API must tell apart."""

from urllib.parse import urlsplit

DENIED = "https://denied.example"
FALLBACK = "https://app.example.com"


def look_alikes(origin: str) -> dict[str, str]:
    """Return origins that resemble `origin` and are not it, by the way they differ."""
    parts = urlsplit(origin)
    host, scheme = parts.hostname or "", parts.scheme
    port = f":{parts.port}" if parts.port else ""
    other = "http" if scheme == "https" else "https"
    found = {
        "suffix": f"{scheme}://{host}.evil.example{port}",
        "prefix": f"{scheme}://evil-{host}{port}",
        "other port": f"{scheme}://{host}:{(parts.port or 8442) + 1}",
        "other scheme": f"{other}://{host}{port}",
        "upper case": origin.upper(),
        "trailing dot": f"{scheme}://{host}.{port}",
        "with a path": f"{origin}/",
        "null": "null",
        "denied": DENIED,
    }
    if "." in host:
        found["any character for the dot"] = f"{scheme}://{host.replace('.', 'x', 1)}{port}"
    return found
