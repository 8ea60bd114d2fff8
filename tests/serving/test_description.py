"""The OpenAPI description says what the server does."""

from hangtag.serving import open_inference, page, simple_api
from hangtag.serving.description import describe
from hangtag.serving.guard import OPEN_PATHS


def test_only_the_paths_that_are_open_need_no_token() -> None:
    found = describe([simple_api.router, open_inference.router, page.router], needs_token=True)

    assert found["security"] == [{"token": []}]
    open_paths = {
        path for path, methods in found["paths"].items() if all(m.get("security") == [] for m in methods.values())
    }
    assert open_paths == OPEN_PATHS & found["paths"].keys() and "/healthz" in open_paths
