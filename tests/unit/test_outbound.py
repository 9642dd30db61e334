"""`dify:outbound`: what is accepted, and what each service gets of it."""

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pulumi
import pytest
from cryptography import x509

from infra.catalogue import networks
from infra.catalogue.container_paths import ROOTS_FILE, SQUID_PARENT_FILE
from infra.catalogue.outbound import WAYS, Way, way_of
from infra.catalogue.releases import RELEASES
from infra.catalogue.selection import Selection, vector_stores
from infra.catalogue.services import SERVICES
from infra.edge import llm as edge_llm
from infra.edge import llm_tunnel
from infra.edge.context import edge_context
from infra.edge.paths import EDGE_DIRECTORY
from infra.edge.render import edge_files
from infra.jinja import TEMPLATES
from infra.services import litellm, litellm_files
from infra.services.files import squid_files
from infra.services.outbound import ROOTS_VARIABLES, gateway_files
from infra.services.spec import ServiceSpec
from infra.services.specs import spec
from infra.settings import certificates, roots
from infra.settings.given import SEALED, Given
from infra.settings.outbound import Proxy, own_names
from infra.settings.program import load
from infra.settings.stack import Settings, read
from support.certificates import issue
from support.configuration import PLAIN, SECRETS, configure, resolved, settings
from tests.unit.recording import CONTAINER, DYNAMIC, IMAGE, run_program

PROXY = "http://proxy.example.com:3128"
CREDENTIALS = "kit:p@ss w%rd/1"
QUOTED = "kit:p%40ss%20w%25rd%2F1"
LLM = {
    "enabled": True,
    "upstreams": {
        "outside": {"baseUrl": "https://llm.example/v1"},
        "corporate": {"baseUrl": "https://llm.corp.example/v1"},
    },
    "models": {"gpt-4.1": ["outside", "corporate"]},
}
LLM_KEYS = {"llmKeys": json.dumps({"outside": "sk-" + "o" * 30, "corporate": "sk-" + "c" * 30})}


@pytest.fixture
def ca_file(tmp_path: Path) -> Path:
    """Return a file with the CA of a company."""
    path = tmp_path / "ca.pem"
    path.write_text("# the company's\n" + issue(ca=True, name="company").pem, encoding="ascii")
    return path


def of(
    plain: Mapping[str, Any] | None = None, secrets: Mapping[str, str] | None = None, **outbound: Any
) -> Settings:
    return settings({"outbound": outbound, **(plain or {})}, secrets)


def proxy_of(found: Settings) -> Proxy:
    assert found.outbound is not None
    assert found.outbound.proxy is not None
    return found.outbound.proxy


def environment(name: str, found: Settings) -> dict[str, str]:
    return resolved(spec(name, found, found.dify).environment)


def told(outbound: Mapping[str, Any], secrets: Mapping[str, str] | None = None) -> str:
    configure({"outbound": dict(outbound)}, secrets)
    with pytest.raises(pulumi.RunError) as failure:
        load(pulumi.Config("dify"), "unit")
    _, problem = str(failure.value).splitlines()
    return problem.removeprefix("  - ")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("proxy.example.com:3128", "http://"),
        ("https://proxy.example.com:3128", "plain HTTP"),
        ("socks5://proxy.example.com:1080", "plain HTTP"),
        ("http://proxy.example.com", "no port"),
        ("http://proxy.example.com:0", "no port"),
        ("http://proxy.example.com:99999", "not a URL"),
        ("http://proxy.example.com:3128/path", "a path"),
        ("http://proxy.example.com:3128?x", "a query"),
        ("http://[::1]:3128", "IPv6"),
        ("http://proxy example:3128", "host name"),
        ("http://x;include:3128", "host name"),
        ("http://2130706433:3128", "ends in a number"),
        ("http://localhost:3128", "172.17.0.1"),
        ("http://127.0.0.1:3128", "172.17.0.1"),
        ("http://redis:6379", "service of the stack"),
    ],
)
def test_url_that_is_no_proxy_is_reported_with_the_fix(url: str, why: str) -> None:
    problem = told({"proxy": url})

    assert problem.startswith(f"dify:outbound.proxy: '{url}': "), problem
    assert why in problem
    assert "; use " in problem


