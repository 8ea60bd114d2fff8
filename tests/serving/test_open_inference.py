"""The Open Inference Protocol v2: official clients get what the library answers, and wrong requests are refused."""

import asyncio
import json
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from hangtag.model.predictor import Predictor, load
from hangtag.pictures import encode_png
from hangtag.serving.models import Models
from hangtag.serving.settings import Settings
from toys import CLASSES, shapes, toy_model

from .conftest import run_server

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import tritonclient.http as triton
    import tritonclient.http.aio as triton_aio

INFER = "/v2/models/toys/infer"
IMAGES = shapes(5)[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    (folder / "toys.onnx").write_bytes(toy_model())
    return folder


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    settings = Settings(port=0, access_log=None, max_pictures=8, max_pixels=10_000)
    with run_server(Models([folder / "toys.onnx"]), settings) as server:
        yield server.url


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address) as client:
        yield client


@pytest.fixture(scope="module")
def predictor(folder: Path) -> Predictor:
    return load(folder / "toys.onnx")


def tensor(array: NDArray[Any], datatype: str, binary: bool, module: Any = triton) -> Any:
    made = module.InferInput("images", list(array.shape), datatype)
    return made.set_data_from_numpy(array, binary_data=binary)


def ask(shape: object = (1, 1, 2), datatype: object = "UINT8", data: object = (0, 1), **more: object) -> dict[str, Any]:
    return {"inputs": [{"name": "images", "shape": shape, "datatype": datatype, "data": data}], **more}


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize(
    ("images", "datatype"),
    [
        (IMAGES, "UINT8"),
        ((IMAGES / 255).astype(np.float32), "FP32"),
        (IMAGES.astype(np.int64), "INT64"),
        (np.repeat(IMAGES[..., None], 3, 3), "UINT8"),
        (IMAGES[:, None], "UINT8"),
        (np.pad(IMAGES, ((0, 0), (3, 4), (5, 6))), "UINT8"),
    ],
    ids=["uint8", "fp32", "int64", "colour", "channels first", "other size"],
)
def test_triton_client_gets_what_the_library_answers(
    address: str, predictor: Predictor, images: NDArray[Any], datatype: str, binary: bool, compression: str | None
) -> None:
    names = list(predictor.output_shapes)
    wanted = predictor.outputs(images, *names)
    sent = [tensor(images, datatype, binary)]
    outputs = [triton.InferRequestedOutput(name, binary_data=False) for name in [*names, "label"]]
    with triton.InferenceServerClient(address.removeprefix("http://")) as client:
        how = {"request_compression_algorithm": compression, "response_compression_algorithm": compression}
        for found in (client.infer("toys", sent, **how), client.infer("toys", sent, outputs=outputs, **how)):
            for name in names:
                assert found.as_numpy(name).dtype == np.float32
                np.testing.assert_array_equal(found.as_numpy(name), wanted[name])
            labels = [label.decode() if isinstance(label, bytes) else label for label in found.as_numpy("label")]
            assert labels == list(predictor.predict(images))


def test_triton_client_for_asyncio_gets_what_the_library_answers(address: str, predictor: Predictor) -> None:
    async def infer() -> Any:
        async with triton_aio.InferenceServerClient(address.removeprefix("http://")) as client:
            assert await client.is_server_ready() and await client.is_model_ready("toys", predictor.fingerprint)
            sent = [tensor(IMAGES, "UINT8", True, triton_aio)]
            return await client.infer("toys", sent, request_id="7", response_compression_algorithm="gzip")

    found = asyncio.run(infer())

    assert found.get_response()["id"] == "7"
    np.testing.assert_array_equal(found.as_numpy("probabilities"), predictor.predict_proba(IMAGES))


def test_kserve_client_gets_what_the_library_answers(address: str, predictor: Predictor) -> None:
    kserve = pytest.importorskip("kserve", reason="kserve needs older packages than hangtag")

    async def infer() -> Any:
        client = kserve.InferenceRESTClient(kserve.RESTConfig(protocol="v2"))
        assert await client.is_server_live(address) and await client.is_server_ready(address)
        sent = kserve.InferInput("images", list(IMAGES.shape), "UINT8")
        sent.set_data_from_numpy(IMAGES, binary_data=True)
        return await client.infer(address, kserve.InferRequest("toys", [sent]), model_name="toys")

    found = {output.name: output.as_numpy() for output in asyncio.run(infer()).outputs}
    np.testing.assert_array_equal(found["probabilities"].astype(np.float32), predictor.predict_proba(IMAGES))


