"""Stand-in for Dify's web frontend: pages that say what this is."""

from flask import Flask, Response

from dify_standin.config import release, text

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Dify stand-in</title>
<style>body{{font:16px/1.5 system-ui;max-width:42rem;margin:4rem auto;padding:0 1rem}}</style></head>
<body><h1>This is a stand-in, not Dify</h1>
<p>dify-kit runs it instead of Dify {release}, because this stack was set up without the official images
(<code>dify:images local</code>). It follows Dify's HTTP contract for the service API and the console API, so that
everything around Dify can be tried. It has no user interface and no language models of its own.</p>
<p>Console API: <code>{console}/console/api</code><br>Service API: <code>{app}/v1</code></p>
</body></html>
"""

app = Flask(__name__)


@app.get("/", defaults={"path": ""})
@app.get("/<path:path>")
def page(path: str) -> Response:  # noqa: ARG001  # one page for all
    """Serve the one page for every address of the frontend."""
    body = PAGE.format(release=release(), console=text("CONSOLE_API_URL"), app=text("APP_API_URL"))
    response = Response(body, content_type="text/html; charset=utf-8")
    response.headers["X-Dify-Stand-In"] = "1"
    response.headers["X-Frame-Options"] = "DENY"
    return response
