"""OAuth and the gate in a deployed stack, as callers and people meet them: from `dify-kit client add` to an answer.

The stack takes tokens of a real Keycloak as well: of one realm from the first `up` on, of another one later.
"""

import base64
import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import docker
import httpx
import openai
import pytest
import yaml
from openai import OpenAI

from infra.catalogue import ports
from support.provider import Provider
from support.stacks import Stack, wait_until
from tests.clients_guide import programs, run, save
from tests.integration.bridge import bridge
from tests.integration.containers import printed, readable
from tests.integration.keycloak import Keycloak
from tests.integration.load import steady_load
from tests.integration.reachability import networks_of_service, reached_from
from tests.integration.realms import AUDIENCE, TENANT_CLAIM, Realm, ServiceClient
from tests.unit.gateway import provider as sign_ins

MODEL = "gpt-4.1"
ASKED: Any = [{"role": "user", "content": "Hello"}]
TEXT = "The quick brown 狐 jumps"
COUNT_SECONDS = 15.0

# What nginx's cache of introspection results and the gateway's poll allow.
REFUSED_SECONDS = 5.0
RECOVERY_SECONDS = 10.0
INVALID_TOKEN = {
    "error": "invalid_token",
    "error_description": "The access token is invalid or has expired",
}

# How often this stack asks the issuer for its keys.
RENEWAL_SECONDS = 10
MANY, MOST_MEMORY = 10_000, 200 * 2**20
SKEW_SECONDS = 5
# The gateway gives an issuer two seconds: who waits for it waits each time, and a busy machine holds up some of them.
HELD_UP_SECONDS = 1.5
FIRST = Realm(
    name="first",
    services=(
        ServiceClient(id="service", scopes=("chat", "conversations")),
        ServiceClient(id="of another API", audience="another-api"),
        ServiceClient(id="of another tenant", tenant="GLOBEX"),
        ServiceClient(id="without chat", scopes=("files",)),
        ServiceClient(id="short-lived", seconds=1),
    ),
)
LATER = Realm(
    name="later", services=(ServiceClient(id="service"), ServiceClient(id="short-lived", seconds=1))
)


class Caller:
    """A client of the stack's tenant `acme`, with what `dify-kit client` gave it."""

    def __init__(self, stack: Stack, client: str, *scopes: str) -> None:
        self.stack = stack
        self.id = client
        self.http = httpx.Client(base_url=stack.url, timeout=20)
        done = stack.kit(
            *("client", "add", client, "--tenant", "acme"),
            *(part for scope in scopes for part in ("--scope", scope)),
        )
        assert done.code == 0, done.output
        self.secret = done.stdout.strip()
        assert self.secret.startswith("dks_")
        assert self.secret not in done.stderr

    def ask_token(self, secret: str = "") -> httpx.Response:
        """Ask for a token as the article does: form-encoded client credentials."""
        return self.http.post(
            "/oauth/token",
            data={
                "grant_type": "client_credentials",
                "client_id": self.id,
                "client_secret": secret or self.secret,
            },
        )

    def token(self) -> str:
        """Return a token."""
        answer = self.ask_token()
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    def chat(self, token: str, query: str = "hello") -> httpx.Response:
        """Say something to the app."""
        return self.http.post(
            "/v1/chat-messages",
            headers={"Authorization": f"Bearer {token}"},
            json={"inputs": {}, "query": query, "user": "u-1", "response_mode": "blocking"},
        )


def issuer(keycloak: Keycloak, realm: Realm, **more: object) -> dict[str, Any]:
    """Return the setting by which tokens of a realm are taken."""
    return {
        "issuer": keycloak.issuer(realm.name),
        "audience": AUDIENCE,
        "ca_file": str(keycloak.ca_file),
        "refresh_seconds": RENEWAL_SECONDS,
        "refetch_seconds": 2,
        **more,
    }


@pytest.fixture(scope="module")
def sign_in() -> Iterator[sign_ins.Provider]:
    """The provider that people sign in at before they see the console, where the stack's containers reach it."""
    with sign_ins.running(bridge()) as one:
        yield one


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    """What the stack's LLM proxy asks."""
    provider = Provider(readable(tmp_path_factory.mktemp("provider")))
    try:
        yield provider
    finally:
        provider.remove()


