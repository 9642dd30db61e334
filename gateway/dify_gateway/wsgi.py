"""The WSGI entry point: one application for each port, chosen by the port of the socket, never by the request."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from dify_gateway import internal, public
from dify_gateway.service import Service

PUBLIC_PORT = 8090
INTERNAL_PORT = 8091
DIRECTORY = "/etc/dify-gateway"


def create_application(service: Service) -> Callable[[dict[str, Any], Any], Iterable[bytes]]:
    """Return the application for both ports. SERVER_PORT is that of the listening socket, not of a header."""
    outside, inside = public.create_app(service), internal.create_app(service)

    def application(environ: dict[str, Any], start: Any) -> Iterable[bytes]:  # noqa: ANN401  # WSGI's callable
        return (inside if environ["SERVER_PORT"] == str(INTERNAL_PORT) else outside)(environ, start)

    return application


service = Service(Path(os.environ.get("DIFY_GATEWAY_CONFIG", DIRECTORY)))
application = create_application(service)
