"""Reading an official compose folder: by the rules of Compose, and on the facts of three releases."""

from pathlib import Path

import pytest

from dify_kit.releases import compose, env_files
from dify_kit.releases.compose import ComposeError
from dify_kit.releases.interpolation import InterpolationError, interpolate
from dify_kit.releases.topology import Health, Mount, Port, Route, Topology
from infra.catalogue.names import compose_services, service_name, with_service_hosts
from tests.compose_folder import RELEASES, facts, lay_out

VARIABLES = {"SET": "value", "EMPTY": "", "OTHER": "other"}
# The folder's own .env comes last among a service's files, and has another value than the file before it. The facts are
# resolved without it.
SHADOWED = frozenset({"CELERY_WORKER_AMOUNT", "POSTGRES_MAX_CONNECTIONS", "UV_CACHE_DIR"})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain", "plain"),
        ("$SET/x", "value/x"),
        ("${SET}x", "valuex"),
        ("$UNKNOWN.", "."),
        ("${UNKNOWN:-default}", "default"),
        ("${EMPTY:-default}", "default"),
        ("${EMPTY-default}", ""),
        ("${UNKNOWN-default}", "default"),
        ("${SET:-default}", "value"),
        ("${SET:+more}${EMPTY:+more}${EMPTY+there}", "morethere"),
        ("${UNKNOWN:-${OTHER:-default}}", "other"),
        ("${UNKNOWN:-${NEITHER:-a ${SET}}}!", "a value!"),
        # As upstream writes it: the braces of the default are text.
        ("${URL:-http://localhost/e/{hook_id}}", "http://localhost/e/{hook_id}"),
        ("${UNKNOWN:--9}", "-9"),
        ("$$SET and $$", "$SET and $"),
        ("${SET:?has to be there}", "value"),
    ],
)
def test_variables_are_replaced_as_compose_does(text: str, value: str) -> None:
    assert interpolate(text, VARIABLES.get) == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("${SET", "never closed"),
        ("${}", "no name"),
        ("${SET*x}", "no form"),
        ("a $ b", "is no name"),
        ("${UNKNOWN:?say $OTHER}", "UNKNOWN has to be set: say other"),
        ("${EMPTY:?empty}", "EMPTY has to be set"),
    ],
)
def test_what_compose_refuses_is_an_error(text: str, words: str) -> None:
    with pytest.raises(InterpolationError, match=words.replace("$", r"\$")):
        interpolate(text, VARIABLES.get)


def test_an_env_file_is_read_with_its_quotes_comments_and_variables(tmp_path: Path) -> None:
    path = tmp_path / "x.env.example"
    path.write_text(
        "# comment\nexport A=1\nB=\nC='$A'\nD=\"$A two # no comment\"\nE=${A}3 # comment\nNAME\nF=${OUTER:-in}${A}\n",
        encoding="utf-8",
    )

    assert env_files.read(path, {"OUTER": "out"}.get) == {
        "A": "1",
        "B": "",
        "C": "$A",
        "D": "1 two # no comment",
        "E": "13",
        "F": "out1",
    }
    assert env_files.read(path, raw=True)["E"] == "${A}3"


