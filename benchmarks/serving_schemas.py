"""Random requests made by schemathesis from our OpenAPI description and from one of the Open Inference Protocol v2.

    python benchmarks/serving_schemas.py RUN --cases 2000 [--v2 open_inference_rest.yaml]

Every check of schemathesis is on, with the exceptions that schemathesis.toml explains. Our description is tried on a
server without and on one with a token. `open_inference.yaml` describes the protocol; --v2 takes another file, such as
the official one. Names of the served model are put into the descriptions, so that requests reach it.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TOKEN = "a-token-for-schemathesis"
PARTIAL = "not_a_server_error,response_schema_conformance,content_type_conformance"
"""The checks for a description of the protocol other than ours: the official one documents no error but 400."""


@contextmanager
def served(run: str, *arguments: str) -> Iterator[str]:
    """The address of a server that answers."""
    command = [sys.executable, "-m", "hangtag", "serve", run, "--port", "0", "--json", "--access-log", "none"]
    server = subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        yield json.loads(server.stdout.readline())["url"].rstrip("/")
    finally:
        server.terminate()
        server.wait(30)


def read(address: str, path: str, method: str = "GET") -> Any:
    request = urllib.request.Request(address + path, headers={"Authorization": f"Bearer {TOKEN}"}, method=method)
    return json.load(urllib.request.urlopen(request))


def about_the_model(description: dict[str, Any], model: dict[str, Any]) -> dict[str, Any]:
    """The description with the served model in the parameters of its paths, and in half of the tensors."""
    known = {"model": [model["name"]], "version": [model["version"]]}
    for path in description["paths"].values():
        for place in (path, *(each for each in path.values() if isinstance(each, dict))):
            for parameter in place.get("parameters", ()):
                name = parameter["name"].lower().removeprefix("model_").replace("name", "model")
                if parameter["in"] == "path" and name in known:
                    parameter["schema"] = {"type": "string", "enum": known[name]}
    schemas = description["components"]["schemas"]
    if "request_input" in schemas:
        properties = schemas["request_input"]["properties"]
        schemas["request_input"] = {
            **schemas["request_input"],
            "properties": {**properties, "name": {"enum": ["images"]}},
        }
    return description


def campaign(address: str, description: dict[str, Any], cases: int, checks: str) -> tuple[int, bool]:
    """Run schemathesis until it has made so many cases; their number, and whether nothing failed."""
    code = "import sys; from schemathesis.cli import schemathesis; schemathesis(sys.argv[1:])"
    operations = sum(method in ("get", "post") for path in description["paths"].values() for method in path)
    total, seed, good = 0, 0, True
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(description, file)
        file.flush()
        while total < cases:
            most = str(max(10, (cases - total) // operations))
            command = [
                "--config-file", str(HERE / "schemathesis.toml"), "run", file.name, "--url", address,
                "--seed", str(seed), "--checks", checks, "--max-examples", most, "--continue-on-failure", "--no-color",
                "-H", f"Authorization: Bearer {TOKEN}",
            ]  # fmt: skip
            done = subprocess.run(
                [sys.executable, "-c", code, *command], stdout=subprocess.PIPE, text=True, check=False
            )
            if done.returncode:
                print(done.stdout)
            made = re.search(r"([\d,]+) generated", done.stdout)
            good &= done.returncode == 0 and made is not None
            if made is None:
                break
            total, seed = total + int(made[1].replace(",", "")), seed + 1
    return total, good


def main() -> None:
    import yaml  # type: ignore[import-untyped]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--cases", type=int, default=2000, help="of each description, at least")
    parser.add_argument("--v2", type=Path, default=HERE / "open_inference.yaml", help="a description of the protocol")
    parser.add_argument("--only", nargs="*", help="of ours, 'ours, with a token' and v2")
    asked = parser.parse_args()
    results = {}
    campaigns = {"ours": [], "ours, with a token": ["--token", TOKEN], "v2": []}
    for what, arguments in campaigns.items():
        if asked.only and what not in asked.only:
            continue
        with served(asked.run, *arguments) as address:
            ours, checks = what != "v2", "all"
            model = read(address, "/v2/repository/index", "POST")[0]
            if not ours and asked.v2 != parser.get_default("v2"):
                checks = PARTIAL
            text = asked.v2.read_text(encoding="utf-8").replace("${", "{")
            description = read(address, "/openapi.json") if ours else yaml.safe_load(text)
            cases = asked.cases // 2 if ours else asked.cases
            results[what] = campaign(address, about_the_model(description, model), cases, checks)
            total, good = results[what]
            print(f"{what}: {total:,} cases, {'no failures' if good else 'FAILURES'}", flush=True)
    sys.exit(not all(good for _, good in results.values()))


if __name__ == "__main__":
    main()
