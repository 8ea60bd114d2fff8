"""`hangtag serve --ray`: the answers of the server without Ray, whatever happens to replicas and model files."""

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest

import hangtag
from hangtag.cluster.serve import Replicas
from hangtag.errors import UsageError
from hangtag.pictures import encode_png
from toys import toy_model

TOKEN = "an-open-secret"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}


class Serving(NamedTuple):
    """A server: its process, a client with the token, the model's folder, and Ray's address."""

    process: "subprocess.Popen[str]"
    client: httpx.Client
    run: Path
    address: str


def start(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "hangtag", "serve", *arguments], cwd=folder, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env={**os.environ, "PYTHONUNBUFFERED": "1", "HANGTAG_TOKEN": TOKEN},
    )  # fmt: skip


def refused(folder: Path, *arguments: str) -> str:
    """What a server that does not start says."""
    process = start(folder, *arguments)
    output, error = process.communicate(timeout=100)
    assert process.returncode in (1, 2) and not output and "Traceback" not in error
    return error


@pytest.fixture(scope="module")
def served(address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """Two replicas of a toy model on the shared cluster."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "toy").mkdir()
    (folder / "toy/model.onnx").write_bytes(toy_model())
    arguments = ("--json", "--access-log", "none")  # nobody reads the log, and a full pipe would stop the server
    process = start(folder, "toy", "--port", "0", *arguments, "--ray", address, "--replicas", "2")
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        with httpx.Client(base_url=json.loads(line)["url"], headers=HEADERS, timeout=100) as client:
            yield Serving(process, client, folder / "toy", address)
    finally:
        process.terminate()
        process.communicate(timeout=60)


def pictures(count: int, seed: int = 0) -> list[bytes]:
    rng = np.random.default_rng(seed)
    return [encode_png(rng.integers(0, 256, (8, 8), dtype=np.uint8)) for _ in range(count)]


def expected(run: Path, picture: bytes) -> dict[str, Any]:
    """What the server without Ray says; `test_simple_api.py` compares that with the library."""
    answer = hangtag.load(run / "model.onnx")(picture).to_json()
    return {name: answer[name] for name in ("label", "probability", "ood_score")}


@pytest.mark.parametrize(
    ("text", "least", "most"), [("1", 1, 1), ("4", 4, 4), ("1..8", 1, 8), ("3..3", 3, 3), ("10000", 10_000, 10_000)]
)
def test_a_number_of_replicas_is_read(text: str, least: int, most: int) -> None:
    assert Replicas.parsed(text) == Replicas(least, most)


@pytest.mark.parametrize("text", ["0", "", "..", "2..", "..2", "2..1", "-1", "1.5", "1...3", "1..2..3", "²", "10001"])
def test_another_number_of_replicas_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"--replicas must be a number from 1 to 10,000, or MIN\.\.MAX, got "):
        Replicas.parsed(text)


def test_answers_and_errors_are_those_of_the_library(served: Serving) -> None:
    given = pictures(40)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda picture: served.client.post("/predict", content=picture).json(), given))

    for picture, answer in zip(given, found, strict=True):
        wanted = expected(served.run, picture)
        assert {name: answer[name] for name in wanted} == wanted
    bad = served.client.post("/predict", content=b"no picture")
    assert bad.status_code == 422 and "hint" in bad.json()


def test_binary_tensors_are_computed_bit_for_bit_and_may_be_compressed(served: Serving) -> None:
    images = np.random.default_rng(1).integers(0, 256, (50, 8, 8), dtype=np.uint8)
    head = json.dumps({
        "inputs": [{"name": "images", "shape": [50, 8, 8], "datatype": "UINT8",
                    "parameters": {"binary_data_size": images.nbytes}}],
        "outputs": [{"name": "probabilities", "parameters": {"binary_data": True}}],
    }).encode()  # fmt: skip

    found = served.client.post(
        "/v2/models/toy/infer", content=gzip.compress(head + images.tobytes()),
        headers={"Inference-Header-Content-Length": str(len(head)), "Content-Encoding": "gzip"},
    )  # fmt: skip

    length = int(found.headers["Inference-Header-Content-Length"])
    (output,) = json.loads(found.content[:length])["outputs"]
    rows = np.frombuffer(found.content[length:], "<f4").reshape(output["shape"])
    assert np.array_equal(rows, hangtag.load(served.run / "model.onnx").predict_proba(images))


def test_token_and_health_are_those_of_the_server_without_ray(served: Serving) -> None:
    assert httpx.post(served.client.base_url.join("/predict"), content=b"x").status_code == 401
    assert served.client.get("/v2/health/ready").json() == {"ready": True}
    assert served.client.get("/models").json()[0]["name"] == "toy"


def test_all_replicas_are_counted_together(served: Serving) -> None:
    def answered() -> float:
        counts = re.findall(r'^hangtag_pictures_total\{model="toy"\} (\S+)$', served.client.get("/metrics").text, re.M)
        return float(counts[0]) if counts else 0.0

    before = answered()
    for picture in pictures(9):
        served.client.post("/predict", content=picture)

    assert answered() == before + 9
    assert "hangtag_decode_seconds_count" in served.client.get("/metrics").text


def test_a_killed_replica_costs_no_request(served: Serving) -> None:
    given, statuses = pictures(10), []
    is_over = threading.Event()

    def ask() -> None:
        while not is_over.is_set():
            statuses.append(served.client.post("/predict", content=given[len(statuses) % 10]).status_code)

    asking = [threading.Thread(target=ask) for _ in range(4)]
    for thread in asking:
        thread.start()
    time.sleep(0.2)
    victim = replica_processes()[0]
    os.kill(victim, signal.SIGKILL)
    time.sleep(1.0)
    is_over.set()
    for thread in asking:
        thread.join()

    assert set(statuses) == {200} and len(statuses) > 20
    assert victim not in replica_processes()


def replica_processes() -> list[int]:
    """Processes of this machine that run a replica of our deployments."""
    return list(replicas())


def replicas() -> dict[int, bytes]:
    """The same, and the name of the application of each."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if title.startswith(b"ray::ServeReplica:hangtag-"):
            found[int(folder.name)] = title.split(b":")[3]
    return found


def test_a_new_model_file_is_served_by_all_replicas(served: Serving) -> None:
    (picture,) = pictures(1)
    before = served.client.get("/models").json()[0]["version"]
    new = served.run / "new.onnx"
    new.write_bytes(toy_model(seed=1))

    new.replace(served.run / "model.onnx")
    end = time.monotonic() + 30
    while (version := served.client.get("/models").json()[0]["version"]) == before and time.monotonic() < end:
        time.sleep(0.1)

    assert version == hangtag.load(served.run / "model.onnx").fingerprint != before
    wanted = expected(served.run, picture)
    for _ in range(8):
        answer = served.client.post("/predict", content=picture).json()
        assert {name: answer[name] for name in wanted} == wanted


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--workers", "2", "--ray"), "--workers and --ray contradict each other"),
        (("--replicas", "2"), "--replicas needs --ray"),
        (("--replicas", "two", "--ray"), "--replicas must be a number"),
    ],
)
def test_options_that_cannot_be_are_refused_before_ray_starts(
    toy_folder: Path, arguments: tuple[str, ...], message: str
) -> None:
    assert message in refused(toy_folder, "toy", "--port", "0", *arguments)


