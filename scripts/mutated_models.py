"""Change model files at random; hangtag must refuse each one or answer, and never crash, hang or fill the memory.

    python scripts/mutated_models.py                     (20,000 changed bytes and 2,000 changed models)
    python scripts/mutated_models.py --bytes 200 --models 100 --seed 1

Two kinds of changes, to the files of two built-in networks, of one that is not built in, and of a backbone with a head:

bytes    one to a few bits or bytes are changed, cut out, inserted, repeated or exchanged, without a new checksum. Each
         file must be refused, or, if nothing changed, answer with the same bits.
models   one to three changes to the model itself (weights, shapes, types, attributes, operators, connections, inputs,
         outputs, opsets, external weights, subgraphs, metadata), with a new checksum, as an attacker would do it. The
         file is then another model: it must be refused in one line, or answer with probabilities. A refusal must be
         hangtag's own error, and nothing may be printed.

The files are opened in child processes, many in each, with a limit on memory and time. Child processes that die or
hang are counted with the seed of the file.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

BATCH = {"bytes": 1000, "models": 50}
MEMORY = 16 << 30  # bytes of address space of a child; its graphs may use at most half of the machine's memory
SECONDS = 120.0  # for one file
HUGE = (0, 1, -1, 2, 7, 2**31 - 1, 2**31, 2**40, 2**62, -(2**63), 2**63 - 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bytes", type=int, default=20_000, help="files with changed bytes")
    parser.add_argument("--models", type=int, default=2_000, help="changed models with a new checksum")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", nargs=3, metavar=("KIND", "FIRST", "LAST"), help=argparse.SUPPRESS)
    settings = parser.parse_args()
    folder = Path(sys.argv[0]).parent
    if settings.child:
        kind, first, last = settings.child
        return child(kind, range(int(first), int(last)))
    wrong = 0
    for kind, count in (("bytes", settings.bytes), ("models", settings.models)):
        began, results, reasons = time.perf_counter(), Counter[str](), Counter[str]()
        for seed, result in campaign(kind, range(settings.seed, settings.seed + count), folder):
            results[result.partition(":")[0]] += 1
            reasons[result] += 1
            if not result.startswith(("refused", "same", "answered")):
                print(f"{kind} {seed}: {result}", flush=True)
        failed = count - sum(results[name] for name in ("refused", "same", "answered"))
        failed += results["answered"] if kind == "bytes" else 0
        wrong += failed
        print(f"{kind}: {dict(results)}, {failed} wrong, {time.perf_counter() - began:.0f} s")
        for reason, times in reasons.most_common(12):
            print(f"  {times:6,}  {reason}")
    return sys.exit(1) if wrong else None


def campaign(kind: str, seeds: range, folder: Path) -> Iterator[tuple[int, str]]:
    """Each seed and what came of its file; a child that dies is replaced."""
    at = seeds.start
    while at < seeds.stop:
        batch = range(at, min(at + BATCH[kind], seeds.stop))
        command = [sys.executable, "-W", "ignore", str(Path(__file__)), "--child", kind, str(batch.start)]
        process = subprocess.Popen([*command, str(batch.stop)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            output, errors = process.communicate(timeout=60 + SECONDS * 2)
            ended = f"crashed: exit status {process.returncode}"
        except subprocess.TimeoutExpired:
            process.kill()
            output, errors = process.communicate()
            ended = "hung"
        lines = output.decode(errors="replace").splitlines()
        for line in lines:
            try:
                seed, result = json.loads(line)
            except ValueError:
                seed, result = at, f"printed: {line[:200]}"
            if seed == at:
                yield at, result
                at += 1
        if errors:
            print(f"{kind} {batch.start} to {at}: printed: {errors.decode(errors='replace')[:300]}", flush=True)
        if at < batch.stop:
            yield at, ended
            at += 1


def child(kind: str, seeds: range) -> None:
    """Open one changed file after the other; print a line of JSON for each."""
    from hangtag.errors import ArtifactError
    from hangtag.model.artifact import open_artifact

    files = originals()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers = [_answers(open_artifact(content)) for content in files]
    for seed in seeds:
        which, began = seed % len(files), time.perf_counter()
        changed = (change_bytes if kind == "bytes" else change_model)(files[which], random.Random(f"{kind} {seed}"))
        try:
            told = _answers(open_artifact(changed))
        except ArtifactError as error:
            result = f"refused: {error.message}"[:110]
            result = "wrong: message has several lines" if "\n" in error.message else result
        except Exception as error:
            result = f"wrong: {type(error).__name__}: {error}"[:300]
        else:
            same = all(np.array_equal(one, other) for one, other in zip(told, answers[which], strict=True))
            good = all(np.isfinite(rows).all() and np.allclose(rows.sum(1), 1, atol=1e-3) for rows in told)
            result = "same: answers" if same else "answered: as another model" if good else "wrong: no probabilities"
        if time.perf_counter() - began > SECONDS:
            result = f"slow: {time.perf_counter() - began:.0f} s, {result}"
        print(json.dumps([seed, result]), flush=True)


def _answers(artifact: Any) -> list[np.ndarray]:
    """Probabilities for pictures of two sizes."""
    random, spec = np.random.default_rng(1), artifact.metadata.image
    shapes = ((4, *spec.shape), (2, 13, 30, *spec.shape[2:]))
    return [artifact.probabilities(random.integers(0, 256, shape, dtype=np.uint8)) for shape in shapes]


@cache
def originals() -> tuple[bytes, ...]:
    """Four model files, made once and kept in the cache folder."""
    from hangtag.files import cache_home, make_folder, write_bytes

    folder = cache_home("mutated-models")
    make_folder(folder)
    makers = (_builtin, _builtin_with_padding, _custom, _transfer)
    for number, make in enumerate(makers):
        if not (folder / f"{number}.onnx").is_file():
            write_bytes(folder / f"{number}.onnx", make())
    return tuple((folder / f"{number}.onnx").read_bytes() for number in range(len(makers)))


def _builtin() -> bytes:
    import hangtag

    random = np.random.default_rng(0)
    labels = np.arange(240) % 3
    images = random.integers(0, 60, (240, 8, 8), dtype=np.uint8)
    images[np.arange(240), labels * 2] = 220
    return hangtag.ImageClassifier("fast", epochs=2, device="cpu").fit(images, labels).to_bytes()


def _builtin_with_padding() -> bytes:
    from hangtag.pictures import ImageSpec
    from hangtag.training.engine.build import build_network

    spec = ImageSpec(9, 12, 3, 0, "pad")
    return _exported(build_network("cnn-small", spec, 3, seed=0), spec)


def _custom() -> bytes:
    """A network with attention, normalisation and a skip connection."""
    from torch import Tensor, nn

    from hangtag.pictures import ImageSpec

    class Custom(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(1, 8, 2, 2)
            self.norm, self.attention = nn.LayerNorm(8), nn.MultiheadAttention(8, 2, batch_first=True)
            self.last = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            rows = self.norm(self.patches(x).flatten(2).transpose(1, 2))
            mixed: Tensor = self.last((rows + self.attention(rows, rows, rows)[0]).mean(1))
            return mixed

    spec = ImageSpec(8, 8, 1, 0, "crop")
    return _exported(Custom().eval(), spec)


def _transfer() -> bytes:
    """A backbone from a file, cross-fitted: with heads and scores of folds, and the look of the training images."""
    import onnx.parser

    import hangtag
    from hangtag.files import cache_home, write_bytes

    random, labels = np.random.default_rng(0), np.arange(60) % 3
    images = random.integers(0, 120, (60, 12, 12, 3))
    images[np.arange(60), :, :, labels] += 60
    kernel = random.normal(size=(24, 3, 3, 3)).astype(np.float32)
    model = onnx.parser.parse_model("""
        <ir_version: 9, opset_import: ["" : 20]>
        g (float[N, 3, 12, 12] x) => (float[N, 24] y)
        { m = Conv (x, kernel) r = Relu (m) p = GlobalAveragePool (r) y = Flatten (p) }""")
    model.graph.initializer.append(onnx.numpy_helper.from_array(kernel, "kernel"))
    path = cache_home("mutated-models") / "backbone.onnx"
    write_bytes(path, model.SerializeToString())
    settings = {"backbone": f"{path}@0..1"}
    return hangtag.ImageClassifier("transfer", settings=settings).fit(images.astype(np.uint8), labels).to_bytes()


def _exported(network: Any, spec: Any) -> bytes:
    from hangtag.model.artifact import Metadata
    from hangtag.training.engine.export import export_model

    names, versions = ("a", "b", "c"), {"hangtag": "0"}
    data = {"name": "none", "fingerprint": "0" * 64, "images": 0}
    return export_model(network, Metadata(names, spec, "custom", 1, {}, 0, data, versions, "2026-01-01T00:00:00+00:00"))


# --- changes of bytes --------------------------------------------------------------------------------------------


def change_bytes(content: bytes, draw: random.Random) -> bytes:
    """One to three changes that a broken disk or a careless attacker makes."""
    for _ in range(draw.randint(1, 3)):
        at, length = draw.randrange(len(content)), draw.choice((1, 2, 8, 64, 1000))
        end = min(len(content), at + length)
        other = draw.randrange(len(content))
        content = draw.choice(
            (
                content[:at] + bytes([content[at] ^ (1 << draw.randrange(8))]) + content[at + 1 :],
                content[:at] + bytes([draw.randrange(256)]) + content[at + 1 :],
                content[:at] + content[end:],
                content[:at] + draw.randbytes(length) + content[at:],
                content[:at] + draw.randbytes(end - at) + content[end:],
                content[:at] + content[other : other + length] + content[at:],
                content[:end] + content[at:],
                content[:at],
            )
        )
        if not content:
            break
    return content


# --- changes of models ----------------------------------------------------------------------------------------------


def change_model(content: bytes, draw: random.Random) -> bytes:
    """One to three changes of the model, with the right checksum."""
    import onnx

    from hangtag.model.onnx_file import CHECKSUM_KEY, sealed

    model = onnx.load_model_from_string(content)
    for _ in range(draw.randint(1, 3)):
        try:
            draw.choice(CHANGES)(model, draw)
        except (LookupError, ValueError, StopIteration):  # an earlier change left nothing to change
            continue
    for entry in model.metadata_props:
        if entry.key == CHECKSUM_KEY:
            entry.value = "0" * 64
    changed: bytes = model.SerializeToString()
    try:
        return sealed(changed)
    except Exception:  # no longer a file in which a checksum can be put
        return changed


def _weights(model: Any, draw: random.Random) -> None:
    tensor = draw.choice(model.graph.initializer)
    raw = bytearray(tensor.raw_data)
    for _ in range(draw.choice((1, 4, len(raw)))):
        raw[draw.randrange(len(raw))] = draw.randrange(256)
    tensor.raw_data = bytes(raw)


def _numbers(model: Any, draw: random.Random) -> None:
    """Whole numbers, such as sizes, axes and divisors."""
    tensor = draw.choice([each for each in model.graph.initializer if each.data_type == 7])
    values = np.frombuffer(tensor.raw_data, np.int64).copy()
    values[draw.randrange(len(values))] = draw.choice(HUGE)
    tensor.raw_data = values.tobytes()


def _sides(model: Any, draw: random.Random) -> None:
    tensor = draw.choice(model.graph.initializer)
    how = draw.randrange(4)
    if how == 0:
        tensor.dims[draw.randrange(len(tensor.dims))] = draw.choice(HUGE)
    elif how == 1:
        tensor.dims.append(draw.choice((0, 1, 2)))
    elif how == 2:
        sides = list(tensor.dims)
        draw.shuffle(sides)
        tensor.dims[:] = sides
    else:  # fewer weights, and the bytes to match
        del tensor.dims[:]
        tensor.dims.append(draw.choice((0, 1, 3)))
        tensor.raw_data = tensor.raw_data[: 4 * tensor.dims[0]]


def _types(model: Any, draw: random.Random) -> None:
    where = draw.choice(("tensor", "input", "output"))
    number = draw.randrange(20)
    if where == "tensor":
        draw.choice(model.graph.initializer).data_type = number
    else:
        draw.choice(getattr(model.graph, where)).type.tensor_type.elem_type = number


def _attributes(model: Any, draw: random.Random) -> None:
    node = draw.choice([each for each in model.graph.node if each.attribute])
    attribute = draw.choice(node.attribute)
    if draw.random() < 0.2:
        node.attribute.remove(attribute)
    elif attribute.ints:
        attribute.ints[draw.randrange(len(attribute.ints))] = draw.choice(HUGE)
        if draw.random() < 0.3:
            attribute.ints.append(1)
    elif attribute.type == 2:
        attribute.i = draw.choice((*HUGE, 3, -2))
    elif attribute.type == 1:
        attribute.f = draw.choice((0.0, float("nan"), float("inf"), -1e38, 1e-45))
    elif attribute.type == 3:
        attribute.s = draw.choice((b"", b"\xff", b"cubic", b"nearest", b"a" * 5000))


def _operators(model: Any, draw: random.Random) -> None:
    from hangtag.model.onnx_file import OPERATORS

    others = ["Loop", "If", "Scan", "Inverse", "RandomNormal", "SequenceConstruct", "Constant", "QuantizeLinear"]
    node = draw.choice(model.graph.node)
    node.op_type = draw.choice([*sorted(OPERATORS), *others])
    if draw.random() < 0.3:
        node.domain = draw.choice(("com.microsoft", "ai.onnx.ml", "x"))
        model.opset_import.add(domain=node.domain, version=1)


def _connections(model: Any, draw: random.Random) -> None:
    names = [name for node in model.graph.node for name in node.output]
    names += [tensor.name for tensor in model.graph.initializer]
    node, how = draw.choice(model.graph.node), draw.randrange(4)
    if how == 0:
        node.input[draw.randrange(len(node.input))] = draw.choice((*names, "", "nothing"))
    elif how == 1:
        node.input.append(draw.choice(names))
    elif how == 2:
        node.output[0] = draw.choice(names)
    else:
        model.graph.node.remove(node)


def _swapped(model: Any, draw: random.Random) -> None:
    """Weights of the same kind exchange their names."""
    one, other = draw.sample(list(model.graph.initializer), 2)
    one.name, other.name = other.name, one.name


def _ends(model: Any, draw: random.Random) -> None:
    where = draw.choice((model.graph.input, model.graph.output))
    how, value = draw.randrange(4), draw.choice(where)
    if how == 0:
        where.remove(value)
    elif how == 1:
        where.add().CopyFrom(value)
    elif how == 2:
        value.name = draw.choice(("other", "", "probabilities"))
    else:
        side = draw.choice(value.type.tensor_type.shape.dim)
        side.dim_value = draw.choice(HUGE)


def _grown(model: Any, draw: random.Random) -> None:
    """Nodes that ask for a lot of memory or time, between the last layers or beside them."""
    import onnx

    size = draw.choice((3000, 20_000, 10**6, 10**9, 10**12))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([size, draw.choice((3, 1000))]), "grown"))
    zeros = onnx.helper.make_node(draw.choice(("ConstantOfShape", "Expand")), ["grown"], ["zeros"])
    if zeros.op_type == "Expand":
        zeros.input[:] = [draw.choice([each.name for each in model.graph.initializer]), "grown"]
    nodes = [zeros, onnx.helper.make_node("Transpose", ["zeros"], ["across"])]
    nodes += [onnx.helper.make_node("MatMul", ["zeros", "across"], ["square"])]
    nodes += [onnx.helper.make_node("ReduceSum", ["square"], ["total"], keepdims=0)]
    last = next(node for node in model.graph.node if "probabilities" in node.output)
    nodes += [onnx.helper.make_node("Add", [last.input[0], "total"], ["more"])]
    last.input[0] = "more"
    kept = [node for node in model.graph.node if node is not last]
    final = onnx.NodeProto()
    final.CopyFrom(last)
    rest = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept if node != final]
    del model.graph.node[:]
    model.graph.node.extend([*rest, *nodes, final])


def _outside(model: Any, draw: random.Random) -> None:
    import onnx

    how = draw.randrange(5)
    tensor = draw.choice(model.graph.initializer)
    if how == 0:
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=draw.choice(("x.bin", "/etc/passwd", "../x")))
    elif how == 1:
        graph = onnx.GraphProto(name="inner", node=list(model.graph.node)[:2])
        model.graph.node.add(op_type="If", input=["images"], output=["x"]).attribute.add(name="a", type=5, g=graph)
    elif how == 2:
        model.functions.add(name="f", domain="d", node=list(model.graph.node)[:1])
    elif how == 3:
        sparse = model.graph.sparse_initializer.add()
        sparse.values.CopyFrom(tensor)
    else:
        model.opset_import[0].version = draw.choice((0, 1, 7, 17, 18, 19, 21, 22, 23, 24, 25, 26, 99))


def _metadata(model: Any, draw: random.Random) -> None:
    entry = model.metadata_props[0]
    data = json.loads(entry.value)
    where: Any = data
    while isinstance(where, dict | list) and where:
        keys: list[Any] = list(where) if isinstance(where, dict) else list(range(len(where)))
        key = draw.choice(keys)
        if not isinstance(where[key], dict | list) or draw.random() < 0.3:
            break
        where = where[key]
    if draw.random() < 0.2 and isinstance(where, dict):
        del where[key]
    else:
        where[key] = draw.choice((None, -1, 0, 1, 2.5, 10**30, "", "x" * 5000, [], {}, True, [[[]]], "ä\n\x1b[31m"))
    entry.value = json.dumps(data)
    if draw.random() < 0.1:
        entry.value = draw.choice(("[" * 100_000, entry.value[:-1], '{"format": 4, "seed": NaN}', "", "null"))


CHANGES: list[Callable[[Any, random.Random], None]] = [
    _weights, _numbers, _numbers, _sides, _types, _attributes, _attributes, _operators, _operators, _connections,
    _connections, _swapped, _ends, _grown, _outside, _metadata,
]  # fmt: skip


if __name__ == "__main__":
    main()
