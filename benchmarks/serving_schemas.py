"""Random requests made by schemathesis from our OpenAPI description and from one of the Open Inference Protocol v2.

    python benchmarks/serving_schemas.py RUN --cases 500 [--v2 open_inference_rest.yaml]

The server runs in a process of its own on a free port. With --v2, the protocol's own description is read from a file,
its path parameters standing for the model. A failure is a status of 500 or more except 503 and 504, an answer that is
not documented, or one that contradicts its schema.
"""

import argparse
import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

OURS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
THEIRS = "not_a_server_error,response_schema_conformance"  # it documents neither 404 nor 413


def served(run: str, port: int) -> "subprocess.Popen[bytes]":
    """A server that answers."""
    server = subprocess.Popen([sys.executable, "-m", "hangtag", "serve", run, "--port", str(port)])
    for _ in range(100):
        time.sleep(0.2)
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=2)
        except OSError:
            continue
        return server
    server.kill()
    raise SystemExit("the server did not start")


def about_the_model(text: str, model: dict[str, Any]) -> dict[str, Any]:
    """The protocol's description with the served model in its paths, so that requests reach it."""
    import yaml

    named = text.replace("${MODEL_NAME}", model["name"]).replace("${MODEL_VERSION}", model["version"])
    parsed: dict[str, Any] = yaml.safe_load(named)
    for path in parsed["paths"].values():
        path.pop("parameters", None)
    return parsed


def campaign(address: str, schema: str, cases: int, checks: str) -> bool:
    """Run schemathesis; whether nothing failed."""
    command = ["run", schema, "--url", address, "--checks", checks, "--max-examples", str(cases)]
    code = "import sys; from schemathesis.cli import schemathesis; schemathesis(sys.argv[1:])"
    done = subprocess.run([sys.executable, "-c", code, *command, "--phases", "examples,coverage,fuzzing"], check=False)
    return done.returncode == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--cases", type=int, default=500, help="of each operation")
    parser.add_argument("--v2", type=Path, help="the description of the protocol, a YAML file")
    asked = parser.parse_args()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address, server = f"http://127.0.0.1:{port}", served(asked.run, port)
    try:
        good = campaign(address, f"{address}/openapi.json", asked.cases, OURS)
        if asked.v2:
            request = urllib.request.Request(f"{address}/v2/repository/index", method="POST")
            model = json.load(urllib.request.urlopen(request))[0]
            with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
                json.dump(about_the_model(asked.v2.read_text(encoding="utf-8"), model), file)
                file.flush()
                good &= campaign(address, file.name, asked.cases, THEIRS)
    finally:
        server.terminate()
        server.wait(30)
    sys.exit(not good)


if __name__ == "__main__":
    main()