def test_encoded_pictures_have_the_answers_of_the_library(address: str, predictor: Predictor) -> None:
    pictures = [encode_png(image) for image in IMAGES]
    with triton.InferenceServerClient(address.removeprefix("http://")) as client:
        found = client.infer("toys", [tensor(np.array(pictures, object), "BYTES", True)])

    np.testing.assert_array_equal(found.as_numpy("probabilities"), predictor.predict_proba(pictures))
    answers = [json.loads(text) for text in found.as_numpy("answer")]
    assert answers == [json.loads(json.dumps(predictor(picture).to_json())) for picture in pictures]
    assert [label.decode() for label in found.as_numpy("label")] == [answer["label"] for answer in answers]


def test_a_picture_that_cannot_be_read_is_named_by_its_place(address: str) -> None:
    pictures = np.array([encode_png(IMAGES[0]), b"nonsense"], object)
    with (
        triton.InferenceServerClient(address.removeprefix("http://")) as client,
        pytest.raises(Exception, match=r"\[400\] element 1 of 'images' cannot be read: not an image"),
    ):
        client.infer("toys", [tensor(pictures, "BYTES", True)])


def test_classifications_are_values_indices_and_labels(address: str, predictor: Predictor) -> None:
    outputs = [triton.InferRequestedOutput("probabilities", class_count=2)]
    with triton.InferenceServerClient(address.removeprefix("http://")) as client:
        found = client.infer("toys", [tensor(IMAGES, "UINT8", True)], outputs=outputs).as_numpy("probabilities")

    for row, texts in zip(predictor.predict_proba(IMAGES), found, strict=True):
        parts = [text.decode().split(":") for text in texts]
        assert [int(index) for _, index, _ in parts] == list(np.argsort(-row, kind="stable")[:2])
        assert all(
            np.float32(value) == row[int(index)] and label == CLASSES[int(index)] for value, index, label in parts
        )


def test_metadata_names_every_input_and_output(client: httpx.Client, predictor: Predictor) -> None:
    server, model = client.get("/v2").json(), client.get(f"/v2/models/toys/versions/{predictor.fingerprint}").json()

    assert server["name"] == "hangtag" and "binary_tensor_data" in server["extensions"]
    assert client.get("/v2/").json() == server
    assert (model["name"], model["versions"]) == ("toys", [predictor.fingerprint])
    assert model["inputs"][0]["shape"] == [-1, -1, -1]
    assert {each["name"] for each in model["outputs"]} == {*predictor.output_shapes, "label"}
    assert {"name": "probabilities", "datatype": "FP32", "shape": [-1, len(CLASSES)]} in model["outputs"]


def test_a_server_that_shuts_down_is_alive_but_not_ready(folder: Path) -> None:
    with run_server(Models([folder / "toys.onnx"])) as server, httpx.Client(base_url=server.url) as client:
        paths = ("/v2/health/ready", "/v2/models/toys/ready")
        assert [client.get(path).status_code for path in paths] == [200, 200]

        server.app.state.server.is_draining = True

        assert [client.get(path).status_code for path in paths] == [503, 503]
        assert client.get("/v2/health/live").json() == {"live": True}


def test_a_server_whose_model_file_has_a_problem_answers_but_is_not_ready(folder: Path) -> None:
    models = Models([folder / "toys.onnx"])
    with run_server(models) as server, httpx.Client(base_url=server.url) as client:
        models.problems["toys"] = "damaged"

        said = [client.get(path) for path in ("/v2/health/ready", "/v2/models/toys/ready")]

        assert [each.status_code for each in said] == [503, 503] and "toys cannot be used" in said[0].json()["error"]
        assert client.post(INFER, json=ask()).status_code == 200