@pytest.fixture(scope="module")
def stack(
    tmp_path_factory: pytest.TempPathFactory,
    keycloak_starting: Keycloak,
    sign_in: sign_ins.Provider,
    provider: Provider,
) -> Iterator[Stack]:
    """A stack with one tenant, a gate, an LLM proxy, and an issuer that starts while the stack does."""
    stack = Stack(home=tmp_path_factory.mktemp("home"))
    named = {"tenant_claim": TENANT_CLAIM, "tenants": {"ACME": "acme"}}
    issuers = [issuer(keycloak_starting, FIRST, skew_seconds=SKEW_SECONDS, **named)]
    try:
        oauth = {"enabled": True, "tenants": {"acme": {"app": "echo-chat"}}, "issuers": issuers}
        llm = {
            "enabled": True,
            "upstreams": {"provider": provider.settings},
            "models": {MODEL: ["provider"]},
            "embeddings": {},
        }
        # Dify would try its models before the provider is in the stack's network.
        models = {"proxy": {"enabled": False}}
        given = {"oauth": oauth, "llm": llm, "modelProviders": models}
        created = stack.init(set=[f"{key}={json.dumps(value)}" for key, value in given.items()])
        assert created.code == 0, created.output
        gate = {"enabled": "true", "issuer": sign_in.url, "clientId": sign_ins.CLIENT}
        for part, value in gate.items():
            stack.set_config(f"oidcGate.{part}", value)
        kept = stack.pulumi("config", "set", "--secret", "dify:oidcGateClientSecret", stdin=sign_ins.SECRET)
        assert kept.code == 0, kept.output
        yield stack
    finally:
        # A network goes when nothing is in it any more.
        provider.remove()
        stack.remove()


@pytest.fixture(scope="module")
def proxy_keys(stack: Stack, provider: Provider) -> dict[str, str]:
    """Keys of the LLM proxy's callers by name, `inside` for Dify itself; issued before the first `up`."""
    stored = stack.kit("keys", "set", "provider", "--stdin", stdin=provider.keys[0])
    assert stored.code == 0, stored.output
    found = {}
    unlimited = ("--requests-per-minute", "0", "--concurrent", "0")
    for name, options in (("outside", unlimited), ("inside", ("--internal",))):
        issued = stack.kit("keys", "issue", name, *options)
        assert issued.code == 0, issued.output
        found[name] = issued.stdout.strip()
    return found


@pytest.fixture(scope="module")
def callers(stack: Stack, provider: Provider, proxy_keys: dict[str, str]) -> dict[str, Caller]:
    """Two clients of the tenant, made before the first `up`."""
    made = {
        "bot": Caller(stack, "bot", "chat", "conversations"),
        "leaver": Caller(stack, "leaver", "chat"),
    }
    assert proxy_keys
    stack.first = stack.up()
    provider.join(stack)
    return made


@pytest.fixture(scope="module")
def realms(callers: dict[str, Caller], keycloak: Keycloak) -> Keycloak:
    """Keycloak with both realms. The gateway may have asked for the keys of the first one before it was there."""
    for realm in (FIRST, LATER):
        keycloak.add_realm(realm)
    wait_until(
        lambda: callers["bot"].chat(keycloak.token(FIRST, "service")).status_code == 200,
        seconds=RENEWAL_SECONDS + REFUSED_SECONDS,
        what="a token of the realm is taken",
    )
    return keycloak


@pytest.fixture
def bot(callers: dict[str, Caller]) -> Caller:
    return callers["bot"]


def llm_client(stack: Stack, credential: str) -> OpenAI:
    """Return the official client at the stack's LLM proxy."""
    return OpenAI(api_key=credential, base_url=f"{stack.url}/llm/v1", max_retries=0, timeout=20)


def used_by(stack: Stack, caller: str) -> dict[str, float]:
    """Return what a caller used of the model this month, as `dify-kit usage` tells it."""
    done = stack.kit("usage", "--stack", stack.name, "--json")
    assert done.code == 0, done.output
    months = json.loads(done.stdout)
    return dict(months[max(months)].get(caller, {}).get(MODEL, {})) if months else {}


def processes(more: str = "") -> str:
    """Return the list of processes with their arguments; `e`: and what root alone sees, their environments."""
    done = subprocess.run(["ps", f"axww{more}"], check=True, capture_output=True, text=True)
    return done.stdout


def key_in_use(stack: Stack, credential: str) -> str:
    """Return which of its keys the provider is asked with, counted from 0."""
    completion = llm_client(stack, credential).chat.completions.create(
        model=MODEL, messages=ASKED, user="provider=which"
    )
    return str(completion.choices[0].message.content)


