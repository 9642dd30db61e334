"""Celery without the web application, for workers and health commands."""

# Tasks are known by being imported.
from dify_standin import indexing
from dify_standin.work import celery

__all__ = ["celery", "indexing"]
