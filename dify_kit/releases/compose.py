"""Reads an official Dify compose folder into a topology.

Read is what upstream ships: the compose file, `.env.example` instead of `.env`, since Dify 1.14 each
`envs/**/<name>.env.example` instead of `<name>.env`, and nginx's templates. Neither an operator's own `.env` nor
the environment of this process counts, so that a folder says the same on every machine.
"""

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from dify_kit.releases import env_files, nginx_routes
from dify_kit.releases.interpolation import InterpolationError, Lookup, interpolate
from dify_kit.releases.topology import (
    DEFAULT_NETWORK,
    Health,
    Mount,
    Port,
    Service,
    Topology,
    with_service_names,
)

FILES = ("docker-compose.yaml", "docker-compose.yml", "compose.yaml", "compose.yml")
EXAMPLE = ".example"
# What would add or change services without a trace here.
_UNSUPPORTED = ("extends",)
_HEALTH_TIMES = ("interval", "timeout", "retries", "start_period", "start_interval")


class ComposeError(Exception):
    """A folder that cannot be read. The message names the file, the place in it, and what is wrong."""


# Written in C where PyYAML was built so: ten times as fast.
_BASE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_BASE):  # type: ignore[misc]  # one of two
    """Reads every scalar as text, as Compose hands it to containers; merge keys and null keep their meaning."""


_Loader.yaml_implicit_resolvers = {
    first: kept
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    if (
        kept := [
            (tag, pattern)
            for tag, pattern in resolvers
            if tag in ("tag:yaml.org,2002:merge", "tag:yaml.org,2002:null")
        ]
    )
}


def read(folder: Path) -> Topology:
    """Return what the compose folder describes, with the kit's names of its services. Raises ComposeError."""
    path = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if path is None:
        raise ComposeError(f"{folder} holds no {FILES[0]}: name Dify's `docker` folder")
    document = _document(path)
    try:
        return with_service_names(_Reader(folder, path.name).topology(document))
    except (env_files.EnvFileError, nginx_routes.RouteError) as problem:
        raise ComposeError(str(problem)) from None
    except UnicodeDecodeError as problem:
        raise ComposeError(f"{folder}: a file is not UTF-8: {problem}") from None


def _document(path: Path) -> dict[str, Any]:
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506  # a SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError) as problem:
        raise ComposeError(f"{path}: {problem}") from None
    if not isinstance(document, dict) or not isinstance(document.get("services"), dict):
        raise ComposeError(f"{path}: no `services`")
    if "include" in document:
        raise ComposeError(f"{path}: `include` is not read; name the folder of one whole compose file")
    return document