def statuses(send: Callable[[], httpx.Response], *, seconds: float) -> list[int]:
    """Return what was answered in this time, until it was no 200 any more."""
    found = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found.append(send().status_code)
        if found[-1] != 200:
            break
        time.sleep(0.2)
    return found


def test_token_of_the_article_opens_the_app(bot: Caller) -> None:
    answer = bot.ask_token()

    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert set(body) == {"access_token", "token_type", "expires_in", "scope"}
    assert (body["token_type"], body["expires_in"], body["scope"]) == ("Bearer", 3600, "chat conversations")
    said = bot.chat(body["access_token"], "a question")
    assert said.status_code == 200, said.text
    assert "a question" in said.json()["answer"]


def test_token_of_keycloak_opens_the_app(realms: Keycloak, bot: Caller) -> None:
    said = bot.chat(realms.token(FIRST, "service"), "asked by Keycloak's client")

    assert said.status_code == 200, said.text
    assert "asked by Keycloak's client" in said.json()["answer"]


@pytest.mark.parametrize("service", ["of another API", "of another tenant"])
def test_token_of_keycloak_for_something_else(service: str, realms: Keycloak, bot: Caller) -> None:
    refused = bot.chat(realms.token(FIRST, service))

    assert (refused.status_code, refused.json()) == (401, INVALID_TOKEN)
    assert refused.headers["www-authenticate"] == 'Bearer error="invalid_token"'


def test_scopes_of_keycloaks_token_decide(realms: Keycloak, bot: Caller) -> None:
    refused = bot.chat(realms.token(FIRST, "without chat"))

    assert (refused.status_code, refused.json()["error"], refused.json()["scope"]) == (
        403,
        "insufficient_scope",
        "chat",
    )


def test_keys_of_keycloak_roll_over(realms: Keycloak, bot: Caller) -> None:
    before = realms.signing_key(FIRST.name)
    old = realms.token(FIRST, "service")
    realms.add_signing_key(FIRST.name)
    new = realms.token(FIRST, "service")
    assert new.split(".")[0] != old.split(".")[0]

    # At once, by each of the gateway's workers: its keys are fetched for a token whose key is new.
    for _ in range(6):
        assert bot.chat(realms.token(FIRST, "service")).status_code == 200, "signed by the new key"
        assert bot.chat(old).status_code == 200, "signed by the key before, which is still published"

    realms.disable_key(FIRST.name, before)
    wait_until(
        lambda: bot.chat(old).status_code == 401,
        seconds=RENEWAL_SECONDS + REFUSED_SECONDS,
        what="a token is refused whose key was taken away",
    )
    assert bot.chat(new).status_code == 200
    assert bot.chat(realms.token(FIRST, "service")).status_code == 200


@pytest.mark.parametrize("way", ["key", "oauth"])
def test_programs_of_the_guide_answer(way: str, stack: Stack, bot: Caller, tmp_path: Path) -> None:
    save(tmp_path)
    given = {"DIFY_CLIENT_ID": bot.id, "DIFY_CLIENT_SECRET": bot.secret}
    if way == "key":
        given = {"DIFY_API_KEY": stack.outputs(secrets_too=True)["appKeys"]["echo-chat"]}
    # The other one of the guide's programs asks the LLM proxy.
    chosen = [program for program in programs() if all(name in program.text for name in given)]

    assert {program.language for program in chosen} == {"sh", "python", "js"}
    for program in chosen:
        done = run(program, tmp_path, {"DIFY_URL": stack.url, **given})

        assert done.returncode == 0, f"{program.name}: {done.stderr}"
        assert "Good morning" in done.stdout, program.name


def test_second_up_changes_nothing(stack: Stack, bot: Caller) -> None:
    token = bot.token()

    assert stack.steps("--refresh") == {}
    assert bot.chat(token).status_code == 200


