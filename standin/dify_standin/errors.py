"""Errors in Dify's shape: code, message, status."""

from typing import Any

from flask import Flask, Response, jsonify, request
from pydantic import ValidationError
from werkzeug.exceptions import HTTPException

from dify_standin.refusals import pydantic_text


class ApiError(Exception):
    """An error that goes to the caller."""

    def __init__(self, status: int, code: str, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class PlainError(ApiError):
    """An error without `status` in its body, as those of the plugin daemon are."""


def unauthorized(message: str) -> ApiError:
    """Return the 401 of the service API."""
    return ApiError(401, "unauthorized", message, WWW_Authenticate='Bearer realm="api"')


def answer(status: int, code: str, message: str) -> Response:
    """Return an error's response."""
    response = jsonify({"code": code, "message": message, "status": status})
    response.status_code = status
    return response


def register(app: Flask) -> None:
    """Let the application answer errors as Dify does."""

    @app.errorhandler(ApiError)
    def _api_error(problem: ApiError) -> Response:
        response = answer(problem.status, problem.code, problem.message)
        if isinstance(problem, PlainError):
            response.set_data(jsonify({"code": problem.code, "message": problem.message}).get_data())
        response.headers.update(problem.headers)
        return response

    @app.errorhandler(ValidationError)
    def _invalid(problem: ValidationError) -> Response:
        return answer(400, "invalid_param", pydantic_text(problem))

    @app.errorhandler(HTTPException)
    def _http(problem: HTTPException) -> Any:  # noqa: ANN401  # werkzeug's own response for 404
        status = problem.code or 500
        if status in {404, 308, 301}:
            return problem
        names = {
            400: (
                "bad_request",
                "The browser (or proxy) sent a request that this server could not understand.",
            ),
            405: ("method_not_allowed", "The method is not allowed for the requested URL."),
            415: (
                "unsupported_media_type",
                "Did not attempt to load JSON data because the request Content-Type was not 'application/json'.",
            ),
        }
        code, message = names.get(status, ("error", problem.description or ""))
        return answer(status, code, message)

    @app.errorhandler(Exception)
    def _broken(problem: Exception) -> Response:
        app.logger.error("%s %s failed: %s", request.method, request.path, problem)
        response = answer(500, "unknown", "Internal Server Error")
        response.headers["Vary"] = "Cookie"
        return response