class _Reader:
    """The files of one folder, and the variables that its compose file may use."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        example = folder / f".env{EXAMPLE}"
        self._project = env_files.read(example) if example.is_file() else {}

    def topology(self, document: Mapping[str, Any]) -> Topology:
        services = {
            str(name): self._service(str(name), _mapping(entry, self._at(f"services.{name}")))
            for name, entry in document["services"].items()
        }
        nginx = services.get("nginx")
        networks = _mapping(document.get("networks"), self._at("networks"))
        internal = {
            str(name): self._flag(_mapping(entry, self._at(f"networks.{name}")).get("internal"), str(name))
            for name, entry in networks.items()
        }
        if any(DEFAULT_NETWORK in service.networks for service in services.values()):
            internal.setdefault(DEFAULT_NETWORK, False)
        return Topology(
            services=services,
            networks=internal,
            volumes=frozenset(map(str, _mapping(document.get("volumes"), self._at("volumes")))),
            routes=nginx_routes.read(self._folder / "nginx", nginx.variables if nginx else {}),
            examples=dict(self._examples()),
        )

    def _examples(self) -> Iterator[tuple[str, dict[str, str]]]:
        """Yield the example files as they were written, for what only they know."""
        for path in sorted(self._folder.rglob(f"*.env{EXAMPLE}")):
            yield str(path.relative_to(self._folder)), env_files.read(path, raw=True)

    def _at(self, place: str) -> str:
        return f"{self._folder / self._name}: {place}"

    def _text(self, value: Any, place: str) -> str:  # noqa: ANN401  # of YAML
        """Return a scalar's text, its variables replaced."""
        if isinstance(value, (dict, list)):
            raise ComposeError(f"{self._at(place)}: text expected, not {value!r}")
        try:
            return interpolate("" if value is None else str(value), self._project.get)
        except InterpolationError as problem:
            raise ComposeError(f"{self._at(place)}: {problem}") from None

    def _flag(self, value: Any, place: str) -> bool:  # noqa: ANN401  # of YAML
        return self._text(value, place).lower() in ("true", "yes", "on")

    def _service(self, name: str, entry: Mapping[str, Any]) -> Service:
        place = f"services.{name}"
        for key in _UNSUPPORTED:
            if key in entry:
                raise ComposeError(f"{self._at(place)}: `{key}` is not read")
        variables, passing = self._variables(entry, place)
        return Service(
            name=name,
            image=self._text(entry["image"], f"{place}.image") if entry.get("image") else None,
            variables=variables,
            passing=passing,
            mounts=tuple(self._mounts(entry, place)),
            networks=self._networks(entry, place),
            ports=tuple(sorted(self._ports(entry, place))),
            health=self._health(entry, place),
            depends_on=self._depends_on(entry, place),
            profiles=tuple(self._text(one, f"{place}.profiles") for one in _list(entry, "profiles")),
            command=self._words(entry.get("command"), f"{place}.command"),
            entrypoint=self._words(entry.get("entrypoint"), f"{place}.entrypoint"),
        )

    def _words(self, value: Any, place: str) -> tuple[str, ...]:  # noqa: ANN401  # of YAML
        if isinstance(value, list):
            return tuple(self._text(word, place) for word in value)
        try:
            return tuple(shlex.split(self._text(value, place)))
        except ValueError as problem:
            raise ComposeError(f"{self._at(place)}: {problem}") from None

    def _variables(self, entry: Mapping[str, Any], place: str) -> tuple[dict[str, str], frozenset[str]]:
        """Return the variables of a service, and the names of those that only the project's own file has."""
        own = self._environment(entry.get("environment"), f"{place}.environment")
        found: dict[str, str] = {}
        meant = set(own)
        for path, raw in self._service_env_files(entry, f"{place}.env_file"):
            values = env_files.read(path, self._lookup(own), raw=raw)
            found |= values
            if path.resolve() != (self._folder / f".env{EXAMPLE}").resolve():
                meant |= values.keys()
        return {**found, **own}, frozenset(found.keys() - meant)

    def _lookup(self, own: Mapping[str, str]) -> Lookup:
        return lambda name: self._project.get(name, own.get(name))

    def _environment(self, value: Any, place: str) -> dict[str, str]:  # noqa: ANN401  # of YAML
        if isinstance(value, list):
            texts = [self._text(one, place).partition("=") for one in value]
            pairs = [(name, text if equals else None) for name, equals, text in texts]
        else:
            pairs = [
                (str(name), None if text is None else self._text(text, f"{place}.{name}"))
                for name, text in _mapping(value, self._at(place)).items()
            ]
        # A name alone takes its value from outside, and sets nothing where that has none.
        values = [(name, self._project.get(name) if text is None else text) for name, text in pairs]
        return {name: text for name, text in values if text is not None}

    def _service_env_files(self, entry: Mapping[str, Any], place: str) -> Iterator[tuple[Path, bool]]:
        """Yield each file that is there, and whether it is taken raw."""
        value = entry.get("env_file")
        for one in value if isinstance(value, list) else [value] if value else []:
            options = one if isinstance(one, dict) else {"path": one}
            name = self._text(options.get("path"), place)
            path = self._folder / name
            example = path.with_name(f"{path.name}{EXAMPLE}")
            if example.is_file():
                yield example, options.get("format") == "raw"
            elif self._flag(options.get("required", "true"), place):
                raise ComposeError(f"{self._at(place)}: {name}{EXAMPLE} is not there, and required")

    def _mounts(self, entry: Mapping[str, Any], place: str) -> Iterator[Mount]:
        for one in _list(entry, "volumes"):
            where = f"{place}.volumes"
            if isinstance(one, dict):
                yield Mount(
                    source=self._text(one.get("source"), where),
                    target=self._text(one.get("target"), where),
                    read_only=self._flag(one.get("read_only"), where),
                )
                continue
            source, _, rest = self._text(one, where).partition(":")
            target, _, mode = rest.partition(":")
            yield Mount(
                source=source if target else "", target=target or source, read_only="ro" in mode.split(",")
            )

    def _networks(self, entry: Mapping[str, Any], place: str) -> frozenset[str]:
        if "network_mode" in entry:
            return frozenset()
        names = entry.get("networks") or [DEFAULT_NETWORK]
        return frozenset(self._text(name, f"{place}.networks") for name in names)

    def _ports(self, entry: Mapping[str, Any], place: str) -> Iterator[Port]:
        where = f"{place}.ports"
        for one in _list(entry, "ports"):
            if isinstance(one, dict):
                text = ":".join(
                    self._text(one.get(key), where)
                    for key in ("host_ip", "published", "target")
                    if one.get(key)
                )
                protocol = self._text(one.get("protocol", "tcp"), where)
            else:
                text, _, protocol = self._text(one, where).partition("/")
            rest, _, internal = text.rpartition(":")
            address, _, external = rest.rpartition(":")
            if not internal.isdigit() or not (external.isdigit() or not rest):
                raise ComposeError(f"{self._at(where)}: {text!r} is no single port (`80:80`)")
            # Without a host port the engine takes a free one: 0.
            yield Port(
                internal=int(internal),
                external=int(external or 0),
                address=address.strip("[]"),
                protocol=protocol or "tcp",
            )

    def _health(self, entry: Mapping[str, Any], place: str) -> Health | None:
        where = f"{place}.healthcheck"
        check = _mapping(entry.get("healthcheck"), self._at(where))
        if not check or self._flag(check.get("disable"), where):
            return None
        test = check.get("test")
        if not isinstance(test, list):
            command: tuple[str, ...] = ("sh", "-c", self._text(test, where))
        else:
            kind, *words = [self._text(word, where) for word in test] or ["NONE"]
            if kind == "NONE":
                return None
            if kind not in ("CMD", "CMD-SHELL"):
                raise ComposeError(
                    f"{self._at(where)}.test: begins with {kind!r}, not CMD, CMD-SHELL or NONE"
                )
            command = tuple(words) if kind == "CMD" else ("sh", "-c", *words)
        times = {key: self._text(check[key], where) for key in _HEALTH_TIMES if key in check}
        return Health(command=command, times=times)

    def _depends_on(self, entry: Mapping[str, Any], place: str) -> dict[str, str]:
        value = entry.get("depends_on")
        if isinstance(value, list):
            return {self._text(name, place): "service_started" for name in value}
        return {
            str(name): self._text(
                _mapping(one, self._at(place)).get("condition", "service_started"), f"{place}.depends_on"
            )
            for name, one in _mapping(value, self._at(f"{place}.depends_on")).items()
        }


def _mapping(value: Any, place: str) -> dict[str, Any]:  # noqa: ANN401  # of YAML
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ComposeError(f"{place}: a mapping expected, not {value!r}")
    return value


def _list(entry: Mapping[str, Any], key: str) -> list[Any]:
    value = entry.get(key)
    return value if isinstance(value, list) else [value] if value else []
