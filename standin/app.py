"""Where gunicorn and celery look: `app:app` and `app.celery`, as in Dify."""

from dify_standin.api import create_app
from dify_standin.work import celery

__all__ = ["app", "celery"]

app = create_app()
