"""Answers of the batcher are those of the library, whatever shares their batch; overload is refused at once."""

import asyncio
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hangtag
from hangtag.errors import HangtagError, PictureError
from hangtag.model.guarantees import AnswerPolicy
from hangtag.model.predictor import Answer
from hangtag.pictures import encode_jpeg, encode_png
from hangtag.serving.batching import Batcher, Recorder
from hangtag.serving.compute import Ask, Here, Piece, Work
from hangtag.serving.models import Models, ServedModel
from hangtag.serving.refusals import Refusal
from hangtag.serving.settings import Settings
from hangtag.training.classifier import Classifier
from toys import SIDE, toy_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    path = tmp_path_factory.mktemp("models") / "toy.onnx"
    path.write_bytes(toy_model())
    return Models([path]).default


def soon(seconds: float = 30.0) -> float:
    return time.monotonic() + seconds


def pictures(count: int) -> list[bytes]:
    """Grey and coloured, of several sizes, PNG and JPEG."""
    random = np.random.default_rng(0)
    made = []
    for number in range(count):
        side = SIDE if number % 3 else SIDE + number % 7
        image = random.integers(0, 256, (side, SIDE, 3) if number % 5 == 0 else (side, SIDE), dtype=np.uint8)
        made.append(encode_jpeg(image, 90) if number % 4 == 0 else encode_png(image))
    return made


class Slow:
    """A predictor that takes its time."""

    def __init__(self, model: ServedModel, seconds: float) -> None:
        self.model, self.seconds, self.answered = model, seconds, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model.predictor, name)

    def together(self, prepared: list[Any]) -> list[Answer]:
        time.sleep(self.seconds)
        self.answered += len(prepared)
        return self.model.predictor.together(prepared)

    postponing_repairs = together


def slow(model: ServedModel, seconds: float) -> tuple[ServedModel, Slow]:
    predictor = Slow(model, seconds)
    return ServedModel("slow", model.version, predictor), predictor  # type: ignore[arg-type]


def test_answers_are_those_of_the_library_whatever_shares_their_batch(model: ServedModel) -> None:
    asks = [Ask(), Ask(top=1), Ask(policy=AnswerPolicy(coverage=0.5)), Ask(doctor=False), Ask(why=True)]
    given = pictures(60)

    async def all_at_once() -> list[list[Answer | HangtagError]]:
        batcher = Batcher(Settings(threads=2, max_batch=16))
        requests = [
            batcher.answers(model, given[start : start + 1 + start % 4], asks[start % len(asks)], soon())
            for start in range(56)
        ]
        found = await asyncio.gather(*requests)
        batcher.close()
        assert batcher.waiting == batcher.waiting_bytes == 0
        return found

    for start, found in enumerate(asyncio.run(all_at_once())):
        ask = asks[start % len(asks)]
        alone = model.predictor.with_policy(ask.policy).with_doctor(ask.doctor)
        expected = [alone(picture, ask.top) for picture in given[start : start + 1 + start % 4]]
        assert found == expected
        for each, wanted in zip(found, expected, strict=True):
            assert isinstance(each, Answer) and (each.seen is not None) == ask.why
            if each.seen is not None and wanted.seen is not None:
                assert np.array_equal(each.seen, wanted.seen)


def test_a_picture_that_cannot_be_read_spoils_no_other(model: ServedModel) -> None:
    good = pictures(2)
    batcher = Batcher(Settings(threads=1))
    first, bad, empty, second = asyncio.run(
        batcher.answers(model, [good[0], b"no picture", b"", good[1]], Ask(), soon())
    )
    batcher.close()
    assert [first, second] == [model.predictor(each) for each in good]
    assert isinstance(bad, PictureError) and isinstance(empty, PictureError)


def test_outputs_are_those_of_the_library(model: ServedModel) -> None:
    images = np.random.default_rng(1).integers(0, 256, (150, SIDE, SIDE), dtype=np.uint8)
    names = ("probabilities", "logits")
    expected = model.predictor.outputs(images, *names)

    async def several() -> list[dict[str, Any]]:
        batcher = Batcher(Settings(threads=2, max_batch=32))
        cuts = [(0, 150), (0, 1), (7, 9), (20, 84)]
        found = await asyncio.gather(*(batcher.outputs(model, images[a:b], names, soon()) for a, b in cuts))
        for (start, stop), rows in zip(cuts, found, strict=True):
            for name in names:
                assert np.array_equal(rows[name], expected[name][start:stop])
        batcher.close()
        return found

    asyncio.run(several())