def test_nothing_secret_lies_about(stack: Stack, bot: Caller) -> None:
    exports = stack.outputs()
    every = stack.outputs(secrets_too=True)
    state = "\n".join(
        path.read_text(errors="replace") for path in (stack.home / "state").rglob("*.json") if path.is_file()
    )
    logs = stack.container("gateway").logs().decode() + stack.container("nginx").logs().decode()
    token = bot.token()
    bot.chat(token)

    assert exports["oauth"]["tenants"] == ["acme", "canary"]
    assert exports["oauth"]["tokenUrl"] == f"{stack.url}/oauth/token"
    assert exports["oauthCanary"] == "[secret]"
    canary = every["oauthCanary"]["clientSecret"]
    assert exports["oidcGate"]["callbackUrls"] == [f"{stack.url}/oauth2/callback"]
    for text in (state, logs, json.dumps(exports)):
        for secret in (bot.secret, canary, token.split(".")[2], sign_ins.SECRET):
            assert secret not in text
    # Only dify:apps and the canary have a key that is exported; the tenants' are others.
    assert set(every["appKeys"]) == {"echo-chat"}
    inspected = json.dumps(stack.container("gateway").attrs)
    assert "redis://" not in inspected


def test_services_of_plugins_neither_reach_nor_forge_what_the_gateway_remembers(
    stack: Stack, bot: Caller
) -> None:
    # By name: an address without a route goes outside from where there is a way out, and there anything may answer.
    targets = [("gateway-redis", ports.REDIS)]
    attached = {
        service for service in stack.containers() if "oauth_data" in str(networks_of_service(stack, service))
    }
    reached = {
        service: reached_from(stack, service, targets)
        for service in ("plugin-daemon", "api", "worker", "sandbox", "agent-backend", "nginx", "gateway")
    }
    # Written when the gateway started to remember.
    assert bot.chat(bot.token()).status_code == 200
    # All of Dify's Redis is theirs: nothing of the gateway is in it.
    asked = 'REDISCLI_AUTH="$(cat /etc/redis/password)" redis-cli info keyspace; '
    asked += 'for db in 0 1 2 3; do REDISCLI_AUTH="$(cat /etc/redis/password)" redis-cli -n $db keys "*gateway*"; done'

    assert attached == {"gateway", "gateway-redis"}
    assert {service for service, found in reached.items() if found} == {"gateway"}
    assert "gateway" not in printed(stack.container("redis"), ["sh", "-c", asked])


def test_a_person_signs_in_before_the_console_is_seen(
    stack: Stack, bot: Caller, sign_in: sign_ins.Provider
) -> None:
    with httpx.Client(base_url=stack.url, timeout=20) as browser:
        closed = browser.get("/console/api/setup")
        led = browser.get("/apps", headers={"Accept": "text/html"})
        asked = browser.get(led.headers["location"])
        back = browser.get(sign_in.authorize(asked.headers["location"]))
        opened = browser.get("/console/api/setup")
        browser.get("/oauth2/sign_out")
        left = browser.get("/console/api/setup")

    assert (closed.status_code, led.status_code, back.status_code) == (401, 302, 302)
    assert back.headers["location"] == f"{stack.url}/apps"
    assert (opened.status_code, opened.json()["step"]) == (200, "finished")
    assert left.status_code == 401
    # Clients of the API meet no gate.
    assert bot.chat(bot.token()).status_code == 200


def test_canary_tenant_sees_nothing_of_another(stack: Stack, bot: Caller) -> None:
    conversation = bot.chat(bot.token()).json()["conversation_id"]
    canary = stack.outputs(secrets_too=True)["oauthCanary"]
    form = {
        "grant_type": "client_credentials",
        "client_id": canary["clientId"],
        "client_secret": canary["clientSecret"],
    }
    token = bot.http.post("/oauth/token", data=form).json()["access_token"]
    query = {"user": "u-1", "conversation_id": conversation, "limit": "20"}

    foreign = bot.http.get("/v1/messages", params=query, headers={"Authorization": f"Bearer {token}"})
    own = bot.http.get("/v1/messages", params=query, headers={"Authorization": f"Bearer {bot.token()}"})

    going_on = {"inputs": {}, "query": "and?", "user": "u-1", "response_mode": "blocking"}
    taken_over = bot.http.post(
        "/v1/chat-messages",
        json={**going_on, "conversation_id": conversation},
        headers={"Authorization": f"Bearer {token}"},
    )

    assert own.status_code == 200
    assert foreign.status_code == 404
    assert (taken_over.status_code, "answer" in taken_over.json()) == (404, False)