@pytest.fixture
def toy_folder(tmp_path: Path) -> Path:
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy/model.onnx").write_bytes(toy_model())
    return tmp_path


def test_a_port_in_use_is_refused(served: Serving, toy_folder: Path) -> None:
    port = str(served.client.base_url.port)

    assert f"port {port} is in use" in refused(toy_folder, "toy", "--port", port, "--ray", served.address)


def test_a_cluster_without_room_is_refused(served: Serving, toy_folder: Path) -> None:
    error = refused(toy_folder, "toy", "--port", "0", "--ray", served.address, "--replicas", "99")

    assert "asked for 99 CPUs, the cluster has 3" in error


def test_a_killed_server_leaves_no_replica(served: Serving, toy_folder: Path) -> None:
    others = set(replicas().values())
    killed = start(toy_folder, "toy", "--port", "0", "--json", "--ray", served.address)
    assert killed.stdout is not None
    assert killed.stdout.readline(), killed.communicate()[1]
    (own,) = set(replicas().values()) - others

    killed.kill()
    killed.communicate()

    end = time.monotonic() + 60
    while own in replicas().values() and time.monotonic() < end:
        time.sleep(0.2)
    assert set(replicas().values()) == others


def test_the_end_of_the_server_answers_what_was_accepted_and_leaves_no_replica(served: Serving) -> None:
    """The last test: it ends the server that the others use."""
    given = pictures(200)
    with ThreadPoolExecutor(1) as pool:
        many = [("images", (f"{number}.png", picture)) for number, picture in enumerate(given)]
        asked = pool.submit(served.client.post, "/predict", files=many)
        time.sleep(0.05)
        served.process.send_signal(signal.SIGTERM)
        assert asked.result().status_code == 200

    assert served.process.wait(100) == 0
    assert replica_processes() == []