@pytest.mark.parametrize("path", ["/v2/models/cats", "/v2/models/toys/versions/2/ready", "/v2/cats"])
def test_unknown_paths_models_and_versions_are_not_found(client: httpx.Client, path: str) -> None:
    said = client.get(path)

    assert said.status_code == 404 and set(said.json()) == {"error", "hint"}


WRONG = {
    "not an object": ([], 400, "Expected 'object'"),
    "no inputs": ({}, 400, "missing required field 'inputs'"),
    "no input": ({"inputs": []}, 400, "the only input must be 'images'"),
    "name": ({"inputs": [{"name": "x", "shape": [1], "datatype": "UINT8", "data": [1]}]}, 400, "got 'x'"),
    "twice": ({"inputs": ask()["inputs"] * 2}, 400, "'images' is named twice"),
    "datatype": (ask(datatype="UINT7"), 400, "UINT7"),
    "datatype of another type": (ask(datatype=7), 400, "Expected 'str'"),
    "too few": (ask([1, 2, 2]), 400, "must have 4 elements"),
    "axes": (ask([2]), 400, "must have the shape"),
    "negative": (ask([-1, 1, 2]), 400, ">= 0"),
    "fraction": (ask([1, 1, 2.5]), 400, "Expected 'int'"),
    "huge": (ask([8, 10, 2**62]), 413, "10,000 pixels"),
    "huge batch": (ask([2**62, 1, 2]), 413, "at most 8 images"),
    "too many": (ask([9, 1, 1], data=[0] * 9), 413, "at most 8 images, got 9"),
    "empty": (ask([0, 1, 2], data=[]), 400, "is empty"),
    "no pixels": (ask([1, 0, 2], data=[]), 400, "have no pixels"),
    "ragged": (ask([1, 2, 2], data=[[[1, 2], [3]]]), 400, "differ in length"),
    "other shape": (ask([1, 1, 2], data=[[[1], [2]]]), 400, "data of the shape [1, 2, 1]"),
    "256": (ask(data=[0, 256]), 400, "<= 255"),
    "a text": (ask(data=[0, "1"]), 400, "Expected 'int', got 'str'"),
    "a truth value": (ask(data=[0, True]), 400, "Expected 'int', got 'bool'"),
    "infinite": (ask(datatype="FP32", data=[0, 1e39]), 400, "image 0 of 'images' has NaN or infinite"),
    "no data": ({"inputs": [{"name": "images", "shape": [1, 1, 2], "datatype": "UINT8"}]}, 400, "has no data"),
    "output": (ask(outputs=[{"name": "x"}]), 400, "unknown output 'x'"),
    "outputs twice": (ask(outputs=[{"name": "label"}] * 2), 400, "output 'label' is named twice"),
    "classification": (
        ask(outputs=[{"name": "embedding", "parameters": {"classification": 1}}]), 400, "'embedding' has no classes",
    ),
    "no classification": (
        ask(outputs=[{"name": "probabilities", "parameters": {"classification": 0}}]), 400, ">= 1",
    ),
    "not base64": (ask([1], "BYTES", ["?"]), 400, "base64"),
    "bytes of pixels": (ask([1, 2, 2], "BYTES", ["", ""]), 400, "must have the shape (N,)"),
    "timeout": (ask(parameters={"timeout": "soon"}), 400, "Expected 'int"),
    "too late": (ask(parameters={"timeout": 1}), 504, "deadline"),
    "shared memory": (
        {"inputs": [{**ask()["inputs"][0], "parameters": {"shared_memory_region": "a"}}]}, 400, "shared memory",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_request_is_refused_in_words(client: httpx.Client, name: str) -> None:
    sent, status, text = WRONG[name]

    said = client.post(INFER, json=sent)

    assert (said.status_code, text in said.json()["error"]) == (status, True), said.text
    assert set(said.json()) == {"error", "hint"}


def test_a_tensor_without_its_data_takes_no_memory(client: httpx.Client) -> None:
    said = client.post(INFER, json=ask([8, 100, 100], data=[]))

    assert said.status_code == 400 and "must have 80,000 elements" in said.json()["error"]


@pytest.mark.parametrize(
    ("size", "header", "more", "text"),
    [
        (2, 0, b"-", "the inputs need 2 bytes"), (3, 0, b"\0", "must have 2 bytes"),
        (2, 0, b"\0\0", "the inputs need 2 bytes"),
        (2**63 - 1, 0, b"", "the inputs need"), (-1, 0, b"", ">= 0"), (2, 1, b"", "valid"),
        (2, 10_000, b"", "but the body has"), (2, None, b"", "valid"),
    ],
)  # fmt: skip
def test_sizes_that_contradict_the_body_are_refused(
    client: httpx.Client, size: int, header: int | None, more: bytes, text: str
) -> None:
    one = {"name": "images", "shape": [1, 1, 2], "datatype": "UINT8", "parameters": {"binary_data_size": size}}
    head = json.dumps({"inputs": [one]}).encode()
    data = b"\0" if more == b"-" else b"\0\0"
    headers = {} if header is None else {"Inference-Header-Content-Length": str(len(head) + header)}

    said = client.post(INFER, content=head + data + more.strip(b"-"), headers=headers)

    assert said.status_code == 400 and text in said.json()["error"], said.text


@pytest.mark.parametrize("header", ["x", "-1", "1.5", "9" * 30, "²"])
def test_a_length_that_is_no_number_is_refused(client: httpx.Client, header: str) -> None:
    said = client.post(INFER, json=ask(), headers=[(b"Inference-Header-Content-Length", header.encode("latin-1"))])

    assert said.status_code == 400 and "must be a whole number" in said.json()["error"]


@pytest.mark.parametrize("elements", [struct.pack("<I", 5) + b"1234", b"\1\0", struct.pack("<I", 2**32 - 1)])
def test_elements_that_end_after_the_data_are_refused(client: httpx.Client, elements: bytes) -> None:
    size = {"binary_data_size": len(elements)}
    head = json.dumps({"inputs": [{"name": "images", "shape": [1], "datatype": "BYTES", "parameters": size}]}).encode()

    said = client.post(INFER, content=head + elements, headers={"Inference-Header-Content-Length": str(len(head))})

    assert said.status_code == 400 and "ends after the data" in said.json()["error"]


def test_json_that_is_nested_deeply_is_refused(client: httpx.Client) -> None:
    for sent in (b"[" * 100_000, b'{"inputs": [], "x": ' + b"[" * 100_000, ask_text(b"[" * 100_000 + b"]" * 100_000)):
        said = client.post(INFER, content=sent)

        assert said.status_code == 400 and len(said.json()["error"]) < 400
    assert client.post(INFER, json=ask()).status_code == 200


def ask_text(data: bytes) -> bytes:
    return b'{"inputs": [{"name": "images", "shape": [1, 1, 2], "datatype": "UINT8", "data": ' + data + b"}]}"


def test_responses_are_compressed_as_the_client_wants(client: httpx.Client) -> None:
    for accepted, used in {
        "gzip;q=0, deflate": "deflate",
        "*": "gzip",
        "br": None,
        "identity": None,
        "gzip;q=0": None,
    }.items():
        said = client.post(INFER, json=ask(), headers={"Accept-Encoding": accepted})

        assert said.headers.get("content-encoding") == used and len(said.json()["outputs"]) > 1


def test_elements_beyond_the_shape_are_not_read(client: httpx.Client) -> None:
    size = {"binary_data_size": 4_000_000}
    head = json.dumps({"inputs": [{"name": "images", "shape": [1], "datatype": "BYTES", "parameters": size}]}).encode()
    binary = client.post(
        INFER, content=head + bytes(4_000_000), headers={"Inference-Header-Content-Length": str(len(head))}
    )
    in_json = client.post(INFER, json=ask([1, 1, 2], data=[0] * 100_000))

    assert binary.status_code == 400 and "more elements than its shape [1] says" in binary.json()["error"]
    assert in_json.status_code == 400 and "must have 2 elements" in in_json.json()["error"]


def test_json_of_millions_of_elements_or_thousands_of_objects_is_refused(client: httpx.Client) -> None:
    for data in ([0] * 2_000_002, [{}] * 40_000):
        said = client.post(INFER, json=ask([1, 1, 2], data=data))

        assert said.status_code == 413 and "binary data" in said.json()["error"]
