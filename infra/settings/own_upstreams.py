"""`dify:llm` of a stack: no upstream of the LLM proxy may be the proxy itself."""

from collections.abc import Callable

from infra.catalogue import addresses, ports
from infra.catalogue.services import LLM_EDGE, NGINX
from infra.settings.llm import Llm, LlmReader
from infra.settings.network import LOOPBACK_NAMES
from infra.settings.outbound import Outbound
from infra.settings.proxy_keys import ProxyKey
from infra.settings.reader import Section
from infra.settings.stack_secrets import SecretReader


def read_llm(
    top: Section,
    secrets: SecretReader,
    issued: Callable[[], tuple[ProxyKey, ...]],
    *,
    stack: str,
    names: tuple[str, ...],
    own_ports: tuple[int, ...],
    outbound: Outbound | None,
) -> Llm | None:
    """Read `dify:llm`. The stack answers to `names` at `own_ports`."""
    reader = LlmReader(top.part("llm"), secrets=secrets, issued=issued, outbound=outbound)
    llm = reader.read()
    own_hosts = {f"dify-{stack}-nginx", NGINX, LLM_EDGE}
    own = {(name, port) for name in names for port in own_ports}
    # 127.0.0.1 is nginx's own container to it, where the proxy listens too.
    own |= {(name, port) for name in LOOPBACK_NAMES for port in (*own_ports, *ports.EDGE)}
    for upstream in reader.addresses:
        problem = addresses.destination_problem(upstream.host)
        if upstream.host in own_hosts or (upstream.host, upstream.port) in own:
            problem = "is the proxy itself, which would call itself"
        if problem:
            top.problems.add(
                f"llm.upstreams.{upstream.name}.baseUrl",
                upstream.base_url,
                problem,
                "use the URL of another server, without /chat/completions",
            )
    return llm
