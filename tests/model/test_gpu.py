"""gpu.py: answers on a GPU are those of the processor, the same in every batch and process; else one clear line."""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from PIL import Image

import hangtag
from hangtag.errors import GpuError, HangtagError, UnknownName, UsageError
from hangtag.model import gpu
from hangtag.model.artifact import OUTPUT, open_artifact
from hangtag.model.explanation import explain
from hangtag.model.predictor import Predictor, load
from hangtag.pictures import ImageSpec
from hangtag.prediction.crew import Crew
from hangtag.prediction.job import begin
from hangtag.prediction.units import UnitWorkers
from toys import CLASSES, in_a_process, toy_model

TOLERANCE = 1e-4  # of probabilities, as in verification
HAS_GPU = "CUDAExecutionProvider" in onnxruntime.get_available_providers() and gpu.gpus() > 0
needs_gpu = pytest.mark.skipif(not HAS_GPU, reason="needs a CUDA GPU and onnxruntime-gpu")
without_gpu = pytest.mark.skipif(HAS_GPU, reason="needs a machine without a GPU")


def noise(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def marked(count: int, seed: int = 0) -> tuple[Any, Any]:
    """(count, 28, 28) a bright mark in one of three corners, on noise, and which."""
    labels = np.arange(count) % 3
    images = np.random.default_rng(seed).integers(0, 60, (count, 28, 28), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        top, left = ((1, 1), (1, 17), (17, 1))[label]
        image[top : top + 9, left : left + 9] = 220
    return images, labels


def digest(model: Predictor, *sizes: tuple[int, ...]) -> str:
    """Of all outputs for noise of several sizes."""
    found = hashlib.sha256()
    for size in sizes:
        for name, rows in sorted(model._artifact.outputs(noise(*size), *model.output_shapes).items()):
            found.update(name.encode() + rows.tobytes())
    return found.hexdigest()


# --- without a GPU ---------------------------------------------------------------------------------------------


def test_an_unknown_device_is_one_line() -> None:
    with pytest.raises(UnknownName, match=r"unknown device 'gpu' .*known: cpu, cuda"):
        load(toy_model(), device="gpu")


@without_gpu
def test_a_missing_gpu_is_one_line_before_the_first_picture(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="device 'cuda' cannot be used: "):
        load(toy_model(), device="cuda")
    model = load(toy_model())
    Image.fromarray(noise(8, 8)).save(tmp_path / "a.png")

    with (
        begin(model, [str(tmp_path / "a.png")], str(tmp_path / "out"), device="cuda") as job,
        UnitWorkers(job, model, 1) as workers,
        pytest.raises(UsageError, match="device 'cuda' cannot be used: "),
    ):
        list(workers.answer(job.units, 1))

    with pytest.raises(UsageError, match="the job in this folder has another --device"):
        begin(model, [str(tmp_path / "a.png")], str(tmp_path / "out")).__enter__()


def test_a_session_that_silently_went_to_the_processor_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "_load_libraries", lambda: "libcublas.so.13: no such file")
    monkeypatch.setattr(gpu, "_memory", lambda: 8 << 30)

    class Session:
        def __init__(self, *_: Any, providers: list[Any], enable_fallback: int, **__: Any) -> None:
            (name, options), _ = providers
            assert (name, options["use_tf32"], options["gpu_mem_limit"]) == ("CUDAExecutionProvider", "0", str(1 << 30))
            assert enable_fallback == 0

        def disable_fallback(self) -> None: ...

        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)

    with pytest.raises(UsageError, match=r"cannot load CUDA or cuDNN: libcublas.so.13: no such file \(pip install 'on"):
        load(toy_model(), device="cuda")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("CUDA failure 2: out of memory ; GPU=0 ; expr=cudaMalloc((void**)&p, size);", "the GPU has no memory left"),
        ("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED", "the GPU has no memory left"),
        (
            "Conv node: CUDA failure 700: an illegal\nmemory access",
            "the GPU failed: CUDA failure 700: an illegal memory",
        ),
        (
            "cuDNN is not available. Install cuDNN, update",
            "device 'cuda' cannot be used: ONNX Runtime cannot load cuDNN",
        ),
        ("Available memory of 5 is smaller than requested bytes of 6", None),  # this image's size is the reason
        ("Resize node: sizes must be positive", None),
    ],
)
def test_failures_of_a_gpu_are_told_from_those_of_a_graph(text: str, line: str | None) -> None:
    found = gpu.refused(RuntimeError(text))

    assert (found is None) == (line is None)
    assert found is None or str(found).startswith(line)  # type: ignore[arg-type]


