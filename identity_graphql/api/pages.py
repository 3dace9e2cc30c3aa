"""The pages for people: where everything is, and the documentation of the REST shim.

All links are relative: behind a proxy, the service may be anywhere below a path.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from string import Template

import orjson
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from identity_graphql.api import openapi, rest

PLACES = (
    ("/graphql", "GraphiQL: try queries and mutations in the browser"),
    ("/docs", "Swagger UI: the REST shim, to try"),
    ("/redoc", "ReDoc: the REST shim, to read"),
    ("/openapi.json", "OpenAPI 3.1"),
    ("/health", "is the process up"),
    ("/ready", "can it serve"),
    ("/live", "is it alive"),
)

_PAGE = Template("""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>$title</title>
$content
</html>
""")

_HOME = """<style>
body { font: 16px/1.6 system-ui, sans-serif; max-width: 42rem; margin: 4rem auto; padding: 0 1rem; color: #1c2330 }
code, a { font-family: ui-monospace, monospace }
dt { float: left; clear: left; width: 9rem }
dd { margin: 0 0 .4rem 9rem }
</style>
<h1>identity_graphql</h1>
<p>Which customer is this? <code>POST /identify</code> with an email, a phone number, or both; <code>POST /lookup</code>
asks the same, and learns nothing.</p>
<dl>$places</dl>"""

# From a public CDN, pinned and checked by their hashes.
_SWAGGER_UI = """<link rel="stylesheet" href="https://unpkg.com/swagger-ui-dist@5.35.0/swagger-ui.css"
 integrity="sha384-WlYgdmXYOOBWL5apwjDEZwN+U3HmXSSu5R6V5aGxEcf7z+KuRNwBhoxKVN1i3D5I" crossorigin="anonymous">
<div id="ui"></div>
<script src="https://unpkg.com/swagger-ui-dist@5.35.0/swagger-ui-bundle.js" crossorigin="anonymous"
 integrity="sha384-gjRm0bEPMeTmMh5jT2cHccIwCUZSTd8YC+j0d0sXw0MdGEfScduGpSyF3ZSSLkX9"></script>
<script>SwaggerUIBundle({ url: "${root}openapi.json", dom_id: "#ui", validatorUrl: null })</script>"""

_REDOC = """<redoc spec-url="${root}openapi.json"></redoc>
<script src="https://unpkg.com/redoc@2.5.4/bundles/redoc.standalone.js" crossorigin="anonymous"
 integrity="sha384-w447zOpYfw/1Tv/5AK9NfHTlQIqE3RVR6KY62jCyy9zNDgO64cMwGGP1Fj0zJVf5"></script>"""


def routes(contract: rest.Contract) -> list[Route]:
    """`/`, `/docs`, `/redoc` and `/openapi.json`."""
    places = "".join(f'<dt><a href="{path[1:]}">{path}</a></dt><dd>{text}</dd>' for path, text in PLACES)
    descriptions = {root: orjson.dumps(openapi.document(contract, root)) for root in (".", "..")}
    home = _page("identity_graphql", _HOME, places=places)
    listing = orjson.dumps({"identify": "POST /identify", "lookup": "POST /lookup", **dict(PLACES)})

    async def root(request: Request) -> Response:
        if "text/html" in request.headers.get("accept", ""):
            return HTMLResponse(home)
        return Response(listing, media_type="application/json")

    async def document(request: Request) -> Response:
        return Response(descriptions[".." if _is_folder(request) else "."], media_type="application/json")

    return [
        Route("/", root),
        Route("/openapi.json", document),
        Route("/docs", _documentation(_SWAGGER_UI)),
        Route("/redoc", _documentation(_REDOC)),
    ]


def _documentation(content: str) -> Callable[[Request], Awaitable[Response]]:
    """A page that reads `openapi.json`, which is one level up where its own path ends with a slash."""
    beside, below = (_page("identity_graphql: REST", content, root=root) for root in ("", "../"))

    async def page(request: Request) -> Response:
        return HTMLResponse(below if _is_folder(request) else beside)

    return page


def _is_folder(request: Request) -> bool:
    """Whether what is relative begins at the path itself, and not at the one above it."""
    path: str = request.scope["path"]
    return path.endswith("/")


def _page(title: str, content: str, **values: str) -> str:
    return _PAGE.substitute(title=title, content=Template(content).substitute(values))
