"""The pages of a server: one to try pictures on, and the documentation of the API. They load nothing from elsewhere."""

from functools import cache
from importlib.util import find_spec

from starlette.requests import Request
from starlette.responses import FileResponse, Response

from hangtag.serving.refusals import Refusal
from hangtag.serving.routes import Router

__all__ = ["router"]

router = Router(include_in_schema=False)

_DOCS_FILES = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}
_SAFE = {
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


@router.api_route("/", methods=["GET", "HEAD"])
async def page(request: Request) -> Response:
    """A page to try pictures on."""
    return Response(*_page("serve", "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'"))


@router.api_route("/docs", methods=["GET", "HEAD"])
async def docs(request: Request) -> Response:
    """The documentation of the API."""
    _docs_folder()
    return Response(*_page("docs", "default-src 'none'; img-src 'self' data:; style-src 'self' 'unsafe-inline'"))


@router.api_route("/static/{name}", methods=["GET", "HEAD"])
async def docs_file(request: Request) -> Response:
    """A file of the page /docs."""
    name = request.path_params["name"]
    if name not in _DOCS_FILES:
        raise Refusal(404, "no such file", "/docs lists the paths of the server")
    return FileResponse(f"{_docs_folder()}/{name}", media_type=_DOCS_FILES[name], headers=_SAFE)


@cache
def _page(name: str, policy: str) -> tuple[str, int, dict[str, str], str]:
    """A page from its template and its script, which alone its policy permits."""
    from hangtag.html import render, script

    source, digest = script(f"{name}.js")
    files = " 'self'" if name == "docs" else ""
    policy = (
        f"{policy}; script-src '{digest}'{files}; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    text = render(f"{name}.html", {"script": source})
    return text, 200, {**_SAFE, "Content-Security-Policy": policy}, "text/html; charset=utf-8"


@cache
def _docs_folder() -> str:
    if find_spec("swagger_ui_bundle") is None:
        raise Refusal(404, "the page /docs is not installed", "pip install 'hangtag[serve]'; /openapi.json is there")
    from swagger_ui_bundle import swagger_ui_path

    return str(swagger_ui_path)