@pytest.mark.parametrize(("text", "words"), [("A=1\n???\n", "line 2"), ("A=1\nB=${A\n", "line 2.*closed")])
def test_a_wrong_line_of_an_env_file_is_named(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "x.env"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(env_files.EnvFileError, match=words):
        env_files.read(path)


def folder(directory: Path, compose_text: str, **files: str) -> Path:
    (directory / "docker-compose.yaml").write_text(compose_text, encoding="utf-8")
    for name, text in files.items():
        path = directory / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return directory


def read(directory: Path, compose_text: str, **files: str) -> Topology:
    return compose.read(folder(directory, compose_text, **files))


EVERYTHING = """
x-shared: &shared
  LOG_LEVEL: ${LOG_LEVEL:-INFO}
  WORKERS: 4
  RATE: 1.0
  FLAG: true
  NOTHING: ~
services:
  api:
    image: example/api:${VERSION:-1.0}
    environment:
      <<: *shared
      MODE: api
    env_file:
      - ./shared.env
      - path: ./not-there.env
        required: false
      - path: ./raw.env
        format: raw
      - ./.env
    depends_on:
      db: {condition: service_healthy, required: false}
    volumes:
      - ./data:/data:ro
      - /anonymous
      - {type: volume, source: named, target: /named}
    ports: ["${EXPOSED:-80}:8080", "127.0.0.1:53:53/udp", "9000", {target: 1, published: 2, host_ip: "::1"}]
    networks: [front, default]
    healthcheck: {test: ["CMD", "curl", "http://x:${LOG_LEVEL}"], interval: 1m30s, retries: 3}
  db:
    build: ./db
    command: >
      run --with '${VERSION:-1.0} quoted'
    environment:
      - FROM_LIST=a=b
      - LOG_LEVEL
      - UNKNOWN_ALONE
    depends_on: [api]
    healthcheck: {test: pg_isready}
    profiles: [sql, ""]
  none:
    image: example/none
    healthcheck: {disable: true}
    network_mode: none
networks:
  front: {internal: true}
volumes:
  named:
"""


def test_every_form_of_a_compose_file_is_read(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        EVERYTHING,
        _DOT_env_DOT_example="VERSION=2.0\nLOG_LEVEL=DEBUG\nONLY_HERE=x\nSHARED=last\n",
        shared_DOT_env_DOT_example="SHARED=first\nDERIVED=${MODE}-${VERSION}\nMODE=not this\n",
        raw_DOT_env_DOT_example="RAW=${VERSION}\n",
    )

    api, db = found.services["api"], found.services["db"]
    assert api.image == "example/api:2.0"
    assert api.variables == {
        "LOG_LEVEL": "DEBUG",
        "WORKERS": "4",
        "RATE": "1.0",
        "FLAG": "true",
        "MODE": "api",
        "SHARED": "last",
        "DERIVED": "api-2.0",
        "RAW": "${VERSION}",
        "VERSION": "2.0",
        "ONLY_HERE": "x",
    }
    assert api.passing == {"VERSION", "ONLY_HERE"}
    assert api.mounts == (
        Mount(source="./data", target="/data", read_only=True),
        Mount(source="", target="/anonymous"),
        Mount(source="named", target="/named"),
    )
    assert api.ports == (
        Port(internal=1, external=2, address="::1"),
        Port(internal=53, external=53, address="127.0.0.1", protocol="udp"),
        Port(internal=8080, external=80),
        Port(internal=9000, external=0),
    )
    assert api.networks == {"front", "default"}
    assert api.health == Health(
        command=("curl", "http://x:DEBUG"), times={"interval": "1m30s", "retries": "3"}
    )
    assert api.depends_on == {"db": "service_healthy"}
    assert db.image is None
    assert db.command == ("run", "--with", "2.0 quoted")
    assert db.variables == {"FROM_LIST": "a=b", "LOG_LEVEL": "DEBUG"}
    assert db.depends_on == {"api": "service_started"}
    assert db.health == Health(command=("sh", "-c", "pg_isready"))
    assert db.networks == {"default"}
    assert found.services["none"].health is None
    assert found.services["none"].networks == frozenset()
    assert found.networks == {"front": True, "default": False}
    assert found.volumes == {"named"}


NGINX = "services: {nginx: {image: nginx, environment: {NGINX_PORT: 80, SOCKETS: 'ws:5001'}}}"


def test_routes_are_those_that_the_rendered_templates_have(tmp_path: Path) -> None:
    template = """
server {
    listen ${NGINX_PORT};
    set $outer api:5001;
    location /v1 { proxy_pass http://$outer; }
    location /socket.io/ { set $inner ${SOCKETS}; proxy_pass http://$inner; proxy_set_header Upgrade $http_upgrade; }
    location = /exact { proxy_pass http://web:3000/path; }
    location /own { return 404; }
    # placeholder of a location
    ${ACME_CHALLENGE_LOCATION}
    ${HTTPS_CONFIG}
}
"""
    found = read(tmp_path, NGINX, nginx__default_DOT_conf_DOT_template=template)

    assert found.routes == (
        Route(location="/v1", service="api"),
        Route(location="/socket.io/", service="ws"),
        Route(location="= /exact", service="web"),
    )


@pytest.mark.parametrize(
    ("text", "files", "words"),
    [
        ("services: [", {}, "docker-compose.yaml"),
        ("services: []", {}, "no `services`"),
        ("include: [x.yaml]\nservices: {a: {image: x}}", {}, "`include` is not read"),
        ("services: {a: {extends: b}}", {}, r"services.a: `extends`"),
        ("services: {a: [1]}", {}, "services.a: a mapping"),
        ("services: {a: {image: [x]}}", {}, "services.a.image: text"),
        ("services: {a: {image: 'x:${V'}}", {}, "services.a.image.*closed"),
        ("services: {a: {image: x, env_file: own.env}}", {}, "own.env.example is not there"),
        ("services: {a: {image: x, ports: ['1-2:1-2']}}", {}, "no single port"),
        ("services: {a: {image: x, healthcheck: {test: [curl]}}}", {}, "begins with 'curl'"),
        ('services: {a: {image: x, command: "a \'b"}}', {}, "services.a.command"),
        ("services: {a: {image: x}}", {"_DOT_env_DOT_example": "???\n"}, "line 1"),
        (NGINX, {"nginx__a_DOT_template": "location / {"}, "a.template, line"),
        (NGINX, {"nginx__a_DOT_template": "location / { proxy_pass http://$gone; }"}, r"location /.*\$gone"),
        (NGINX, {"nginx__a_DOT_template": "location / { proxy_pass http://${GONE}; }"}, "names no service"),
    ],
)
def test_what_cannot_be_read_is_named_with_file_and_place(
    tmp_path: Path, text: str, files: dict[str, str], words: str
) -> None:
    with pytest.raises(ComposeError, match=f"(?s){words}") as caught:
        read(tmp_path, text, **files)

    assert str(tmp_path) in str(caught.value)


def test_a_folder_without_compose_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ComposeError, match=r"holds no docker-compose\.yaml"):
        compose.read(tmp_path)


