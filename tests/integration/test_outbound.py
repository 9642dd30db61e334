"""A whole stack behind a company's proxy, which is its only way out, requires a password and decrypts TLS."""

import io
import json
import secrets
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import httpx
import pytest
from joserfc.jwk import ECKey

from infra.services.spec import ServiceSpec
from infra.services.specs import spec
from support import llm_upstream
from support.certificates import issue
from support.configuration import resolved, settings
from support.images import image_of
from support.stacks import SMALLEST, Stack, wait_until
from tests.integration import outside_servers
from tests.integration.bridge import bridge
from tests.integration.company_proxy import PORT, CompanyProxy
from tests.integration.containers import printed, readable
from tests.integration.relay import relay

MODEL = "outside-model"
# The images of the stack, and certbot's.
LOCAL = (
    "postgres",
    "redis",
    "api",
    "web",
    "squid",
    "sandbox",
    "plugin_daemon",
    "gateway",
    "nginx",
    "certbot",
)
KEY = "sk-outside-" + "k" * 30
PAGE = "https://www.outside.test:8444"
ISSUER = "https://id.outside.test:8444"
PLAIN = "http://www.outside.test:8080"
LOG_SECONDS = 30
# The program's own client, by its variables alone.
FETCH = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=20).read().decode())"
REQUESTS = "import sys, requests; print(requests.get(sys.argv[1], timeout=20).text)"


@dataclass(frozen=True, kw_only=True)
class Company:
    """A stack inside, and the proxy between it and the servers outside."""

    proxy: CompanyProxy
    url: str
    stack: Stack
    caller: str

    def inside(self, service: str, *command: str) -> str:
        """Return what a command in a service's container prints."""
        return printed(self.stack.container(service), command)

    def fetched(self, service: str, url: str) -> str:
        """Return what Python in a service's container gets from a URL."""
        return str(json.loads(self.inside(service, "python3", "-c", FETCH, url)))

    def through_squid(self, url: str, *, status: bool = False) -> str:
        """Return what comes back from a URL through the stack's squid, as an HTTP node asks it; or its status."""
        # Without the exceptions of the environment, which curl applies to this proxy too.
        options = ["-sS", "--max-time", "20", "--noproxy", "", "-x", "http://ssrf-proxy:3128"]
        options += ["-o", "/dev/null", "-w", "%{http_code}"] if status else []
        return self.inside("api", "curl", *options, url)

    def marked(self) -> str:
        """Send a request through squid and the proxy until both have logged it; return its path, which is unique."""
        path = f"/marker-{secrets.token_hex(6)}"
        assert json.loads(self.through_squid(f"{PLAIN}{path}")) == path
        assert self.proxy.came(f"{PLAIN}{path} 200")
        wait_until(
            lambda: path in self.stack.container("ssrf-proxy").logs().decode(),
            seconds=LOG_SECONDS,
            what=f"squid logs the request of {path}",
        )
        return path

    def silent_about(self, part: str) -> bool:
        """Tell whether no request with `part` in its URL came to the proxy, whose log is current."""
        self.marked()
        return not any(part in line for line in self.proxy.asked())


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Company]:
    """The stack, deployed."""
    stack = Stack(home=tmp_path_factory.mktemp("home"), release=SMALLEST)
    address = bridge()
    proxy = CompanyProxy(
        name=f"dify-{stack.name}-company",
        inside="bridge",
        directory=readable(tmp_path_factory.mktemp("proxy")),
    )
    servers: list[Any] = []
    with ExitStack() as opened:
        opened.callback(proxy.remove)
        opened.callback(stack.remove)
        opened.callback(lambda: [one.remove(force=True) for one in servers])
        # Before the stack builds them: Debian's packages are not among the servers outside.
        for role in LOCAL:
            image_of(role)
        proxy.start()
        _start_servers(proxy, servers)
        port = opened.enter_context(relay(address, (proxy.address, PORT)))
        url = f"http://{address}:{port}"
        _configure(stack, url, proxy)
        issued = stack.kit("keys", "issue", "alice")
        assert issued.code == 0, issued.output
        stack.first = stack.up()
        yield Company(proxy=proxy, url=url, stack=stack, caller=issued.stdout.strip())


