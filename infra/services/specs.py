"""The services of a stack as descriptions for a platform, from the catalogue and the settings."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from infra.catalogue import services as catalogue
from infra.catalogue.releases import Release
from infra.catalogue.selection import Selection, importers
from infra.catalogue.service import Keep, Part, Tier
from infra.services import certificates, data, dify, edge, external_data, gateway, litellm, outbound
from infra.services.environment import environment
from infra.services.limits import limits_of
from infra.services.spec import Detail, Details, ServiceSpec
from infra.settings.stack import Settings

_DETAILS: Mapping[str, Detail] = MappingProxyType(
    {
        **data.DETAILS,
        **external_data.DETAILS,
        **dify.DETAILS,
        **gateway.DETAILS,
        **litellm.DETAILS,
        **certificates.DETAILS,
        **edge.DETAILS,
    }
)


def parts_of(settings: Settings) -> frozenset[Part]:
    """Return the parts of a stack that its settings turn on."""
    external = settings.oauth is not None and bool(settings.oauth.issuers)
    found = {
        Part.GATEWAY: settings.gateway,
        Part.ISSUERS: settings.oidc_gate is not None or external,
        Part.LLM: settings.llm is not None and settings.kubernetes is None,
        Part.LLM_OWNER: settings.llm is not None and settings.kubernetes is not None,
        Part.LITELLM: settings.llm is not None and settings.llm.litellm is not None,
        Part.CERTBOT: settings.tls.acme is not None,
        Part.EXTERNAL_DATA: bool(settings.external_services),
    }
    return frozenset(part for part, on in found.items() if on)


def selection(settings: Settings, release: Release) -> Selection:
    """Return what decides which services, networks and volumes a stack has."""
    return Selection(
        release=release.services,
        vector_store=settings.vector_store,
        parts=parts_of(settings),
        external=settings.external_services,
    )


def specs(tier: Tier, settings: Settings, release: Release) -> list[ServiceSpec]:
    """Return the services of a tier, each after those it needs."""
    return [spec(name, settings, release) for name in selection(settings, release).services(tier)]


def tier_volumes(tier: Tier, settings: Settings, release: Release) -> Mapping[str, Keep]:
    """Return the volumes that a tier creates, and how long each lasts."""
    return selection(settings, release).volumes(tier)


def networks(settings: Settings, release: Release) -> dict[str, bool]:
    """Return the networks of a stack; the value says whether one is internal, without a route to the outside."""
    return selection(settings, release).networks()


def spec(name: str, settings: Settings, release: Release) -> ServiceSpec:
    """Return one service of the catalogue as a stack of these settings runs it."""
    service, chosen = catalogue.SERVICES[name], selection(settings, release)
    detail = _DETAILS.get(name)
    details = detail(settings, release) if detail else Details()
    variables = environment(name, settings, release) if service.variables else {}
    running, present = chosen.services(), chosen.networks()
    return ServiceSpec(
        name=name,
        image=service.image,
        networks=tuple(network for network in service.networks if network in present),
        limits=limits_of(name, settings),
        after=tuple(other for other in service.after if other in running),
        environment={**outbound.variables(name, settings), **variables, **details.environment},
        entrypoint=details.entrypoint or service.entrypoint,
        command=details.command,
        files=(*details.files, *outbound.files(name, settings), *external_data.files(name, settings)),
        delivery=details.delivery,
        mounts=chosen.mounts(service),
        aliases=details.aliases,
        ports=details.ports,
        tmpfs=service.tmpfs,
        health=service.health,
        user=service.user,
        capabilities=service.capabilities,
        dns_options=service.dns_options,
        init=service.init,
        read_only=service.read_only,
        job=service.job,
        stop_grace=service.stop_grace,
        stop_signal=service.stop_signal,
        ready_timeout=service.ready_timeout,
    )


def staggered(services: Sequence[ServiceSpec], cores: int) -> list[ServiceSpec]:
    """Return the services so that at most `cores` of those that import Dify start at a time.

    More of them at the same time delay each other, and with them api, which the claim and the edge wait for. Without a
    core for each of them the next one starts when one is ready.
    """
    return list(_staggered(services, max(1, cores)))


def _staggered(services: Sequence[ServiceSpec], cores: int) -> Iterator[ServiceSpec]:
    heavy, started = importers(), list[str]()
    for one in services:
        if one.name not in heavy:
            yield one
            continue
        before = started[-cores:][:1] if len(started) >= cores else []
        yield replace(one, after=tuple(dict.fromkeys((*one.after, *before))))
        started.append(one.name)