def test_password_in_the_url_is_refused_and_not_shown() -> None:
    problem = told({"proxy": "http://kit:hunter2@proxy.example.com:3128"})

    assert problem.startswith("dify:outbound.proxy: contains a user name or a password")
    assert "dify-kit set outboundCredentials" in problem
    assert "hunter2" not in problem


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("*.corp.example", "wildcards"),
        ("*", "wildcards"),
        ("10.0.0.0/8", "networks"),
        ("corp example", "host name"),
        ("corp.example:8080", "host name"),
        ("Corp.example", "lower case"),
        ("a,b", "host name"),
        (".", "no host"),
    ],
)
def test_exception_that_programs_read_differently_is_reported(name: str, why: str) -> None:
    problem = told({"proxy": PROXY, "noProxy": [name]})

    assert problem.startswith(f"dify:outbound.noProxy: '{name}': "), problem
    assert why in problem


def test_exceptions_need_a_proxy() -> None:
    assert "set outbound.proxy too" in told({"noProxy": ["corp.example"]})


@pytest.mark.parametrize("text", ["kitten", ":hunter2", "qz", "kit:pässword", "kit:pass\nword"])
def test_credentials_of_another_form_are_reported_without_their_text(text: str) -> None:
    problem = told({"proxy": PROXY}, {"outboundCredentials": text})

    assert problem.startswith("dify:outboundCredentials: ")
    assert text not in problem


@pytest.mark.parametrize("credentials", ["kit:password", SEALED], ids=["known", "sealed"])
def test_credentials_need_a_proxy(credentials: Any) -> None:
    values = {**PLAIN, **SECRETS, "outboundCredentials": credentials}

    reading = read(Given(values=values, encrypted=frozenset({*SECRETS, "outboundCredentials"})), "unit")

    (problem,) = reading.problems
    assert problem.startswith("dify:outboundCredentials: has no effect without a proxy; ")
    assert "dify-kit set outbound.proxy http://proxy.example.com:3128 --stack unit" in problem
    assert "dify-kit unset outboundCredentials --stack unit" in problem


def test_credentials_in_plain_text_are_reported() -> None:
    values = {**PLAIN, **SECRETS, "outbound": {"proxy": PROXY}, "outboundCredentials": "kit:password"}

    reading = read(Given(values=values, encrypted=frozenset(SECRETS)), "unit")

    (problem,) = reading.problems
    assert "dify:outboundCredentials: is stored in plain text" in problem


def test_sealed_credentials_are_set() -> None:
    values = {**PLAIN, **SECRETS, "outbound": {"proxy": PROXY}, "outboundCredentials": SEALED}

    reading = read(Given(values=values, encrypted=frozenset({*SECRETS, "outboundCredentials"})), "unit")

    assert reading.problems == ()
    assert proxy_of(reading.settings).login is not None


def test_ca_that_is_none_is_reported_before_anything_is_created(tmp_path: Path) -> None:
    now = certificates.now_utc()
    company, file = issue(ca=True, name="company"), tmp_path / "ca.pem"
    for text, why in (
        ("", "is not a file with certificates"),
        ("nothing", "is not a file with certificates"),
        (issue(["proxy.example.com"], issuer=company).pem, "is not that of a CA"),
        (company.pem + issue(["proxy.example.com"], issuer=company).pem, "certificate 2 (CN="),
        (
            issue(ca=True, name="old", start=now - timedelta(days=9), end=now - timedelta(days=1)).pem,
            "expired on",
        ),
        (
            issue(ca=True, name="new", start=now + timedelta(days=9), end=now + timedelta(days=19)).pem,
            "is valid only from",
        ),
    ):
        file.write_text(text, encoding="ascii")
        problem = told({"caFile": str(file)})
        assert problem.startswith("dify:outbound.caFile: "), problem
        assert why in problem, problem
    assert "is not a file" in told({"caFile": str(tmp_path / "none.pem")})


