"""The api's web application: its blueprints, their CORS as Dify sends it, and what every answer carries."""

from flask import Blueprint, Flask, Response, jsonify, request
from flask_cors import CORS

from dify_standin import (
    console_api,
    console_apps,
    console_dependencies,
    console_models,
    console_plugins,
    console_providers,
    datasets,
    errors,
    schema,
    service_api,
    service_info,
    service_records,
    store,
)
from dify_standin.config import flag, release, text
from dify_standin.dialect import dialect

# Modules that add routes to the blueprints of console_api and service_api.
ROUTES = (
    console_apps,
    console_dependencies,
    console_models,
    console_plugins,
    console_providers,
    service_info,
    service_records,
)
METHODS = ["GET", "PUT", "POST", "DELETE", "OPTIONS", "PATCH"]
EXPOSED = ["X-Version", "X-Env", "X-Trace-Id"]
COOKIE_HEADERS = ["Content-Type", "Authorization", "X-App-Code", "X-CSRF-Token"]


def _origins(name: str) -> list[str]:
    return text(name, "*").split(",")


def create_app() -> Flask:
    """Build the application with every route group of Dify's api."""
    app = Flask("dify-stand-in")
    app.secret_key = text("SECRET_KEY") or None
    app.json.sort_keys = False  # type: ignore[attr-defined]  # Flask's default provider has it
    app.config["MAX_CONTENT_LENGTH"] = 1024**3
    errors.register(app)
    service = service_api.blueprint
    knowledge = datasets.blueprint
    console = console_api.blueprint
    web = _web_api()
    for group in (service, knowledge):
        CORS(
            group,
            allow_headers=["Content-Type", "Authorization", "X-App-Code"],
            methods=METHODS,
            expose_headers=EXPOSED,
        )
    CORS(
        console,
        resources={r"/*": {"origins": _origins("CONSOLE_CORS_ALLOW_ORIGINS")}},
        supports_credentials=True,
        allow_headers=COOKIE_HEADERS,
        methods=METHODS,
        expose_headers=EXPOSED,
    )
    CORS(
        web,
        resources={r"/*": {"origins": _origins("WEB_API_CORS_ALLOW_ORIGINS")}},
        supports_credentials=True,
        allow_headers=[*COOKIE_HEADERS, "X-App-Passport"],
        methods=METHODS,
        expose_headers=EXPOSED,
    )
    files = _files()
    CORS(files, allow_headers=["Content-Type"], methods=METHODS, expose_headers=EXPOSED)
    triggers = _triggers()
    CORS(triggers, allow_headers=["Content-Type"], methods=METHODS)
    described = (service, knowledge, console, web, files, _mcp())
    for group in (*described, triggers):
        app.register_blueprint(group)
    if dialect().openapi and flag("OPENAPI_ENABLED"):
        app.register_blueprint(_openapi())
    # On by default, as in Dify's code. Its compose file turns it off.
    if flag("SWAGGER_UI_ENABLED", default=True):
        schema.publish(app, described)

    @app.get("/health")
    def health() -> Response:
        # As Dify's: it shows that the process answers, and nothing more.
        return jsonify({"pid": 0, "status": "ok", "version": release()})

    @app.get("/socket.io/")
    def socket() -> tuple[Response, int]:
        return jsonify({"code": 1, "message": "Bad request: a session needs a console login"}), 400

    @app.after_request
    def _say_who(response: Response) -> Response:
        if dialect().vary_cookie and request.path.startswith("/v1"):
            response.vary.add("Cookie")
        response.headers["X-Version"] = release()
        response.headers["X-Env"] = text("DEPLOY_ENV", "PRODUCTION")
        response.headers["X-Dify-Stand-In"] = "1"
        return response

    return app


def _web_api() -> Blueprint:
    group = Blueprint("web", __name__, url_prefix="/api")

    @group.get("/passport")
    def passport() -> Response:
        raise errors.ApiError(401, "unauthorized", "X-App-Code header is missing.")

    @group.post("/chat-messages")
    @group.get("/parameters")
    @group.get("/site")
    def needs_passport() -> Response:
        raise errors.ApiError(401, "unauthorized", "Invalid token.")

    return group


def _files() -> Blueprint:
    group = Blueprint("files", __name__, url_prefix="/files")

    @group.get("/<uuid:file_id>/file-preview")
    @group.get("/<uuid:file_id>/image-preview")
    def preview(file_id: object) -> Response:
        if store.row("select 1 from upload_files where id = %s", str(file_id)) is None:
            raise errors.ApiError(404, "not_found", "File not found or signature is invalid")
        raise errors.ApiError(403, "forbidden", "Invalid request.")

    return group


def _triggers() -> Blueprint:
    group = Blueprint("triggers", __name__, url_prefix="/triggers")

    @group.route("/webhook/<hook>", methods=["GET", "POST"])
    @group.route("/plugin/<hook>", methods=["GET", "POST"])
    def hook(hook: str) -> tuple[Response, int]:
        return jsonify({"error": "Not found", "message": f"Webhook not found: {hook}"}), 404

    return group


def _mcp() -> Blueprint:
    group = Blueprint("mcp", __name__, url_prefix="/mcp")

    @group.post("/server/<code>/mcp")
    def server(code: str) -> Response:
        return jsonify(
            {"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": f"Server not found: {code}"}}
        )

    return group


def _openapi() -> Blueprint:
    group = Blueprint("openapi", __name__, url_prefix="/openapi/v1")
    allowed = text("OPENAPI_CORS_ALLOW_ORIGINS")
    CORS(group, resources={r"/*": {"origins": allowed.split(",") if allowed else []}}, methods=METHODS)

    @group.get("/<path:anything>")
    def bearer(anything: str) -> Response:
        raise errors.unauthorized(f"A bearer token is needed for {anything}")

    return group