def test_the_graph_always_gets_the_same_number_of_images(monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = open_artifact(toy_model())
    expected = {size: artifact.probabilities(noise(*size)) for size in ((300, 16, 16), (20, 200, 200), (3, 600, 500))}
    session, counts = artifact._session, set()

    class Counting:
        def run(self, names: list[str], given: dict[str, Any], options: Any) -> Any:
            counts.add(len(given["images"]))
            return session.run(names, given, options)

    monkeypatch.setattr(artifact, "_session", Counting())
    monkeypatch.setattr(artifact, "fills_up", True)

    for size, alone in expected.items():
        images = noise(*size)
        rows = artifact.probabilities(images)
        assert np.array_equal(rows[:3], artifact.probabilities(images[:3]))
        assert np.array_equal(rows[-1:], artifact.probabilities(images[-1:]))
        np.testing.assert_allclose(rows, alone, atol=1e-6)  # sized before, they are what the graph itself sizes
        assert counts == {256}
    assert artifact.probabilities(noise(0, 16, 16)).shape == (0, len(CLASSES))


def test_a_failing_gpu_ends_a_job_and_is_no_row(monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = open_artifact(toy_model())

    class Failing:
        def run(self, *_: Any) -> Any:
            raise RuntimeError("CUDA failure 719: unspecified launch failure")

    monkeypatch.setattr(artifact, "_session", Failing())
    monkeypatch.setattr(artifact, "device", "cuda")
    monkeypatch.setattr("hangtag.prediction.bulk.load", lambda _: Predictor(artifact))

    with pytest.raises(GpuError, match="the GPU failed: CUDA failure 719"):
        Predictor(artifact)(noise(16, 16))
    with pytest.raises(UsageError, match="workers must be at most 8 on a GPU, got 9"):
        Crew(Predictor(artifact), 1, 9)
    with Crew(Predictor(artifact), 1) as crew:
        assert crew.count <= 4 and crew.settings["device"] == "cuda" and crew.settings["memory"] is None


# --- on a GPU --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["cnn", "cnn-small", "mlp"])
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained model for 28x28 images, with all guarantees; "cnn" is the network of the recipe `fast`."""
    from hangtag.training.engine.recipes import find_recipe
    from hangtag.training.estimator import ImageClassifier

    images, labels = marked(240)
    path = tmp_path_factory.mktemp("gpu") / "model.onnx"
    recipe = find_recipe("fast", network=request.param, epochs=3, batch_size=16)
    names = np.array(CLASSES)[labels]
    ImageClassifier(recipe=recipe, device="cpu").fit(images, names).save(path)
    return path


@needs_gpu
def test_on_a_gpu_answers_are_those_of_the_processor(file: Path) -> None:
    there, here = load(file, device="cuda"), load(file)
    images, _ = marked(200, seed=1)
    assert there._artifact._session.get_providers()[0] == "CUDAExecutionProvider" and there.device == "cuda"

    for batch in (images, noise(5, 40, 30), noise(5, 200, 300), noise(2, 700, 900)):
        names = [name for name in here.output_shapes if name != "ood_score"]  # a rank, which can go up by one
        mine, theirs = there.outputs(batch, *names), here.outputs(batch, *names)
        for name in names:
            most = (10 if name == "ood_distance" else 1) * TOLERANCE * max(1.0, float(np.abs(theirs[name]).max()))
            np.testing.assert_allclose(mine[name], theirs[name], rtol=0, atol=most, err_msg=name)
        first, second = np.sort(theirs[OUTPUT], axis=1)[:, :-3:-1].T
        clear = first - second > 2 * TOLERANCE
        assert clear.mean() > 0.9
        assert (mine[OUTPUT].argmax(axis=1) == theirs[OUTPUT].argmax(axis=1))[clear].all()
    strange = [255 - image for image in images[:20]]  # which the doctor repairs
    mine_too, theirs_too = there.with_doctor(True).many(strange), here.with_doctor(True).many(strange)
    assert [each.label for each in mine_too] == [each.label for each in theirs_too]
    assert [len(each.repairs) for each in mine_too] == [len(each.repairs) for each in theirs_too]


@needs_gpu
def test_on_a_gpu_an_image_has_the_same_bits_in_every_batch_and_process(file: Path) -> None:
    model = load(file, device="cuda")
    for size in ((28, 28), (33, 20), (200, 150), (700, 900)):
        count = 200 if size < (100,) else 20
        images, names = noise(count, *size), list(model.output_shapes)
        together = model._artifact.outputs(images, *names)
        for rows in ([0], [1], [count - 1], [2, 0, 7], [*range(count)][::-1]):
            some = model._artifact.outputs(images[rows], *names)
            for name in names:
                assert np.array_equal(some[name], together[name][rows]), (name, size, rows[:3])
    sizes = ((200, 28, 28), (300, 28, 28), (20, 200, 150), (2, 700, 900))
    program = (
        f"import sys; sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[1])]}\n"
        f"from test_gpu import digest, load\nprint(digest(load({str(file)!r}, device='cuda'), *{sizes!r}))"
    )
    there = in_a_process(program, file.parent).split()[-1]
    assert there == digest(model, *sizes) == digest(model, *sizes)


@needs_gpu
def test_on_a_gpu_maps_show_the_same_evidence(file: Path) -> None:
    image = noise(28, 28)  # without places that are equal
    there, here = (load(file, device=device) for device in ("cuda", "cpu"))
    if not here.has_output("maps"):
        pytest.skip("a network without convolutions")

    np.testing.assert_allclose(explain(there, image).heat, explain(here, image).heat, rtol=1e-3, atol=1e-3)


@needs_gpu
def test_on_a_gpu_shards_do_not_depend_on_the_number_of_workers(file: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, image in enumerate(marked(150, seed=3)[0]):
        Image.fromarray(image).resize((28 + number % 3, 28)).save(photos / f"{number:03d}.png")
    (photos / "broken.png").write_bytes(b"\x89PNG not really")
    found = []
    for workers in (1, 3):
        command = [sys.executable, "-m", "hangtag", "predict", str(file), str(photos), "--device", "cuda"]
        out = tmp_path / f"out{workers}"
        done = subprocess.run(
            [*command, "--out", str(out), "--workers", str(workers)], env=environment(), capture_output=True, text=True,
            check=False, timeout=200,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert '"device": "cuda"' in (out / "_manifest.json").read_text()
        found.append({path.name: path.read_bytes() for path in sorted(out.glob("part-*"))})
    assert found[0] == found[1] and len(found[0]) > 1


@needs_gpu
def test_on_a_gpu_without_memory_for_the_model_loading_is_one_line(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "_LEAST_MEMORY", 1 << 16)
    monkeypatch.setattr(gpu, "_memory", lambda: 0)

    with pytest.raises(HangtagError, match="memory"):
        load(file, device="cuda")


@needs_gpu
def test_a_machine_with_a_driver_and_no_gpu_to_use_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(toy_model(image=ImageSpec(16, 16, 1)))
    Image.fromarray(noise(16, 16)).save(tmp_path / "a.png")
    done = subprocess.run(
        [sys.executable, "-m", "hangtag", "predict", "model.onnx", "a.png", "--device", "cuda"], cwd=tmp_path,
        env=environment() | {"CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip

    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"hangtag: device 'cuda' cannot be used: no NVIDIA GPU .*\n", done.stderr)


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(hangtag.__file__).parents[1])}