def test_nothing_is_set_by_default() -> None:
    found = settings()
    names = {"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", *ROOTS_VARIABLES}

    assert found.outbound is None
    for name in found.dify.services:
        # The sandboxes have their squid.
        if not name.endswith("sandbox"):
            assert not names & set(environment(name, found)), name
        assert not [file for file in spec(name, found, found.dify).files if file.path == ROOTS_FILE], name


def test_without_it_the_same_bytes_are_rendered_as_by_templates_without_its_blocks(tmp_path: Path) -> None:
    for template in ("nginx/nginx.conf.j2", "nginx/stream/llm.conf.j2", "squid/common.conf.j2"):
        text = without_blocks((TEMPLATES / template).read_text(encoding="utf-8"))
        assert not re.search("edge.llm.tunnel|tunnelled|proxy.parent", text)
        (tmp_path / template).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / template).write_text(text, encoding="utf-8")

    for llm in ({"enabled": False}, LLM):
        found = settings({"llm": llm}, LLM_KEYS if llm is LLM else {})
        older = replace(found, templates_dir=tmp_path)
        assert edge_files(edge_context(found, found.dify)) == edge_files(
            edge_context(found, found.dify), overrides=tmp_path
        )
        assert f"{EDGE_DIRECTORY}/njs/tunnel.js" not in edge_files(edge_context(found, found.dify))
        for squid in ("ssrf-proxy", "agent-ssrf-proxy"):
            assert squid_files(squid, found) == squid_files(squid, older)


def without_blocks(template: str) -> str:
    """Return a template without the blocks of `dify:outbound`; of those with two branches the other one stays."""
    kept, blocks = [], list[tuple[bool, bool]]()
    for line in template.splitlines(keepends=True):
        own = blocks[-1][0] if blocks else False
        if line.startswith("{% if "):
            own = bool(re.search("tunnel|proxy.parent", line))
            blocks.append((own, own))
        elif line.startswith("{% else"):
            blocks[-1] = (own, False)
        elif line.startswith("{% endif"):
            blocks.pop()
        if not own or not line.startswith("{% "):
            kept += [] if any(cut for _, cut in blocks) else [line]
    return "".join(kept)


def test_every_service_with_a_route_out_has_its_row() -> None:
    outside = {name for name, one in networks.NETWORKS.items() if not one.internal}
    reaching = {name for name, one in SERVICES.items() if outside & set(one.networks)}

    assert reaching <= set(WAYS)
    assert {name for name in WAYS if name not in reaching} == {"local-sandbox"}


def test_services_of_the_stack_are_never_proxied() -> None:
    found = of(proxy=PROXY, noProxy=[".corp.example", "10.1.2.3"])

    listed = environment("api", found)["NO_PROXY"].split(",")

    assert {name for name, one in SERVICES.items() if one.port} < set(listed)
    assert {"localhost", "127.0.0.1", "::1", "corp.example", "10.1.2.3"} < set(listed)
    proxy = proxy_of(found)
    assert not any(
        proxy.passes(name) for name in (*own_names(), "corp.example", "x.corp.example", "10.1.2.3")
    )
    assert all(
        proxy.passes(name) for name in ("example.com", "notcorp.example", "api.example.com", "10.1.2.4")
    )


def test_list_of_exceptions_is_the_same_in_all_stacks_of_a_setting() -> None:
    """Else a feature that adds a service would replace every container."""
    lists = {
        environment("api", of({"release": release, "images": "registry", "vectorStore": store}, proxy=PROXY))[
            "NO_PROXY"
        ]
        for release in RELEASES
        for store in vector_stores()
    }

    assert len(lists) == 1


