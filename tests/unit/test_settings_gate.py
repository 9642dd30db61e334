"""Settings of the gate: what is accepted and derived, one clear error for each mistake."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pulumi
import pytest

from infra.exports import gate_facts
from infra.settings.gate import CA_FILE, Gate, gate_document
from infra.settings.program import load
from infra.settings.stack import Settings
from support.certificates import issue
from support.configuration import configure, settings
from tests.unit.gate_settings import GATE, SECRET, gated


def gate_of(found: Settings) -> Gate:
    assert found.oidc_gate
    return found.oidc_gate


def refusal(
    gate: Mapping[str, Any], plain: Mapping[str, Any] | None = None, secret: str | None = None
) -> list[str]:
    """Return the lines of the error, one for each problem."""
    secrets = SECRET if secret is None else {"oidcGateClientSecret": secret}
    with pytest.raises(pulumi.RunError) as caught:
        settings({"oidcGate": {**GATE, **gate}, **(plain or {})}, secrets)
    return [line.removeprefix("  - ") for line in str(caught.value).splitlines()[1:]]


def test_off_is_the_default_and_needs_nothing() -> None:
    found = settings()

    assert found.oidc_gate is None
    assert not found.gateway
    assert gate_facts(None) is None


def test_defaults() -> None:
    gate = gate_of(gated())

    assert gate.origins == ("https://dify.example.com",)
    assert gate.scopes == ("openid", "email", "profile")
    assert gate.groups_claim == ("groups",)
    assert gate.session_seconds == 8 * 3600
    assert gate.web_app
    assert (gate.email_domains, gate.allowed_groups, gate.ca) == ((), (), "")


def test_exports_tell_what_to_register_and_nothing_secret() -> None:
    urls = {"urls": {"console": "https://console.example.com", "app": "https://chat.example.com"}}
    told = gate_facts(gated(urls).oidc_gate)

    assert told == {
        "issuer": GATE["issuer"],
        "clientId": "dify",
        "callbackUrls": [
            "https://console.example.com/oauth2/callback",
            "https://chat.example.com/oauth2/callback",
        ],
        "signedOutUrls": [
            "https://console.example.com/oauth2/signed_out",
            "https://chat.example.com/oauth2/signed_out",
        ],
        "sessionSeconds": 28800,
        "webApp": True,
    }
    assert gate_of(gated(urls, webApp=False)).origins == ("https://console.example.com",)


def test_a_claim_inside_of_objects_is_a_list_of_names() -> None:
    assert gate_of(gated(groupsClaim=["realm_access", "roles"])).groups_claim == ("realm_access", "roles")
    assert gate_of(gated(groupsClaim="https://example.com/groups")).groups_claim == (
        "https://example.com/groups",
    )


def test_own_ca_goes_to_the_gateway(tmp_path: Path) -> None:
    pem = issue(ca=True).pem
    (tmp_path / "ca.pem").write_text(pem)
    gate = gate_of(gated(caFile=str(tmp_path / "ca.pem")))

    assert gate.ca == pem
    assert gate_document(gate, "s")["ca_file"] == CA_FILE


def test_http_is_taken_while_the_stack_speaks_http_itself() -> None:
    found = settings({"oidcGate": {**GATE, "issuer": "http://id.test:8081"}}, SECRET)

    assert gate_of(found).origins == ("http://localhost:8080",)


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        ({"issuer": ""}, "dify:oidcGate.issuer: '': is empty; use the provider's issuer URL"),
        ({"issuer": "id.example.com"}, "must be an http(s) URL such as"),
        (
            {"issuer": "https://id.example.com/.well-known/openid-configuration"},
            "is the address of the discovery document; leave /.well-known/openid-configuration out",
        ),
        ({"issuer": "https://login.microsoftonline.com/common/v2.0"}, "means every tenant"),
        ({"clientId": " "}, "dify:oidcGate.clientId: ' ': is empty"),
        ({"scopes": ["email"]}, "dify:oidcGate.scopes must contain openid"),
        ({"scopes": ["openid", "a b"]}, "dify:oidcGate.scopes must contain texts, each a scope of OAuth"),
        (
            {"emailDomains": ["@example.com"]},
            "dify:oidcGate.emailDomains must contain texts, each a mail domain",
        ),
        ({"emailDomains": ["*"]}, "dify:oidcGate.emailDomains must contain texts, each a mail domain"),
        ({"emailDomains": "example.com"}, "dify:oidcGate.emailDomains: 'example.com': not a list of texts"),
        ({"groupsClaim": ""}, "dify:oidcGate.groupsClaim must be the name of a claim"),
        (
            {"sessionMinutes": 1},
            "dify:oidcGate.sessionMinutes: '1': not a whole number in range; use a number from 5",
        ),
        ({"sessionMinutes": 50000}, "use a number from 5 to 43200"),
        ({"webApp": "no"}, "dify:oidcGate.webApp: 'no': neither true nor false"),
        (
            {"caFile": "/no/such/ca.pem"},
            "dify:oidcGate.caFile: '/no/such/ca.pem': is not a file with certificates",
        ),
        ({"emailDomain": ["example.com"]}, "did you mean oidcGate.emailDomains"),
        ({"issuer": "https://accounts.google.com"}, "every Google account would be admitted"),
    ],
)
def test_one_line_for_each_mistake(gate: dict[str, Any], said: str) -> None:
    (line,) = refusal(gate)

    assert line.startswith("dify:oidcGate.")
    assert said in line


def test_plain_http_to_the_provider_of_a_stack_with_https_is_refused() -> None:
    (line,) = refusal({"issuer": "http://id.example.com"}, {"publicUrl": "https://dify.example.com"})

    assert "passwords and codes would be sent in plain text; use https" in line


def test_google_is_taken_with_a_domain() -> None:
    assert gated(issuer="https://accounts.google.com", emailDomains=["example.com"]).oidc_gate


def test_the_secret_has_to_be_set_and_encrypted() -> None:
    (line,) = refusal({}, secret="")
    assert line.startswith("dify:oidcGateClientSecret: the secret is not set; ")
    assert "dify-kit set oidcGateClientSecret --stack" in line

    configure({"oidcGate": GATE, "oidcGateClientSecret": "in plain text"})
    with pytest.raises(pulumi.RunError, match="oidcGateClientSecret: is stored in plain text"):
        load(pulumi.Config("dify"), "unit")