def test_requests_beyond_the_queue_are_refused_at_once(model: ServedModel) -> None:
    served, predictor = slow(model, 0.2)
    (picture,) = pictures(1)

    async def overload() -> None:
        batcher = Batcher(Settings(threads=1, max_queue=4))
        first = [asyncio.create_task(batcher.answers(served, [picture], Ask(), soon())) for _ in range(4)]
        await asyncio.sleep(0.05)
        assert batcher.is_full
        began = time.monotonic()
        with pytest.raises(Refusal) as refused:
            await batcher.answers(served, [picture], Ask(), soon())
        assert time.monotonic() - began < 0.1
        assert refused.value.status == 503 and int(refused.value.headers["Retry-After"]) >= 1
        assert all(isinstance(answer, Answer) for (answer,) in await asyncio.gather(*first))
        assert not batcher.is_full and batcher.waiting == 0
        batcher.close()

    asyncio.run(overload())
    assert predictor.answered == 4


def test_bytes_that_wait_are_limited(model: ServedModel) -> None:
    served, _ = slow(model, 0.1)
    (picture,) = pictures(1)
    large = picture + bytes(5000)

    async def overload() -> None:
        batcher = Batcher(Settings(threads=1, max_queue_bytes=8000))
        first = asyncio.create_task(batcher.answers(served, [large], Ask(), soon()))
        await asyncio.sleep(0.02)
        with pytest.raises(Refusal, match="overloaded"):
            await batcher.answers(served, [large], Ask(), soon())
        await batcher.answers(served, [picture], Ask(), soon())
        await first
        batcher.close()

    asyncio.run(overload())


def test_work_that_is_too_late_or_was_given_up_is_not_done(model: ServedModel) -> None:
    served, predictor = slow(model, 0.3)
    (picture,) = pictures(1)

    async def late() -> None:
        batcher = Batcher(Settings(threads=1, max_batch=1))
        first = asyncio.create_task(batcher.answers(served, [picture], Ask(), soon()))
        await asyncio.sleep(0.05)
        given_up = asyncio.create_task(batcher.answers(served, [picture] * 3, Ask(), soon()))
        await asyncio.sleep(0.01)
        given_up.cancel()
        began = time.monotonic()
        with pytest.raises(Refusal) as refused:
            await batcher.answers(served, [picture], Ask(), soon(0.1))
        assert refused.value.status == 504 and 0.08 < time.monotonic() - began < 0.2
        assert batcher.waiting == 1
        await first
        batcher.close()
        with pytest.raises(Refusal, match="shutting down"):
            await batcher.answers(served, [picture], Ask(), soon())

    asyncio.run(late())
    assert predictor.answered == 1


def test_a_bug_is_an_error_of_the_server_and_not_silence(model: ServedModel, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Recorder):
        def inferred(self, pictures: int, seconds: float) -> None:
            raise SystemExit

    (picture,) = pictures(1)
    batcher = Batcher(Settings(threads=1), Broken())
    for _ in range(2):
        with pytest.raises(Refusal, match="failed") as refused:
            asyncio.run(batcher.answers(model, [picture], Ask(), soon()))
        assert refused.value.status == 500
    batcher.close()


def test_a_batch_fills_while_threads_are_busy(model: ServedModel) -> None:
    served, _ = slow(model, 0.05)
    sizes: list[int] = []

    class Sizes(Recorder):
        def inferred(self, pictures: int, seconds: float) -> None:
            sizes.append(pictures)

    async def burst() -> None:
        batcher = Batcher(Settings(threads=1, max_batch=8), Sizes())
        await asyncio.gather(*(batcher.answers(served, [each], Ask(), soon()) for each in pictures(1)))
        first = asyncio.create_task(batcher.answers(served, pictures(1), Ask(), soon()))
        await asyncio.sleep(0.02)
        await asyncio.gather(first, *(batcher.answers(served, [each], Ask(), soon()) for each in pictures(20)))
        batcher.close()

    asyncio.run(burst())
    assert sizes == [1, 1, 8, 8, 4]


