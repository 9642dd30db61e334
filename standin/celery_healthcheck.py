"""Celery without the web application, for health commands."""

from dify_standin.work import celery

__all__ = ["celery"]
