"""The files of a small container image that runs `hangtag serve`: without PyTorch, and not as root."""

import json
import sys
from pathlib import Path

from hangtag.shipping.parcel import Files, Parcel, Shipped
from hangtag.shipping.wheel import constraints, wheel

__all__ = ["USER", "VENV", "ship"]

USER = 10001
"""The user and group in the container; a number, so that Kubernetes can see that it is not root."""

VENV = "/opt/hangtag"
_PORT = 8000
_HEALTH = (
    "import urllib.request as r; r.urlopen(r.Request('http://127.0.0.1:{port}/v2/health/ready'), timeout=2).close()"
)


def ship(parcel: Parcel, given: Path | None) -> Shipped:
    """A Dockerfile and everything that it copies."""
    name, content = wheel(given)
    files: Files = {
        "Dockerfile": _dockerfile(parcel, name).encode(),
        ".dockerignore": b"*\n!model.onnx\n!constraints.txt\n!*.whl\n",
        "constraints.txt": constraints(content),
        "model.onnx": parcel.content,
        name: content,
    }
    run = (
        "docker run --rm --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges "
        f"-p 127.0.0.1:{_PORT}:{_PORT} -e HANGTAG_TOKEN {parcel.name}"
    )
    ask = f'curl -H "Authorization: Bearer $HANGTAG_TOKEN" --data-binary @photo.jpg localhost:{_PORT}/predict'
    return Shipped(
        files,
        (f"docker build -t {parcel.name} {{folder}}", "export HANGTAG_TOKEN=$(openssl rand -hex 32)", run, ask),
    )


def _dockerfile(parcel: Parcel, wheel_name: str) -> str:
    python = f"python:{sys.version_info[0]}.{sys.version_info[1]}-slim"
    command = [
        f"{VENV}/bin/hangtag", "serve", f"/models/{parcel.name}.onnx", "--host", "0.0.0.0", "--port", str(_PORT),
        "--allow-host", "*",
    ]  # fmt: skip
    health = [f"{VENV}/bin/python", "-c", _HEALTH.format(port=_PORT)]
    return f"""# hangtag serve with one model. The versions in constraints.txt are those on the machine that wrote this file.
FROM {python} AS build
COPY constraints.txt {wheel_name} /build/
RUN python -m venv {VENV} \\
 && {VENV}/bin/pip install --no-cache-dir --disable-pip-version-check \\
    --constraint /build/constraints.txt "/build/{wheel_name}[serve]" \\
 && {VENV}/bin/pip uninstall --yes pip

FROM {python}
COPY --from=build {VENV} {VENV}
COPY model.onnx /models/{parcel.name}.onnx
USER {USER}:{USER}
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp
EXPOSE {_PORT}
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s CMD {json.dumps(health)}
# Clients need the token in the variable HANGTAG_TOKEN; without one, the server does not start.
ENTRYPOINT {json.dumps(command)}
"""