@pytest.mark.parametrize("name", [name for name, way in WAYS.items() if Way.VARIABLES in way])
def test_proxy_reaches_a_service_by_its_variables(name: str) -> None:
    found = _everything(proxy=PROXY)
    env = environment(name, found)

    assert env["HTTP_PROXY"] == env["HTTPS_PROXY"] == PROXY
    # gRPC reads this one, for calls of the vector store too.
    assert "http_proxy" not in env
    secret = _everything(secrets={"outboundCredentials": CREDENTIALS}, proxy=PROXY)
    assert environment(name, secret)["HTTPS_PROXY"] == f"http://{QUOTED}@proxy.example.com:3128"


def test_url_with_a_password_is_a_secret() -> None:
    found = of(secrets={"outboundCredentials": CREDENTIALS}, proxy=PROXY)
    url = spec("api", found, found.dify).environment["HTTPS_PROXY"]

    assert _is_secret(url)


@pytest.mark.parametrize("name", [name for name, way in WAYS.items() if Way.ROOTS in way])
def test_ca_reaches_a_service_with_the_public_ones(name: str, ca_file: Path) -> None:
    found = _everything(caFile=str(ca_file))
    made = spec(name, found, found.dify)
    env = resolved(made.environment)

    paths = {env[variable] for variable in ROOTS_VARIABLES if variable in env}
    assert len(paths) == 1
    path = paths.pop()
    if name == "gateway":
        # It comes with its configuration: its root file system is read-only.
        assert made.read_only
        assert path == "/etc/dify-gateway/current/roots.pem"
        trusted = x509.load_pem_x509_certificates(gateway_files(found)["roots.pem"].encode())
    else:
        assert not made.read_only
        trusted = _trusted(made, path)
    names = [one.subject.rfc4514_string() for one in trusted]
    assert len(trusted) > 100
    assert names[-1] == "CN=company"
    assert "HTTPS_PROXY" not in env or name == "local-sandbox"


def test_certbot_trusts_the_ca_of_its_directory_and_the_companys(tmp_path: Path, ca_file: Path) -> None:
    own = tmp_path / "acme.pem"
    own.write_text(issue(ca=True, name="acme").pem, encoding="ascii")
    tls = {"mode": "acme", "acme": {"email": "a@example.com", "agreeTerms": True, "caFile": str(own)}}
    found = of({"tls": tls, "publicUrl": "https://dify.example.com", "bindAddress": "*"}, caFile=str(ca_file))
    made = spec("certbot", found, found.dify)

    path = resolved(made.environment)["REQUESTS_CA_BUNDLE"]
    assert [one.subject.rfc4514_string() for one in _trusted(made, path)] == ["CN=acme", "CN=company"]


def test_files_of_cas_are_joined_by_a_line_break(tmp_path: Path, ca_file: Path) -> None:
    own, other = tmp_path / "own.pem", tmp_path / "other.pem"
    own.write_text(issue(ca=True, name="own").pem.rstrip("\n"), encoding="ascii")
    other.write_text(issue(ca=True, name="other").pem.rstrip("\n"), encoding="ascii")
    upstreams = {
        "outside": {"baseUrl": "https://llm.example/v1", "caFile": str(own)},
        "corporate": {"baseUrl": "https://llm.corp.example/v1", "caFile": str(other)},
    }
    plain = {
        "llm": {**LLM, "upstreams": upstreams, "engine": "litellm"},
        "tls": {"mode": "acme", "acme": {"email": "a@example.com", "agreeTerms": True, "caFile": str(own)}},
        "publicUrl": "https://dify.example.com",
        "bindAddress": "*",
    }
    found = of(plain, LLM_KEYS, proxy=PROXY, caFile=str(ca_file))
    assert found.llm is not None
    certbot = spec("certbot", found, found.dify)

    text = litellm_files.texts(found.llm, {"outside": "a", "corporate": "b"}, "m", None)[litellm.ROOTS]
    trusted = x509.load_pem_x509_certificates(text.encode())
    assert [one.subject.rfc4514_string() for one in trusted] == ["CN=own", "CN=other", "CN=company"]
    path = resolved(certbot.environment)["REQUESTS_CA_BUNDLE"]
    assert [one.subject.rfc4514_string() for one in _trusted(certbot, path)] == ["CN=own", "CN=company"]