def test_a_large_picture_does_not_delay_small_ones(model: ServedModel, tmp_path: Path) -> None:
    large, (small,) = encode_png(np.zeros((3000, 4000), np.uint8)), pictures(1)

    async def both() -> None:
        batcher = Batcher(Settings(threads=1))
        done: list[str] = []

        async def answer(name: str, picture: bytes) -> None:
            assert await batcher.answers(model, [picture], Ask(), soon()) == [model.predictor(picture)]
            done.append(name)

        await asyncio.gather(answer("large", large), answer("small", small))
        batcher.close()
        assert done == ["small", "large"]

    asyncio.run(both())


def test_a_picture_to_repair_does_not_delay_those_that_share_its_batch(
    fashion: hangtag.LabelledImages, tmp_path: Path
) -> None:
    images = np.asarray(fashion.train.images)[:6000]
    clothes = Classifier("quick").fit(images, np.asarray(fashion.train.labels)[:6000]).predictor_
    (tmp_path / "clothes.onnx").write_bytes(clothes.content)
    model = Models([tmp_path / "clothes.onnx"]).default
    asked: list[int] = []
    may_go_on = threading.Event()

    class Noted(Here):
        def answers(self, model: ServedModel, pieces: Sequence[Piece], seconds: float) -> Work:
            asked.append(sum(len(pictures) for _, pictures in pieces))
            may_go_on.wait(30)
            return super().answers(model, pieces, seconds)

    settings = Settings(threads=1)
    batcher = Batcher(settings, engine=Noted(settings))
    given = [encode_png(255 - image if place in (2, 5) else image) for place, image in enumerate(images[:8])]
    expected = [clothes(each) for each in given]
    done: list[int] = []

    async def one(place: int) -> None:
        assert await batcher.answers(model, [given[place]], Ask(), soon()) == [expected[place]]
        done.append(place)

    async def at_once() -> None:
        first = asyncio.create_task(batcher.answers(model, given[:1], Ask(), soon()))
        while not asked:
            await asyncio.sleep(0.001)
        others = [asyncio.create_task(one(place)) for place in range(8)]
        while batcher.waiting < 9:
            await asyncio.sleep(0)
        may_go_on.set()  # the only thread is busy until now, and then takes all eight
        await asyncio.gather(first, *others)

    asyncio.run(at_once())
    alone = len(asked) - 2
    assert asked == [1, 8, *[1] * alone] and 2 <= alone < 8
    assert all(expected[place].repairs for place in (2, 5)) and {2, 5} <= set(done[-alone:])
    assert asyncio.run(batcher.answers(model, given, Ask(), soon())) == expected
    batcher.close()


class Elsewhere(Here):
    """An engine whose size changes, and which has the batches of its threads counted."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.busy = self.most_busy = 0
        self.lock = threading.Lock()

    def answers(self, model: ServedModel, pieces: Sequence[Piece], seconds: float) -> Work:
        with self.lock:
            self.busy += 1
            self.most_busy = max(self.most_busy, self.busy)
        time.sleep(0.02)
        with self.lock:
            self.busy -= 1
        return super().answers(model, pieces, seconds)


def test_as_many_batches_are_computed_at_once_as_the_engine_takes_now(model: ServedModel) -> None:
    engine, eager = Elsewhere(Settings(threads=1)), replace(model, call_seconds=0.0, least_batch=1)
    batcher = Batcher(Settings(max_batch=1), engine=engine)
    given = pictures(12)

    def most_at_once(threads: int) -> int:
        engine.threads, engine.most_busy = threads, 0

        async def ask() -> list[Any]:
            return await asyncio.gather(*(batcher.answers(eager, [each], Ask(), soon()) for each in given))

        found = asyncio.run(ask())
        assert [each for (each,) in found] == [model.predictor(each) for each in given]
        return engine.most_busy

    assert most_at_once(1) == 1
    assert most_at_once(4) == 4
    most_at_once(2)  # threads beyond two end after their batch
    assert most_at_once(2) == 2
    batcher.close()


def test_an_error_of_the_engine_is_the_answer_to_each_request_of_the_batch(model: ServedModel) -> None:
    class Gone(Here):
        def answers(self, model: ServedModel, pieces: Sequence[Piece], seconds: float) -> Work:
            raise Refusal(503, "the replicas ended", "try again", {"Retry-After": "1"})

    async def ask() -> list[Any]:
        batcher = Batcher(Settings(threads=1), engine=Gone(Settings(threads=1)))
        found = await asyncio.gather(
            *(batcher.answers(model, [each], Ask(), soon()) for each in pictures(3)), return_exceptions=True
        )
        batcher.close()
        return found

    assert [each.status for each in asyncio.run(ask())] == [503, 503, 503]
