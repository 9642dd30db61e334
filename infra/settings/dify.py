"""Settings of Dify itself: mail, storage, sign-in, limits of apps, plugins, telemetry."""

from dataclasses import dataclass

from infra.catalogue import checks
from infra.catalogue.releases import Release
from infra.catalogue.route_groups import OPENAPI
from infra.settings import origins
from infra.settings.reader import Section
from infra.settings.urls import read_origin

# Ten years: a longer time means a slip of the pen, and Dify subtracts it from today's date.
MOST_DAYS = 3650


@dataclass(frozen=True, kw_only=True)
class Mail:
    """How Dify sends mail; type is empty when it does not."""

    type: str
    sender: str
    server: str
    port: int
    username: str
    tls: bool
    opportunistic_tls: bool


@dataclass(frozen=True, kw_only=True)
class Storage:
    """Where uploads are stored: `fs` is the stack's own volume."""

    type: str
    bucket: str
    region: str
    endpoint: str
    access_key: str
    path_style: bool


@dataclass(frozen=True, kw_only=True)
class Login:
    """How people sign in to the console."""

    email_password: bool
    email_code: bool
    social: bool
    allow_register: bool
    allow_create_workspace: bool
    github_client_id: str
    google_client_id: str
    access_token_minutes: int
    refresh_token_days: int
    lockout_seconds: int


@dataclass(frozen=True, kw_only=True)
class OpenApi:
    """Dify's programmatic API."""

    enabled: bool
    oauth_bearer: bool
    rate_per_minute: int


@dataclass(frozen=True, kw_only=True)
class AppLimits:
    """What one app may use. Times in seconds; 0 active requests: no limit."""

    active_requests: int
    execution_seconds: int
    workflow_steps: int
    workflow_seconds: int


@dataclass(frozen=True, kw_only=True)
class Retention:
    """How many days Dify keeps what grows with use; 0: for good."""

    workflow_run_days: int
    message_days: int


@dataclass(frozen=True, kw_only=True)
class Plugins:
    """How plugins are installed and run."""

    verify_signature: bool
    marketplace: bool
    pip_mirror_url: str
    max_package_megabytes: int
    timeout_seconds: int


@dataclass(frozen=True, kw_only=True)
class Telemetry:
    """OpenTelemetry of Dify; an empty endpoint turns it off."""

    otlp_endpoint: str
    sampling_rate: float


def read_mail(top: Section) -> Mail:
    """Read `dify:mail`."""
    section = top.part("mail")
    mail = Mail(
        type=section.choice("type", ("", "smtp", "resend", "sendgrid")),
        sender=section.text("from"),
        server=section.text("server"),
        port=section.integer("port", 1, origins.MAX_PORT),
        username=section.text("username"),
        tls=section.boolean("tls"),
        opportunistic_tls=section.boolean("opportunisticTls"),
    )
    if mail.type == "smtp" and not mail.server:
        top.problems.add("mail.server", mail.server, "is empty", "name the SMTP server, or clear mail.type")
    if mail.type and not checks.EMAIL.search(mail.sender):
        top.problems.add("mail.from", mail.sender, "is not an e-mail address", "name the sender")
    if mail.opportunistic_tls and not mail.tls:
        top.problems.add("mail.opportunisticTls", "true", "needs mail.tls", "set mail.tls to true")
    return mail


def read_storage(top: Section) -> Storage:
    """Read `dify:storage`."""
    section = top.part("storage")
    storage = Storage(
        type=section.choice("type", ("fs", "s3")),
        bucket=section.text("bucket"),
        region=section.text("region"),
        endpoint=section.text("endpoint"),
        access_key=section.text("accessKey"),
        path_style=section.boolean("pathStyle"),
    )
    if storage.type == "s3":
        for part, value in (("bucket", storage.bucket), ("accessKey", storage.access_key)):
            if not value:
                top.problems.add(
                    f"storage.{part}", value, "is empty, and s3 needs it", "set it, or storage.type to fs"
                )
        if storage.endpoint:
            read_origin(top, "storage.endpoint", storage.endpoint)
    return storage


def read_login(top: Section) -> Login:
    """Read `dify:login`."""
    section = top.part("login")
    login = Login(
        email_password=section.boolean("emailPassword"),
        email_code=section.boolean("emailCode"),
        social=section.boolean("social"),
        allow_register=section.boolean("allowRegister"),
        allow_create_workspace=section.boolean("allowCreateWorkspace"),
        github_client_id=section.text("githubClientId"),
        google_client_id=section.text("googleClientId"),
        access_token_minutes=section.integer("accessTokenMinutes", 1, 1440),
        refresh_token_days=section.integer("refreshTokenDays", 1, 365),
        lockout_seconds=section.integer("lockoutSeconds", 60, 604800),
    )
    providers = login.github_client_id or login.google_client_id
    if login.social and not providers:
        top.problems.add(
            "login.social", "true", "has no provider", "set login.githubClientId or login.googleClientId"
        )
    if providers and not login.social:
        top.problems.add("login.social", "false", "a client id is set", "set login.social to true")
    if not (login.email_password or login.email_code or login.social):
        top.problems.add("login", "all off", "no user could sign in", "turn on one way to sign in")
    return login


def read_openapi(top: Section, release: Release) -> OpenApi:
    """Read `dify:openapi`."""
    section = top.part("openapi")
    openapi = OpenApi(
        enabled=section.boolean("enabled"),
        oauth_bearer=section.boolean("oauthBearer"),
        rate_per_minute=section.integer("ratePerMinute", 1, 100000),
    )
    if openapi.enabled and not any(route.group == OPENAPI for route in release.routes):
        top.problems.add(
            "openapi.enabled", "true", f"Dify {release.version} has no /openapi", "set it to false"
        )
    return openapi


def read_app_limits(top: Section) -> AppLimits:
    """Read `dify:limits`."""
    section = top.part("limits")
    return AppLimits(
        active_requests=section.integer("activeRequests", 0, 100000),
        execution_seconds=section.integer("executionSeconds", 1, 86400),
        workflow_steps=section.integer("workflowSteps", 1, 100000),
        workflow_seconds=section.integer("workflowSeconds", 1, 86400),
    )


def read_retention(top: Section) -> Retention:
    """Read `dify:retention`."""
    section = top.part("retention")
    return Retention(
        workflow_run_days=section.integer("workflowRunDays", 0, MOST_DAYS),
        message_days=section.integer("messageDays", 0, MOST_DAYS),
    )


def read_plugins(top: Section) -> Plugins:
    """Read `dify:plugins`."""
    section = top.part("plugins")
    mirror = section.text("pipMirrorUrl")
    if mirror and not checks.http_url(mirror, plain=True):
        top.problems.add("plugins.pipMirrorUrl", mirror, "is not a URL", "use http:// or https:// and a host")
    return Plugins(
        verify_signature=section.boolean("verifySignature"),
        marketplace=section.boolean("marketplace"),
        pip_mirror_url=mirror,
        max_package_megabytes=section.integer("maxPackageMegabytes", 1, 10240),
        timeout_seconds=section.integer("timeoutSeconds", 10, 86400),
    )


def read_telemetry(top: Section) -> Telemetry:
    """Read `dify:telemetry`."""
    section = top.part("telemetry")
    endpoint = section.text("otlpEndpoint")
    if endpoint and not checks.http_url(endpoint, plain=True):
        top.problems.add(
            "telemetry.otlpEndpoint", endpoint, "is not a URL", "use http:// or https:// and a host"
        )
    return Telemetry(otlp_endpoint=endpoint, sampling_rate=section.number("samplingRate", 0.0, 1.0))