def test_services_without_a_row_get_nothing(ca_file: Path) -> None:
    found, plain = of(proxy=PROXY, caFile=str(ca_file)), settings()
    chosen = Selection(release=found.dify.services, vector_store="pgvector", parts=frozenset())
    names = [name for name in chosen.services() if way_of(name) is Way.NONE]

    assert {"migration", "web", "sandbox", "redis"} < set(names)
    for name in names:
        more = set(environment(name, found)) - set(environment(name, plain))
        # The migration shares what api has.
        assert more <= {"SSRF_PROXY_ALL_URL"}, name
        assert not [file for file in spec(name, found, found.dify).files if file.path == ROOTS_FILE], name


@pytest.mark.parametrize("name", ["ssrf-proxy", "agent-ssrf-proxy"])
def test_squid_sends_what_it_admits_to_the_proxy(name: str) -> None:
    found = of(proxy=PROXY, noProxy=["corp.example", "10.1.2.3"])
    lines = _squid(name, found)

    (peer,) = [line for line in lines if line[0] == "cache_peer"]
    assert peer[1:5] == ["proxy.example.com", "parent", "3128", "0"]
    assert ["never_direct", "allow", "all"] in lines
    direct = {line[1]: set(line[2:]) for line in lines if line[0] == "acl" and line[1].startswith("direct_")}
    assert {f".{one}" for one in own_names()} | {".corp.example"} < direct["direct_names"] - {
        "dstdomain",
        "-n",
    }
    assert direct["direct_addresses"] == {"dst", "127.0.0.1", "::1", "10.1.2.3"}
    # What it refuses is the same, in the same order.
    assert [one for one in lines if one[0] == "http_access"] == [
        one for one in _squid(name, settings()) if one[0] == "http_access"
    ]


@pytest.mark.parametrize(
    "listed",
    [
        ["corp.example", "wiki.corp.example", "deep.wiki.corp.example"],
        ["wiki.corp.example", "corp.example"],
        ["localhost", "one.localhost", "127.0.0.1", "10.1.2.3"],
        ["api", "inside.api", "redis"],
        [".corp.example", "corp.example", "notcorp.example", "example"],
    ],
)
@pytest.mark.parametrize("name", ["ssrf-proxy", "agent-ssrf-proxy"])
def test_no_name_of_squid_covers_another(name: str, listed: list[str]) -> None:
    """Squid ends at its start with `is a subdomain of`."""
    found = of({"ssrfAllowPrivate": ["wiki.internal", ".internal", "a.b", "b"]}, proxy=PROXY, noProxy=listed)

    lists = [line[3:] for line in _squid(name, found) if line[:1] == ["acl"] and line[2] == "dstdomain"]
    assert {len(one) for one in lists} != {1}
    for patterns in lists:
        for one in patterns:
            rivals = [other for other in patterns if other.startswith(".") and other != one]
            assert not [other for other in rivals if f".{one.removeprefix('.')}".endswith(other)], patterns
        assert len(patterns) == len(set(patterns))
    proxy = proxy_of(found)
    assert not any(proxy.passes(host.removeprefix(".")) for host in listed)
    assert len(proxy.exceptions) == len(set(proxy.exceptions))
    (direct,) = [line[3:] for line in _squid(name, found) if line[:2] == ["acl", "direct_names"]]
    names = [host.removeprefix(".") for host in listed if not host[0].isdigit()]
    assert all(any(f".{host}".endswith(one) for one in direct) for host in names)


@pytest.mark.parametrize("name", ["api", "worker", "api-websocket"])
def test_http_nodes_use_squid_for_hosts_without_proxy_too(name: str) -> None:
    """With a proxy for each scheme, httpx follows NO_PROXY; with one for all it does not."""
    env = environment(name, of(proxy=PROXY, noProxy=["corp.example"]))
    assert env["SSRF_PROXY_ALL_URL"] == env["SSRF_PROXY_HTTP_URL"] == "http://ssrf-proxy:3128"
    assert "SSRF_PROXY_ALL_URL" not in environment(name, settings())