def _start_servers(proxy: CompanyProxy, servers: list[Any]) -> None:
    keys = {
        "keys": [
            ECKey.generate_key("P-256", {"kid": "k", "alg": "ES256", "use": "sig"}).as_dict(private=False)
        ]
    }
    pair = issue(["llm.outside.test", "www.outside.test", "id.outside.test"], issuer=proxy.public)
    (proxy.directory / "server.pem").write_text(pair.pem, encoding="ascii")
    (proxy.directory / "server.key").write_text(pair.key_pem, encoding="ascii")
    files = {"certificate": "/proxy/server.pem", "key": "/proxy/server.key"}
    documents = {
        "/.well-known/openid-configuration": {"issuer": ISSUER, "jwks_uri": f"{ISSUER}/jwks"},
        "/jwks": keys,
    }
    upstream = {"name": "outside", "port": 8443, "secrets": [KEY], **files}
    for program, told, names in (
        (llm_upstream, {"verifier": 0, "upstreams": [upstream]}, ["llm.outside.test"]),
        (
            outside_servers,
            {"tls": 8444, "plain": 8080, "documents": documents, **files},
            ["www.outside.test", "id.outside.test"],
        ),
    ):
        container = docker.from_env().containers.create(
            image_of("api"),
            entrypoint=["python3", "-c", Path(str(program.__file__)).read_text(encoding="utf-8")],
            command=[json.dumps(told)],
            network_mode="none",
            volumes={str(proxy.directory): {"bind": "/proxy", "mode": "ro"}},
        )
        servers.append(container)
        docker.from_env().networks.get("none").disconnect(container)
        proxy.join(container, names)
        container.start()


def _configure(stack: Stack, url: str, proxy: CompanyProxy) -> None:
    outbound = {"proxy": url, "caFile": str(proxy.ca_file)}
    llm = {
        "enabled": True,
        "upstreams": {"outside": {"baseUrl": "https://llm.outside.test:8443/v1", "timeoutSeconds": 10}},
        "models": {MODEL: ["outside"]},
    }
    issuer = {"issuer": ISSUER, "audience": "dify", "tenant_claim": "org", "tenants": {"ACME": "acme"}}
    oauth = {"enabled": True, "tenants": {"acme": {"app": "echo-chat"}}, "issuers": [issuer]}
    created = stack.init(
        set=tuple(
            f"{key}={json.dumps(value)}"
            for key, value in (("outbound", outbound), ("llm", llm), ("oauth", oauth))
        )
    )
    assert created.code == 0, created.output
    for path, value in (("outboundCredentials", proxy.credentials), ("llmKeys.outside", KEY)):
        done = stack.pulumi("config", "set", "--secret", "--path", f"dify:{path}", stdin=value)
        assert done.code == 0, done.output


def test_nothing_leaves_the_network_outside_but_through_the_proxy(company: Company) -> None:
    ran = company.stack.container("api").exec_run(["curl", "-sS", "--noproxy", "*", "--max-time", "5", PLAIN])

    assert ran.exit_code != 0
    assert b"Could not resolve host" in ran.output


@pytest.mark.parametrize("service", ["api", "worker", "worker-beat", "plugin-daemon"])
def test_service_reaches_the_outside_and_trusts_what_the_proxy_shows(company: Company, service: str) -> None:
    assert company.fetched(service, f"{PAGE}/{service}") == f"/{service}"
    assert company.fetched(service, f"{PLAIN}/plain-{service}") == f"/plain-{service}"

    assert company.proxy.came(f"{PAGE}/{service} 200")
    assert company.proxy.came(f"{PLAIN}/plain-{service} 200")


def test_services_of_the_stack_are_reached_without_the_proxy(company: Company) -> None:
    assert company.inside("api", "python3", "-c", FETCH, "http://plugin-daemon:5002/health/check")
    assert company.inside("plugin-daemon", "python3", "-c", FETCH, "http://api:5001/health")

    assert company.silent_about("plugin-daemon:")
    assert company.silent_about("api:5001")


@pytest.mark.parametrize("origin", [PAGE, PLAIN])
def test_squid_sends_to_the_proxy_what_it_admits(company: Company, origin: str) -> None:
    assert json.loads(company.through_squid(f"{origin}/by-squid")) == "/by-squid"

    assert company.proxy.came(f"{origin}/by-squid 200")


