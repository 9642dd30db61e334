"""The API schemas that Dify serves openly unless SWAGGER_UI_ENABLED is false: one for each route group."""

from collections.abc import Iterable
from typing import Any

from flask import Blueprint, Flask, Response, current_app, jsonify
from markupsafe import escape

from dify_standin.config import release, text


def publish(app: Flask, groups: Iterable[Blueprint]) -> None:
    """Serve the schema and its page of each group, without a credential."""
    page = text("SWAGGER_UI_PATH") or "/swagger-ui.html"
    for group in groups:
        prefix = group.url_prefix or ""
        app.add_url_rule(f"{prefix}/swagger.json", f"{group.name}-schema", _schema(prefix))
        app.add_url_rule(f"{prefix}{page}", f"{group.name}-schema-page", _page(prefix))


def _schema(prefix: str) -> Any:  # noqa: ANN401  # Flask's view
    def view() -> Response:
        paths: dict[str, dict[str, Any]] = {}
        for rule in current_app.url_map.iter_rules():
            if rule.rule.startswith(f"{prefix}/") and "schema" not in rule.endpoint:
                path = rule.rule.removeprefix(prefix).replace("<", "{").replace(">", "}")
                methods = sorted((rule.methods or set()) - {"HEAD", "OPTIONS"})
                paths.setdefault(path, {}).update(
                    {method.lower(): {"responses": {"200": {"description": "Success"}}} for method in methods}
                )
        info = {"title": f"stand-in for Dify {release()}", "version": release()}
        return jsonify({"swagger": "2.0", "basePath": prefix, "info": info, "paths": paths})

    return view


def _page(prefix: str) -> Any:  # noqa: ANN401  # Flask's view
    def view() -> Response:
        link = escape(f"{prefix}/swagger.json")
        return Response(f'<!doctype html><title>API</title><a href="{link}">{link}</a>', mimetype="text/html")

    return view