def test_squid_gets_the_password_by_a_secret_variable() -> None:
    found = of(secrets={"outboundCredentials": CREDENTIALS}, proxy=PROXY)
    made = spec("ssrf-proxy", found, found.dify)

    lines = _squid("ssrf-proxy", found)
    assert [line for line in lines if line[0] in {"cache_peer", "include"}] == [
        ["include", SQUID_PARENT_FILE]
    ]
    assert resolved(made.environment)["KIT_PARENT"].endswith(f" default login={QUOTED}")
    assert _is_secret(made.environment["KIT_PARENT"])
    assert made.entrypoint is not None
    assert made.entrypoint[:2] == ("sh", "-c")
    assert made.entrypoint[-5:] == ("squid", "squid", "-NYC", "-f", "/etc/squid/squid.conf")


def test_llm_proxy_opens_tunnels_to_upstreams_outside_alone(ca_file: Path) -> None:
    found = of({"llm": LLM}, LLM_KEYS, proxy=PROXY, noProxy=["corp.example"], caFile=str(ca_file))
    context = edge_context(found, found.dify)
    assert context.llm is not None

    assert {one.name: one.tunnelled for one in context.llm.upstreams} == {"outside": True, "corporate": False}
    assert {one.ca for one in context.llm.upstreams} == {llm_tunnel.ROOTS_FILE}
    public = edge_llm.public_files(found.llm)[llm_tunnel.ROOTS_FILE]
    assert x509.load_pem_x509_certificates(public.encode())[-1].subject.rfc4514_string() == "CN=company"
    files = edge_files(context)
    assert files[f"{EDGE_DIRECTORY}/njs/tunnel.js"] == (TEMPLATES / "nginx/njs/tunnel.js").read_text()
    stream = files[f"{EDGE_DIRECTORY}/stream/llm.conf"]
    servers = stream.split("server {")[1:]
    assert ["js_filter tunnel.open;" in one for one in servers] == [True, False]
    assert resolved(edge_llm.private_files(found.llm))[llm_tunnel.SECRETS_FILE] == '{"authorization": ""}'


def test_password_of_the_proxy_is_in_the_private_file_alone_and_changes_the_revision() -> None:
    found, other = (
        of({"llm": LLM}, {**LLM_KEYS, "outboundCredentials": one}, proxy=PROXY)
        for one in (CREDENTIALS, "kit:another")
    )
    files, others = (edge_files(edge_context(one, one.dify)) for one in (found, other))
    private = resolved(edge_llm.private_files(found.llm))

    assert json.loads(private[llm_tunnel.SECRETS_FILE]) == {"authorization": "Basic a2l0OnBAc3MgdyVyZC8x"}
    shown = "".join([*files.values(), *edge_llm.hidden_files(found.llm).values()])
    assert "a2l0OnBAc3MgdyVyZC8x" not in shown
    assert "w%rd" not in shown
    assert files != others


def test_display_names_the_secret_of_the_proxy_only_where_there_is_one() -> None:
    without, found = (
        of({"llm": LLM}, {**LLM_KEYS, **more}, proxy=PROXY)
        for more in ({}, {"outboundCredentials": CREDENTIALS})
    )

    shown, of_login = (edge_llm.hidden_files(one.llm)[llm_tunnel.SECRETS_FILE] for one in (without, found))

    assert json.loads(shown) == {"authorization": ""}
    assert json.loads(of_login) == {"authorization": "<dify:outboundCredentials>"}


def test_no_tunnel_where_every_upstream_is_an_exception() -> None:
    found = of({"llm": LLM}, LLM_KEYS, proxy=PROXY, noProxy=["example"])

    assert found.llm is not None
    assert llm_tunnel.tunnel(found.llm) is None
    assert llm_tunnel.SECRETS_FILE not in edge_llm.private_files(found.llm)
    assert f"{EDGE_DIRECTORY}/njs/tunnel.js" not in edge_files(edge_context(found, found.dify))