@pytest.mark.usefixtures("callers")
def test_bench_measures_by_oauth(stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    options = ("--via", "oauth", "--requests", "6", "--concurrency", "2", "--json", str(file))

    done = stack.kit("bench", "--stack", stack.name, *options)

    assert done.code == 0, done.output
    (result,) = json.loads(file.read_text())
    assert (result["target"], result["ok"], result["errors"]) == ("oauth", 6, {})
    # The canary's token may delete what it made.
    assert "could not be deleted" not in done.output
    canary = stack.outputs(secrets_too=True)["oauthCanary"]
    assert canary["clientSecret"] not in done.output + file.read_text()


def test_official_client_chats_and_streams_by_key_and_by_token(
    stack: Stack, callers: dict[str, Caller], proxy_keys: dict[str, str]
) -> None:
    exports = stack.outputs(secrets_too=True)["oauthCanary"]
    form = {
        "grant_type": "client_credentials",
        "client_id": exports["clientId"],
        "client_secret": exports["clientSecret"],
    }
    token = callers["bot"].http.post("/oauth/token", data=form).json()["access_token"]

    for credential in (proxy_keys["outside"], token):
        client = llm_client(stack, credential)
        assert [model.id for model in client.models.list()] == [MODEL]
        whole = client.chat.completions.create(model=MODEL, messages=ASKED)
        assert whole.choices[0].message.content == TEXT
        chunks = client.chat.completions.create(model=MODEL, messages=ASKED, stream=True)
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == TEXT
    # The whole answer took 11 tokens and gave 7, the stream 13 and 5.
    wait_until(
        lambda: all(
            (used.get("requests"), used.get("tokens_in"), used.get("tokens_out")) == (2, 24, 12)
            for used in (used_by(stack, "key:outside"), used_by(stack, "client:canary/canary"))
        ),
        seconds=COUNT_SECONDS,
        what="what was used, in `dify-kit usage`",
    )


def test_client_without_the_scope_is_refused_by_the_proxy(stack: Stack, bot: Caller) -> None:
    with pytest.raises(openai.PermissionDeniedError) as refused:
        llm_client(stack, bot.token()).chat.completions.create(model=MODEL, messages=ASKED)

    assert refused.value.code == "insufficient_scope"


@pytest.mark.usefixtures("callers")
def test_plugin_daemon_has_a_door_and_a_key_of_its_own(stack: Stack, proxy_keys: dict[str, str]) -> None:
    def status(key: str) -> str:
        url = f"http://nginx:{ports.EDGE_LLM}/llm/v1/chat/completions"
        asked = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "15"]
        body = json.dumps({"model": MODEL, "messages": ASKED})
        sent = ["-H", f"Authorization: Bearer {key}", "-H", "Content-Type: application/json", "-d", body]
        return printed(stack.container("plugin-daemon"), [*asked, *sent, url])

    assert status(proxy_keys["inside"]) == "200"
    assert status("dkp_nobody") == "401"
    with pytest.raises(openai.PermissionDeniedError):
        llm_client(stack, proxy_keys["inside"]).models.list()


def test_revoked_token_is_refused_within_five_seconds_and_stays_so(stack: Stack, bot: Caller) -> None:
    token, other = bot.token(), bot.token()
    assert bot.chat(token).status_code == 200
    form = {"token": token, "client_id": bot.id, "client_secret": bot.secret}

    assert bot.http.post("/oauth/revoke", data=form).status_code == 200

    assert statuses(lambda: bot.chat(token), seconds=REFUSED_SECONDS)[-1] == 401
    refused = bot.chat(token)
    assert refused.json() == INVALID_TOKEN
    assert refused.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    for service in ("gateway-redis", "gateway"):
        stack.container(service).restart(timeout=10)
        wait_until(
            # The gateway's own answer: an earlier introspection result may be cached.
            lambda: bot.ask_token().status_code == bot.chat(other).status_code == 200,
            seconds=RECOVERY_SECONDS,
            what=f"tokens that are issued and work after the restart of {service}",
        )
        assert bot.chat(token).status_code == 401, f"revoked before the restart of {service}"


def test_gateway_away_is_a_503_and_api_keys_still_work(stack: Stack, bot: Caller) -> None:
    token = bot.token()
    key = stack.outputs(secrets_too=True)["appKeys"]["echo-chat"]
    gateway = stack.container("gateway")
    gateway.stop(timeout=5)
    try:
        away = bot.chat(bot_token_never_seen(token))
        asked = bot.ask_token()
        by_key = bot.chat(key)
    finally:
        gateway.start()

    assert away.status_code == 503
    assert "retry-after" in away.headers
    assert asked.status_code == 503
    assert by_key.status_code == 200
    wait_until(
        lambda: bot.ask_token().status_code == bot.chat(token).status_code == 200,
        seconds=RECOVERY_SECONDS,
        what="the gateway back",
    )