@pytest.mark.parametrize("release", RELEASES)
def test_reading_the_folder_of_a_release_gives_its_facts_again(tmp_path: Path, release: str) -> None:
    known = facts(release)

    found = compose.read(lay_out(tmp_path, release))

    services = compose_services(known["services"])
    assert found.services.keys() == services.keys()
    for name, service in services.items():
        ours = found.services[name]
        own = {key: value for key, value in ours.variables.items() if key not in ours.passing}
        last = known["env_example"] if "./.env" in service["env_file"] else {}
        assert own == service["variables"] | {
            key: with_service_hosts(key, last[key])
            for key in SHADOWED & service["variables"].keys() & last.keys()
        }, name
        passed = {key: value for key, value in known["env_example"].items() if key in ours.passing}
        assert passed.keys() == ours.passing, name
        assert {key: ours.variables[key] for key, value in passed.items() if "$" not in value} == {
            key: with_service_hosts(key, value) for key, value in passed.items() if "$" not in value
        }, name
        assert ours.image == service["image"], name
        assert ours.networks == set(service["networks"]), name
        assert set(ours.profiles) == set(service["profiles"] or ()), name
        assert set(ours.depends_on) == {service_name(one) for one in service["depends_on"] or ()}, name
        assert [mount.target for mount in ours.mounts] == [
            one["target"] if isinstance(one, dict) else one.split(":")[1] for one in service["volumes"]
        ], name
        assert {f"{port.external}:{port.internal}" for port in ours.ports} == set(service["ports"]), name
        # Upstream has checks of its workers, and switches them off.
        check = service["healthcheck"]
        check = None if "${" in str((check or {}).get("disable")) else check
        assert (ours.health is None) == (check is None), name
        if check and "$" not in str(check["test"]):
            assert ours.health is not None
            assert ours.health.command[-1] == check["test"][-1], name
    assert found.networks == {"default": False} | {
        name: bool(one.get("internal")) for name, one in known["networks"].items()
    }
    assert found.volumes == set(known["volumes"])
    assert dict(found.examples) == {".env.example": known["env_example"], **known["env_files"]}
    routes = {route.location: route.service for route in found.routes}
    assert routes.keys() == {one["location"] for one in known["routes"]} - {"$"}
    assert routes["/v1"] == "api"
    assert routes["/e/"] == "plugin-daemon"
    assert routes.get("/socket.io/", "api-websocket") == "api-websocket"
