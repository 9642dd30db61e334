"""gunicorn's settings. The application is loaded once, before the workers are forked: they share its memory."""

import os

from gunicorn.arbiter import Arbiter
from gunicorn.workers.base import Worker

from dify_gateway import wsgi

bind = [f"0.0.0.0:{wsgi.PUBLIC_PORT}", f"0.0.0.0:{wsgi.INTERNAL_PORT}"]
wsgi_app = "dify_gateway.wsgi:application"
worker_class = "gthread"
workers = int(os.environ.get("DIFY_GATEWAY_WORKERS", "2"))
threads = int(os.environ.get("DIFY_GATEWAY_THREADS", "8"))
preload_app = True
worker_tmp_dir = "/dev/shm"  # noqa: S108  # gunicorn's own advice for containers
# Longer than nginx keeps an idle connection, so that it is nginx that closes it.
keepalive = 75
timeout = 30
graceful_timeout = 10
# Above the longest token, so that it is refused as a token and not as a request.
limit_request_field_size = 16_384
loglevel = "warning"


def post_worker_init(worker: Worker) -> None:  # noqa: ARG001  # gunicorn's signature
    """Start following the configuration in the worker: threads do not survive a fork."""
    wsgi.service.start()


def worker_exit(server: Arbiter, worker: Worker) -> None:  # noqa: ARG001  # gunicorn's signature
    """End the threads."""
    wsgi.service.stop()