def bot_token_never_seen(token: str) -> str:
    """Return a token without a cached introspection result."""
    head, claims, signature = token.split(".")
    return f"{head}.{claims}.{signature[::-1]}"


def test_one_change_rotates_secret_and_keys_removes_a_client_adds_an_issuer_and_10000_clients(
    stack: Stack,
    provider: Provider,
    callers: dict[str, Caller],
    proxy_keys: dict[str, str],
    realms: Keycloak,
) -> None:
    bot, leaver = callers["bot"], callers["leaver"]
    before, left = bot.token(), leaver.token()
    foreign = bot.chat(realms.token(LATER, "service"))
    assert (foreign.status_code, foreign.json()) == (401, INVALID_TOKEN), "a realm that is not configured"
    assert leaver.chat(left).status_code == 200
    old = bot.secret
    rotated = stack.kit("client", "rotate", "bot")
    removed = stack.kit("client", "remove", "leaver")
    new_key = stack.kit("keys", "rotate", "signing", "--json")
    assert [done.code for done in (rotated, removed, new_key)] == [0, 0, 0]
    add_issuer(stack, issuer(realms, LATER, tenant="acme", skew_seconds=0))
    one_of_many = add_clients(stack, like=bot.id)

    steps = stack.steps()
    assert key_in_use(stack, proxy_keys["outside"]) == "0"
    with steady_load(
        f"{stack.url}/llm/v1/chat/completions",
        headers={"Authorization": f"Bearer {proxy_keys['outside']}", "Content-Type": "application/json"},
        body=json.dumps({"model": MODEL, "messages": ASKED}),
        connections=4,
    ) as load:
        # It deploys all that has changed. It does not wait for old workers: one may keep a connection of the load.
        with ThreadPoolExecutor(1) as pool:
            rotation = pool.submit(
                stack.kit, "keys", "rotate", "provider", "--stdin", "--wait", "0", stdin=provider.keys[1]
            )
            seen = []
            while not rotation.done():
                seen.append(processes())
                time.sleep(0.3)
        upstream_key = rotation.result()
        ended = time.monotonic()
        assert upstream_key.code == 0, upstream_key.output
        assert statuses(lambda: leaver.chat(left), seconds=REFUSED_SECONDS)[-1] == 401
        assert time.monotonic() - ended < REFUSED_SECONDS
        assert key_in_use(stack, proxy_keys["outside"]) == "1"

    assert "revoke it" in upstream_key.output
    assert "keys rotate provider" in "".join(seen)
    assert not any(key in text for text in (*seen, upstream_key.output) for key in provider.keys)
    assert set(load.statuses) == {200}
    assert load.total > 20
    load.assert_none_lost(reloads=1)
    assert set(steps) - {f"dify-{stack.name}"} == {"gateway-config"}
    assert leaver.ask_token().status_code == 401
    assert bot.ask_token(old).status_code == 200
    assert bot.ask_token(rotated.stdout.strip()).status_code == 200
    assert bot.chat(before).status_code == 200, "signed by the key before"
    kids = {key["kid"] for key in bot.http.get("/oauth/jwks.json").json()["keys"]}
    assert json.loads(new_key.stdout)["kid"] in kids
    assert len(kids) == 2
    form = {"grant_type": "client_credentials", "client_id": one_of_many, "client_secret": old}
    issued = bot.http.post("/oauth/token", data=form)
    assert bot.chat(issued.json()["access_token"]).status_code == 200
    used = stack.container("gateway").stats(stream=False)["memory_stats"]
    assert used["usage"] - used["stats"].get("total_inactive_file", 0) < MOST_MEMORY


def add_clients(stack: Stack, *, like: str) -> str:
    """Let the stack have as many clients as are promised, with the secrets of one that it has; return the last."""
    file = Path(f"Pulumi.{stack.name}.yaml").resolve().with_name(f"clients.{stack.name}.json")
    document = json.loads(file.read_text(encoding="utf-8"))
    clients = document["clients"]
    added = [f"client-{number}" for number in range(MANY - len(clients))]
    clients |= dict.fromkeys(added, clients[like])
    file.write_text(json.dumps(document), encoding="utf-8")
    return added[-1]


