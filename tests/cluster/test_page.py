"""docs/cluster.md: its commands run on a real cluster, and its files are what Ray, Slurm's shell and KubeRay read."""

import json
import os
import re
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import hangtag
from hangtag.pictures import encode_png
from toys import shapes, toy_model

ROOT = Path(__file__).resolve().parents[2]


def blocks(kind: str) -> list[str]:
    page = (ROOT / "docs/cluster.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{kind}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def test_the_commands_of_the_page_answer_on_a_cluster(address: str, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    commands = [shlex.split(command.replace("head:6379", address)) for command in blocks("sh run")]
    (tmp_path / "clothes").mkdir()
    (tmp_path / "clothes/model.onnx").write_bytes(toy_model())
    (tmp_path / "photos").mkdir()
    for number, image in enumerate(shapes(5)[0]):
        (tmp_path / f"photos/{number}.png").write_bytes(encode_png(image))
    environment = {**os.environ, "RAY_ADDRESS": address}  # which --ray alone uses, as in a Ray job

    def run(command: list[str]) -> "subprocess.CompletedProcess[str]":
        assert command[:2] == ["hangtag", "predict"]
        return subprocess.run(
            [sys.executable, "-m", *command], cwd=tmp_path, env=environment, capture_output=True, text=True,
            check=False, timeout=250,
        )  # fmt: skip

    with ThreadPoolExecutor() as pool:
        done = list(pool.map(run, commands))

    assert len(done) == 2
    expected = hangtag.load(tmp_path / "clothes/model.onnx")
    for command, process in zip(commands, done, strict=True):
        assert process.returncode == 0, process.stderr
        rows = pq.read_table(tmp_path / command[command.index("--out") + 1]).to_pylist()
        assert len(rows) == 5
        for row in rows:
            answer = expected(tmp_path / row["file"])
            assert (row["label"], row["probability"]) == (answer.label, answer.probability)


def test_the_options_of_all_commands_exist() -> None:
    text = "\n".join(blocks(r"(?:sh|yaml)[^\n]*"))
    page = (ROOT / "docs/cluster.md").read_text(encoding="utf-8")
    help_page = (ROOT / "docs/help.md").read_text(encoding="utf-8")
    commands = re.findall(r"hangtag (\w+) ([^\n`\"]*)", text) + re.findall(r"`hangtag (\w+) ([^`]*)`", page)

    assert len(commands) > 8
    for command, arguments in commands:
        known = help_page.split(f"\n## hangtag {command}\n")[1].split("\n## ")[0]
        assert [option for option in re.findall(r"--[\w-]+", arguments) if option not in known] == [], command


def test_the_file_for_ray_up_is_valid() -> None:
    import jsonschema
    import ray.autoscaler
    import yaml

    (text,) = blocks("yaml ray-up")
    config = yaml.safe_load(text)
    schema = Path(str(ray.autoscaler.__file__)).parent / "ray-schema.json"

    jsonschema.validate(config, json.loads(schema.read_text(encoding="utf-8")))
    assert config["head_node_type"] in config["available_node_types"]


def test_the_script_for_slurm_is_a_shell_script_with_options_that_ray_knows(tmp_path: Path) -> None:
    from ray.scripts import scripts, symmetric_run

    (text,) = blocks("sh slurm")
    (tmp_path / "script").write_text(text)

    checked = subprocess.run(["bash", "-n", "script"], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert (checked.returncode, checked.stderr) == (0, "")
    (line,) = re.findall(r"symmetric-run (.*?) --\s", text)
    known = {option for each in (symmetric_run.symmetric_run, scripts.start) for p in each.params for option in p.opts}
    assert {*re.findall(r"--[\w-]+", line)} == {"--address", "--min-nodes", "--num-cpus"} <= known


def test_the_file_for_kubernetes_has_the_fields_that_kuberay_documents() -> None:
    import ray
    import yaml

    (text,) = blocks("yaml rayjob")
    job: dict[str, Any] = yaml.safe_load(text)

    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    assert {*spec} <= {"entrypoint", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "backoffLimit",
                       "rayClusterSpec"}  # fmt: skip
    assert spec["rayClusterSpec"]["rayVersion"] == ray.__version__
    groups = [spec["rayClusterSpec"]["headGroupSpec"], *spec["rayClusterSpec"]["workerGroupSpecs"]]
    for group in groups:
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        for container in group["template"]["spec"]["containers"]:
            assert ray.__version__ in container["image"]


@pytest.mark.parametrize("command", [("start", "--head", "--port"), ("start", "--address")])
def test_the_commands_of_ray_have_these_options(command: tuple[str, ...]) -> None:
    from ray.scripts import scripts

    known = {option for parameter in getattr(scripts, command[0]).params for option in parameter.opts}

    assert {*command[1:]} <= known
