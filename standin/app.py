"""Where gunicorn and celery look: `app:app` and `app.celery`, as in Dify."""

import os
import time

from dify_standin.api import create_app
from dify_standin.config import start_seconds
from dify_standin.work import celery

__all__ = ["app", "celery"]

# gunicorn listens already and lets requests wait, as it does while Dify is imported.
if "gunicorn" in os.environ.get("SERVER_SOFTWARE", ""):
    time.sleep(start_seconds())

app = create_app()