def add_issuer(stack: Stack, added: dict[str, Any]) -> None:
    """Add an issuer to the stack's settings, by hand."""
    file = Path(f"Pulumi.{stack.name}.yaml").resolve()
    settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    settings["config"]["dify:oauth"]["issuers"].append(added)
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")


@pytest.mark.usefixtures("callers")
def test_tokens_of_both_realms_open_the_app(stack: Stack, realms: Keycloak, bot: Caller) -> None:
    later = realms.token(LATER, "service")
    wait_until(
        lambda: bot.chat(later).status_code == 200,
        seconds=REFUSED_SECONDS,
        what="a token of the realm that the last `up` has added: its refusal may still be remembered",
    )
    assert bot.chat(realms.token(FIRST, "service")).status_code == 200
    assert bot.chat(bot.token()).status_code == 200
    assert len(stack.outputs()["oauth"]["tenants"]) == 2


def test_clock_skew_is_the_issuers_own(realms: Keycloak, bot: Caller) -> None:
    tolerated, strict = realms.token(FIRST, "short-lived"), realms.token(LATER, "short-lived")
    expired = time.time() + 1

    time.sleep(1.5)
    assert bot.chat(strict).status_code == 401
    tried = bot.chat(tolerated).status_code
    assert time.time() < expired + SKEW_SECONDS - 1, "the machine is too slow to tell"
    assert tried == 200
    wait_until(
        lambda: bot.chat(tolerated).status_code == 401,
        seconds=SKEW_SECONDS + 2,
        what="a token is refused that expired longer ago than the clocks may differ",
    )


def test_issuer_that_hangs_holds_up_nobody_else(realms: Keycloak, bot: Caller) -> None:
    known = [realms.token(FIRST, "service") for _ in range(6)]
    unknown = [with_kid(known[0], f"made-up-{number}") for number in range(8)]
    realms.process.send_signal(signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(len(unknown)) as pool:
            # Each makes the gateway ask for the keys, or wait for another one's question.
            asked = [pool.submit(bot.chat, one) for one in unknown]
            waited = []
            for token in known:
                started = time.monotonic()
                assert bot.chat(token).status_code == 200
                assert bot.chat(bot.token()).status_code == 200
                waited.append(time.monotonic() - started)
        found = {one.result().status_code for one in asked}
    finally:
        realms.process.send_signal(signal.SIGCONT)

    assert min(waited) < HELD_UP_SECONDS
    assert found <= {401, 503}
    assert bot.chat(realms.token(FIRST, "service")).status_code == 200


def with_kid(token: str, kid: str) -> str:
    """Return a token that claims to be signed by another key."""
    _, rest = token.split(".", 1)
    header = json.dumps({"alg": "RS256", "typ": "JWT", "kid": kid}).encode()
    return f"{base64.urlsafe_b64encode(header).rstrip(b'=').decode()}.{rest}"


def test_upstreams_key_is_nowhere(
    stack: Stack, provider: Provider, callers: dict[str, Caller], proxy_keys: dict[str, str]
) -> None:
    assert callers
    llm_client(stack, proxy_keys["outside"]).chat.completions.create(model=MODEL, messages=ASKED)
    engine = docker.from_env()
    places = {
        "processes": processes("e"),
        "export": stack.pulumi("stack", "export").stdout,
        "settings": (stack.home / "stacks" / f"Pulumi.{stack.name}.yaml").read_text(),
        "outputs": json.dumps(stack.outputs(secrets_too=True)),
    }
    for service, container in stack.containers().items():
        places[f"inspect {service}"] = json.dumps(engine.api.inspect_container(container))
        places[f"logs {service}"] = engine.api.logs(container).decode(errors="replace")

    assert len(places) > 20
    assert all(places.values()), [place for place, text in places.items() if not text and "logs" not in place]
    for place, text in places.items():
        for key in provider.keys:
            assert key not in text, place
            assert key[-24:] not in text, place


def test_smoke_tests_pass(stack: Stack, bot: Caller) -> None:
    chosen = "oauth or llm or authentication or exposure or gate or target or console or edge"
    done = stack.smoke("-k", chosen, "--browser", "none")

    assert done.code == 0, done.output[-4000:]
    for file in ("test_oauth.py", "test_llm.py", "test_gate.py"):
        assert file in done.output
    assert bot.secret not in done.output
