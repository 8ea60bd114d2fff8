"""The server of `hangtag serve` behind Ray Serve's own HTTP proxy, as Ray's documentation shows: RUN PORT KIND.

KIND is "app" (`serve.ingress` with our application, which batches in each replica), or "batch" (`@serve.batch`).
"""

import json
import sys
from pathlib import Path
from typing import Any

REPLICAS = 2


def application(run: str, kind: str) -> Any:
    from ray import serve

    options = {"num_replicas": REPLICAS, "max_ongoing_requests": 1000, "ray_actor_options": {"num_cpus": 1}}
    if kind == "app":

        def build() -> Any:
            from hangtag.serving.app import create_app
            from hangtag.serving.models import Models
            from hangtag.serving.settings import Settings

            return create_app(Models([run]), Settings(threads=1, access_log=None))

        return serve.deployment(**options)(serve.ingress(build)()).bind()

    class Batched:
        def __init__(self) -> None:
            from hangtag.serving.models import open_to_serve

            self.predictor = open_to_serve(Path(run))

        @serve.batch(max_batch_size=64, batch_wait_timeout_s=0.002)  # type: ignore[untyped-decorator]
        async def answers(self, pictures: list[bytes]) -> list[Any]:
            from hangtag.serving.compute import Ask, answer_all

            (found,) = answer_all(self.predictor, [(Ask(), pictures)], 50_000_000).results
            return [each.to_json() for each in found if each is not None]

        async def __call__(self, request: Any) -> Any:
            from starlette.responses import Response

            if request.method == "GET":
                return Response("{}", media_type="application/json")
            answer = await self.answers(await request.body())
            return Response(json.dumps(answer), media_type="application/json")

    return serve.deployment(**options)(Batched).bind()


def main() -> None:
    import signal
    import tempfile

    import ray
    from ray import serve

    run, port, kind = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        ray.init(
            num_cpus=REPLICAS, object_store_memory=100_000_000, _temp_dir=folder, include_dashboard=False,
            log_to_driver=False,
        )  # fmt: skip
        try:
            quiet = {"enable_access_log": False, "log_level": "WARNING"}
            serve.start(http_options={"port": int(port)}, proxy_location="HeadOnly", logging_config=quiet)
            serve.run(application(run, kind))
            signal.sigwait({signal.SIGTERM, signal.SIGINT})
        finally:
            ray.shutdown()


if __name__ == "__main__":
    main()