def test_litellm_uses_variables_and_its_own_roots(ca_file: Path) -> None:
    found = of({"llm": {**LLM, "engine": "litellm"}}, LLM_KEYS, proxy=PROXY, caFile=str(ca_file))
    assert found.llm is not None
    context = edge_context(found, found.dify)
    assert context.llm is not None

    assert context.llm.tunnel is None
    assert not edge_llm.public_files(found.llm)
    trusted = litellm_files.texts(found.llm, {"outside": "a", "corporate": "b"}, "m", None)[litellm.ROOTS]
    assert found.outbound is not None
    assert trusted == found.outbound.ca


def test_builds_get_the_proxy_as_arguments_that_docker_does_not_store() -> None:
    plain = {"outbound": {"proxy": PROXY}}
    without = run_program().of(IMAGE)
    built = run_program(plain, secrets={"outboundCredentials": CREDENTIALS}).of(IMAGE)

    for name, one in built.items():
        arguments = one["build"]["buildArgs"]
        assert (
            arguments["http_proxy"] == arguments["HTTPS_PROXY"] == f"http://{QUOTED}@proxy.example.com:3128"
        )
        # All but BASE are predefined ones of Docker: no Dockerfile declares them.
        assert set(arguments) - set(without[name]["build"]["buildArgs"]) == {
            *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
            *("http_proxy", "https_proxy", "no_proxy"),
        }


def test_whole_program_declares_a_stack_behind_a_proxy(ca_file: Path) -> None:
    plain = {"outbound": {"proxy": PROXY, "caFile": str(ca_file)}, "llm": LLM}
    found = run_program(plain, secrets=LLM_KEYS).of(CONTAINER)

    with_proxy = {
        name for name, one in found.items() if any("PROXY=http://proxy." in env for env in one["envs"])
    }
    assert with_proxy == {
        *("api", "api-websocket", "worker", "worker-beat", "plugin-daemon", "agent-backend"),
    }
    uploads = {name: {file["file"] for file in one.get("uploads", [])} for name, one in found.items()}
    assert {name for name, files in uploads.items() if ROOTS_FILE in files} == {
        *with_proxy,
        "local-sandbox",
    }


def test_gateway_gets_its_roots_with_its_configuration(ca_file: Path) -> None:
    oauth = {"enabled": True, "tenants": {"acme": {"app": "echo-chat"}}}
    plain = {"outbound": {"caFile": str(ca_file)}, "oauth": oauth}

    files = run_program(plain).of(DYNAMIC)["gateway-config"]["files"]
    without = run_program({"oauth": oauth}).of(DYNAMIC)["gateway-config"]["files"]

    assert set(files) - set(without) == {"roots.pem"}
    trusted = x509.load_pem_x509_certificates(files["roots.pem"].encode())
    assert trusted[-1].subject.rfc4514_string() == "CN=company"


def test_public_roots_are_certificates_alone() -> None:
    text = roots.public_roots()

    assert len(x509.load_pem_x509_certificates(text.encode())) > 100
    assert "#" not in text


def _everything(*, secrets: Mapping[str, str] | None = None, **outbound: Any) -> Settings:
    """Return settings with every optional service on."""
    plain = {
        "llm": {**LLM, "engine": "litellm"},
        "tls": {"mode": "acme", "acme": {"email": "a@example.com", "agreeTerms": True}},
        "publicUrl": "https://dify.example.com",
        "bindAddress": "*",
    }
    return of(plain, {**LLM_KEYS, **(secrets or {})}, **outbound)


def _is_secret(value: pulumi.Input[str]) -> bool:
    assert isinstance(value, pulumi.Output)
    return asyncio.get_event_loop().run_until_complete(value.is_secret())


def _trusted(made: ServiceSpec, path: str) -> list[x509.Certificate]:
    (file,) = [one for one in made.files if one.path == path]
    assert file.mode == "0444"
    return x509.load_pem_x509_certificates(str(file.content).encode())


def _squid(name: str, found: Settings) -> list[list[str]]:
    (text,) = squid_files(name, found).values()
    return [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]
