"""The rendered edge with TLS, parsed: policy, redirect, names, and the revision of a renewed certificate."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from infra.catalogue.releases import RELEASES
from infra.edge import check as nginx_check
from infra.edge.context import ServiceNames, edge_context
from infra.edge.paths import CERTIFICATE_FILE, KEY_FILE
from infra.edge.render import edge_configuration
from infra.edge.tls import private_files, public_files
from infra.settings.stack import Settings
from support.certificates import Pair, issue
from support.configuration import settings
from tests.unit.test_render import Directive, edge_files, parsed, walk, written

HOST = "dify.example.com"
PAIR = issue([HOST, "chat.example.com"])
MODES: dict[str, dict[str, Any]] = {
    "off": {},
    "selfsigned": {"tls": {"mode": "selfsigned"}},
    "files": {"tls": {"mode": "files"}, "publicUrl": f"https://{HOST}"},
    "acme": {
        "tls": {"mode": "acme", "acme": {"email": "ops@example.com", "agreeTerms": True}},
        "publicUrl": f"https://{HOST}",
        "bindAddress": "0.0.0.0",  # noqa: S104  # the CA comes from outside
    },
    "cert-manager": {
        "tls": {"mode": "cert-manager", "issuer": {"name": "letsencrypt"}},
        "publicUrl": f"https://{HOST}",
        "platform": "kubernetes",
        "kubernetes": {"context": "test", "registry": "preloaded"},
    },
}
FEATURES: dict[str, dict[str, Any]] = {
    "plain": {},
    "no redirect, HSTS": {"tls": {"redirect": False, "hstsSeconds": 300}},
    "HSTS, everyone on v1": {"tls": {"hstsSeconds": 63072000}, "cors": {"v1": ["*"]}},
    "no redirect, large uploads": {"tls": {"redirect": False}, "maxUploadMegabytes": 500},
}
# Every mode with every release and every feature, each release with each feature: a Latin square.
PAIRWISE = [
    (mode, list(RELEASES)[column], list(FEATURES)[(row + column) % len(FEATURES)])
    for row, mode in enumerate(MODES)
    for column in range(len(RELEASES))
]


def tls_settings(mode: str, more: Mapping[str, Any] | None = None, pair: Pair = PAIR) -> Settings:
    extra = dict(more or {})
    tls = {**MODES[mode].get("tls", {}), **extra.pop("tls", {})}
    if mode == "off":
        tls.pop("hstsSeconds", None)
    return settings(
        {**MODES[mode], **extra, **({"tls": tls} if tls else {})},
        {"tlsCertificate": pair.pem, "tlsKey": pair.key_pem} if mode == "files" else {},
    )


def files_of(found: Settings) -> dict[str, str]:
    return edge_files(edge_context(found, RELEASES[found.release]))


def servers(files: Mapping[str, str], tmp_path: Path) -> dict[str, list[Directive]]:
    """Return the directives of each server, by the file it stands in."""
    return {
        name: one["block"]
        for name, directives in parsed(files, tmp_path).items()
        if name.startswith("servers/")
        for _, one in walk(directives)
        if one["directive"] == "server"
    }


def values(block: list[Directive], directive: str) -> list[list[str]]:
    return [one["args"] for one in block if one["directive"] == directive]


def http_of(files: Mapping[str, str], tmp_path: Path) -> list[Directive]:
    return parsed(files, tmp_path)["http/tls.conf"]


@pytest.mark.parametrize(("mode", "release", "feature"), PAIRWISE)
def test_every_pair_parses_and_gixy_finds_nothing(
    mode: str, release: str, feature: str, tmp_path: Path
) -> None:
    found = tls_settings(mode, {**FEATURES[feature], "release": release})
    files = files_of(found)

    parsed(files, tmp_path)
    assert nginx_check.lint(written(files, tmp_path)) == []


def test_pairs_are_complete() -> None:
    for one, other in ((MODES, RELEASES), (MODES, FEATURES), (RELEASES, FEATURES)):
        wanted = {(a, b) for a in one for b in other}
        covered = {(a, b) for row in PAIRWISE for a in row for b in row}
        assert wanted <= covered


def test_without_tls_nothing_of_it_is_left(tmp_path: Path) -> None:
    found = tls_settings("off")
    directives = [
        one["directive"] for file in parsed(files_of(found), tmp_path).values() for _, one in walk(file)
    ]

    assert not [name for name in directives if name.startswith("ssl_") or name == "http2"]
    assert not public_files(found)
    assert not private_files(found)
    assert set(servers(files_of(found), tmp_path)) == {
        "servers/dify.conf",
        "servers/starting.conf",
        "servers/status.conf",
        "servers/unknown.conf",
    }


@pytest.mark.parametrize("mode", ["selfsigned", "files", "acme", "cert-manager"])
def test_policy_is_the_intermediate_profile(mode: str, tmp_path: Path) -> None:
    http = http_of(files_of(tls_settings(mode)), tmp_path)

    assert values(http, "ssl_protocols") == [["TLSv1.2", "TLSv1.3"]]
    assert values(http, "ssl_session_tickets") == [["off"]]
    assert values(http, "ssl_prefer_server_ciphers") == [["off"]]
    ((cache, *_),) = values(http, "ssl_session_cache")
    assert cache.startswith("shared:")
    ((ciphers,),) = values(http, "ssl_ciphers")
    # Forward secrecy and authenticated encryption, each of them.
    assert all(name.startswith("ECDHE-") for name in ciphers.split(":"))
    assert all("GCM" in name or "POLY1305" in name for name in ciphers.split(":"))


@pytest.mark.parametrize("mode", ["selfsigned", "files"])
def test_certificate_that_the_kit_knows_lies_beside_the_configuration(mode: str, tmp_path: Path) -> None:
    found = tls_settings(mode)
    http = http_of(files_of(found), tmp_path)

    # Relative: each revision of the configuration has its own.
    assert values(http, "ssl_certificate") == [[CERTIFICATE_FILE]]
    assert values(http, "ssl_certificate_key") == [[KEY_FILE]]
    assert set(public_files(found)) == {CERTIFICATE_FILE}
    assert set(private_files(found)) == {KEY_FILE}


def test_certificate_of_acme_lies_on_its_volume(tmp_path: Path) -> None:
    found = tls_settings("acme")
    http = http_of(files_of(found), tmp_path)

    ((certificate,),) = values(http, "ssl_certificate")
    assert certificate.startswith("/etc/dify-kit/certificates/current/")
    assert not public_files(found)
    assert not private_files(found)


def test_certificate_of_cert_manager_lies_where_its_secret_is_mounted(tmp_path: Path) -> None:
    found = tls_settings("cert-manager")
    http = http_of(files_of(found), tmp_path)

    assert values(http, "ssl_certificate") == [["/etc/dify-kit/certificates/tls.crt"]]
    assert values(http, "ssl_certificate_key") == [["/etc/dify-kit/certificates/tls.key"]]
    assert not public_files(found)
    assert not private_files(found)


def test_no_rendered_file_holds_a_key() -> None:
    for mode in ("selfsigned", "files"):
        found = tls_settings(mode)
        assert all(
            "PRIVATE KEY" not in text for text in [*files_of(found).values(), *public_files(found).values()]
        )


@pytest.mark.parametrize("mode", ["selfsigned", "files", "acme", "cert-manager"])
def test_plain_port_redirects_and_spares_what_cannot_follow(mode: str, tmp_path: Path) -> None:
    found = servers(files_of(tls_settings(mode)), tmp_path)
    plain, dify = found["servers/redirect.conf"], found["servers/dify.conf"]

    assert values(plain, "listen") == [["unix:/run/edge/http.sock"]]
    assert values(dify, "listen") == [["unix:/run/edge/https.sock", "ssl"]]
    assert values(dify, "http2") == [["on"]]
    preflight = [one for one in plain if one["directive"] == "if" and "$cors_preflight" in one["args"][0]]
    assert [values(one["block"], "return") for one in preflight] == [[["204"]]]
    locations = {" ".join(one["args"]): one["block"] for one in plain if one["directive"] == "location"}
    ((status, address),) = values(locations["/"], "return")
    assert status == "308"
    assert address == (
        "https://$host:8443$request_uri" if mode == "selfsigned" else "https://$host$request_uri"
    )
    assert values(locations["= /healthz"], "return")[0][0] == "200"
    assert ["acme/*.conf"] in values(plain, "include")


def test_challenges_are_served_for_acme_alone(tmp_path: Path) -> None:
    for mode in MODES:
        directory = tmp_path / mode
        found = parsed(files_of(tls_settings(mode)), directory)["acme/challenges.conf"]
        locations = [one["args"] for one in found if one["directive"] == "location"]
        served = mode in {"acme", "cert-manager"}
        assert locations == ([["^~", "/.well-known/acme-challenge/"]] if served else [])


def test_challenges_are_passed_to_the_pods_of_cert_manager_without_credentials(tmp_path: Path) -> None:
    names = ServiceNames(resolver="10.96.0.10", suffix=".dify-unit.svc.cluster.local")
    found = tls_settings("cert-manager")
    files = edge_files(edge_context(found, RELEASES[found.release], names))
    (location,) = [one["block"] for one in parsed(files, tmp_path)["acme/challenges.conf"]]

    assert values(location, "proxy_pass") == [["http://$acme_solvers"]]
    assert values(location, "set") == [
        ["$acme_solvers", "certificate-challenges.dify-unit.svc.cluster.local:8089"]
    ]
    # A location with a header of its own inherits none.
    assert values(location, "proxy_set_header") == [["Host", "$host"]]
    # One of several pods knows the name.
    assert values(location, "proxy_next_upstream") == [["error", "timeout", "http_404"]]
    assert values(location, "resolver")[0][0] == "10.96.0.10"


@pytest.mark.parametrize("mode", ["selfsigned", "files", "acme"])
def test_without_redirect_both_ports_serve_dify(mode: str, tmp_path: Path) -> None:
    found = servers(files_of(tls_settings(mode, {"tls": {"redirect": False}})), tmp_path)

    assert "servers/redirect.conf" not in found
    assert values(found["servers/dify.conf"], "listen") == [
        ["unix:/run/edge/http.sock"],
        ["unix:/run/edge/https.sock", "ssl"],
    ]
    assert ["acme/*.conf"] in values(found["servers/dify.conf"], "include")


@pytest.mark.parametrize(
    ("mode", "more", "refused"),
    [
        ("files", {}, True),
        ("acme", {}, True),
        ("cert-manager", {}, True),
        ("selfsigned", {"publicUrl": f"https://{HOST}"}, True),
        # Clients send no name with an address.
        ("selfsigned", {}, False),
        ("selfsigned", {"publicUrl": "https://192.0.2.1"}, False),
    ],
)
def test_unknown_names_get_no_certificate(
    mode: str, more: dict[str, Any], refused: bool, tmp_path: Path
) -> None:
    unknown = servers(files_of(tls_settings(mode, more)), tmp_path)["servers/unknown_tls.conf"]

    assert values(unknown, "listen") == [["unix:/run/edge/https.sock", "ssl", "default_server"]]
    assert values(unknown, "ssl_reject_handshake") == ([["on"]] if refused else [])
    (rest,) = [one["block"] for one in unknown if one["directive"] == "location" and one["args"] == ["/"]]
    assert values(rest, "return") == [["444"]]


def test_hsts_is_sent_when_asked_for_and_only_on_https(tmp_path: Path) -> None:
    asked = http_of(files_of(tls_settings("files", {"tls": {"hstsSeconds": 300}})), tmp_path / "asked")
    not_asked = http_of(files_of(tls_settings("files")), tmp_path / "not")

    assert values(asked, "add_header") == [["Strict-Transport-Security", "$edge_hsts", "always"]]
    (hsts,) = [one for one in asked if one["directive"] == "map"]
    assert hsts["args"] == ["$https", "$edge_hsts"]
    assert {one["directive"]: one["args"] for one in hsts["block"]} == {
        "default": [""],
        "on": ["max-age=300"],
    }
    assert values(not_asked, "add_header") == []


def test_renewed_certificate_is_a_new_revision() -> None:
    def revision(pair: Pair) -> str:
        found = tls_settings("files", pair=pair)
        return edge_configuration(edge_context(found, RELEASES[found.release])).revision

    renewed = issue([HOST, "chat.example.com"], key=PAIR.key)

    assert revision(PAIR) == revision(PAIR)
    assert revision(PAIR) != revision(renewed)


@pytest.mark.parametrize(
    ("redirect", "proto", "port"),
    [
        (True, {"default": "https"}, {"default": "9443"}),
        (False, {"default": "https", "http": "http"}, {"default": "9443", "http": "8080"}),
    ],
)
def test_upstream_hears_scheme_and_port(
    redirect: bool, proto: dict[str, str], port: dict[str, str], tmp_path: Path
) -> None:
    plain = {"httpsPort": 9443, "tls": {"redirect": redirect}}
    client = parsed(files_of(tls_settings("selfsigned", plain)), tmp_path)["http/client.conf"]
    found = {
        one["args"][1]: {entry["directive"]: entry["args"][0] for entry in one["block"]}
        for one in client
        if one["directive"] == "map"
    }

    assert found["$edge_proto"] == proto
    assert found["$edge_port"] == port