@pytest.mark.parametrize(
    ("url", "statuses"),
    [
        ("http://10.1.2.3/", {"403"}),
        ("http://169.254.169.254/latest", {"403"}),
        # A name that squid's own networks may not have.
        ("http://redis:6379/", {"403", "503"}),
    ],
)
def test_squid_still_refuses_what_is_inside(company: Company, url: str, statuses: set[str]) -> None:
    assert company.through_squid(url, status=True) in statuses

    assert company.silent_about(url.split("/")[2])


def test_squid_reaches_files_of_dify_directly(company: Company) -> None:
    # The answer of api, of any status: squid's own would be one of these.
    assert company.through_squid("http://api:5001/files/none", status=True) not in {
        "403",
        "502",
        "503",
        "504",
    }

    assert company.silent_about("api:5001")


def test_http_nodes_cannot_pass_squid_by_the_exceptions_of_the_proxy(company: Company) -> None:
    """Their client would reach hosts of NO_PROXY directly: api, by one of its own networks, is one of them."""
    done = company.stack.smoke("-k", "squid")

    assert done.code == 0, done.output[-4000:]
    assert " passed" in done.stdout, done.stdout[-2000:]


def test_password_of_the_proxy_is_readable_by_squid_alone(company: Company) -> None:
    assert company.inside("ssrf-proxy", "stat", "-c", "%a %u", "/tmp/parent.conf") == "600 13\n"  # noqa: S108  # the container's own
    environment = company.inside("ssrf-proxy", "cat", "/proc/1/comm")
    assert environment == "squid\n"


def test_chat_through_the_llm_proxy(company: Company) -> None:
    answer = httpx.post(
        f"{company.stack.url}/llm/v1/chat/completions",
        json={"model": MODEL, "messages": [{"role": "user", "content": "hello"}]},
        headers={"Authorization": f"Bearer {company.caller}"},
        timeout=30,
    )

    assert answer.status_code == 200, answer.text
    assert company.proxy.came("https://llm.outside.test:8443/v1/chat/completions 200")


def test_gateway_fetches_the_keys_of_an_issuer(company: Company) -> None:
    wait_until(
        lambda: company.proxy.came(f"{ISSUER}/jwks 200", seconds=1),
        seconds=30,
        what="the gateway fetches the issuer's keys through the proxy",
    )


def test_second_up_changes_nothing(company: Company) -> None:
    assert company.stack.steps() == {}


def test_password_is_shown_nowhere(company: Company) -> None:
    assert company.stack.first is not None
    # By a request that squid sends with the password.
    marker = company.marked()
    outputs = json.dumps(company.stack.outputs())
    logs = "".join(
        docker.from_env().containers.get(identity).logs().decode()
        for identity in company.stack.containers().values()
    )
    assert marker in logs
    for form in ("p@ss: w%rd", "p%40ss%3A%20w%25rd"):
        assert form not in company.stack.first.output + outputs + logs


def test_certbot_uses_the_proxy(company: Company) -> None:
    plain = {
        "outbound": {"proxy": company.url, "caFile": str(company.proxy.ca_file)},
        "tls": {"mode": "acme", "acme": {"email": "a@example.com", "agreeTerms": True}},
        "publicUrl": "https://dify.example.com",
        "bindAddress": "*",
    }
    found = settings(plain, {"outboundCredentials": company.proxy.credentials})

    assert json.loads(_run(spec("certbot", found, found.dify), REQUESTS, f"{PAGE}/certbot")) == "/certbot"
    assert company.proxy.came(f"{PAGE}/certbot 200")


def _run(service: ServiceSpec, program: str, *arguments: str) -> str:
    """Run Python in the image of a service, with its variables and files, and return what it prints."""
    container = docker.from_env().containers.create(
        image_of(service.image),
        entrypoint=["python3", "-c", program],
        command=list(arguments),
        environment=resolved(service.environment),
        user=service.user,
    )
    try:
        container.put_archive("/", _archive(service))
        container.start()
        ended = container.wait(timeout=60)
        logs = container.logs().decode()
        assert ended["StatusCode"] == 0, logs
        return str(logs)
    finally:
        container.remove(force=True)


def _archive(service: ServiceSpec) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for file in service.files:
            data = str(file.content).encode()
            entry = tarfile.TarInfo(file.path.lstrip("/"))
            entry.size, entry.mode = len(data), int(file.mode, 8)
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()
