"""Many trainings on a Ray cluster: several seeds, the trials of a search, and the folds of a cross-validation.

Each training is a job of a `Crew`. If its node sees the run folder, it works in a folder there, so that it continues
from its checkpoint after an interruption. Otherwise it works in a temporary folder, whose files travel back at its
end. The results are those of one machine, seed for seed.
"""

import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from hangtag.cluster.connect import Cluster, Resources, on_each_node
from hangtag.cluster.crew import Crew, Link, Show
from hangtag.cluster.images import SharedImages, received
from hangtag.data.folds import Folds
from hangtag.data.labelled_images import LabelledImages
from hangtag.evaluation.run_folder import Run
from hangtag.evaluation.tuning_results import Trial
from hangtag.files import make_folder, write_bytes
from hangtag.progress import Progress
from hangtag.training.arguments import Arguments
from hangtag.training.classifier import Classifier
from hangtag.training.cross_fit import CrossFitting, FoldAnswers, FoldRunner
from hangtag.training.engine.recipes import Recipe
from hangtag.training.label_errors import LEARNING, LabelFold, LabelFoldRunner
from hangtag.training.run import Training
from hangtag.training.seeds import Seeds, begin_seed
from hangtag.training.tuning import Job, Search, run_trial
from hangtag.words import amount, listed

__all__ = ["Nodes", "fold_runner", "label_fold_runner", "run_trials", "train_seeds"]

_LEAVING_SECONDS = 20.0
_SENT = ("checkpoints", "config.json", "history.jsonl")
Say = Callable[[str], None]


@dataclass(frozen=True)
class Nodes:
    """A cluster, the CPUs of each training, and the device that trainings may use: auto, cpu or cuda."""

    cluster: Cluster
    cpus: int = 1
    device: str = "auto"

    @property
    def gpus(self) -> int:
        """GPUs of each training: one, if the cluster has any and the device may be a GPU."""
        return int(self.cluster.gpus > 0 and self.device != "cpu")

    @property
    def worker_device(self) -> str:
        """The device in a worker; Ray may let it see GPUs that are not its own."""
        return self.device if self.gpus else "cpu"

    def crew(self, show: Show) -> Crew:
        return Crew(self.cluster, self.cpus, self.gpus, show)

    def __str__(self) -> str:
        needs = Resources(1, self.cpus, self.gpus)
        return f"{amount(self.cluster.room_for(needs), 'training')} at once, each with {needs}"


def train_seeds(
    nodes: Nodes, seeds: Seeds, stop: Callable[[], bool], show: Show, say: Say
) -> Iterator[tuple[int, str, bool]]:
    """Train all seeds that are not finished; yields of each its number, its result and whether it was stopped.

    Args:
        stop: called several times a second; when it returns True, the trainings stop and keep their checkpoints.
        show: as for `Crew`.
        say: called with sentences about how images and files travel.
    """
    crew = nodes.crew(show)
    images = SharedImages(nodes.cluster, seeds.data)
    say(images.in_words)
    with _token(seeds.run.path) as token:
        say(_folder_in_words(nodes.cluster, seeds.run.path, token))
        for number in seeds.numbers:
            own = _plain(seeds.unfitted(number), nodes)
            folder = _sent(seeds.folder(number), token)
            crew.start(number, _train_seed, own, images.message, seeds.source, folder)
        for number, found in crew.results(stop):
            _keep(found["files"], seeds.folder(number))
            yield number, found["words"], found["stopped"]


def run_trials(nodes: Nodes, search: Search, stop: Callable[[], bool], show: Show, say: Say) -> Iterator[Trial]:
    """Run the trials of a search until it is over or stopped; yields each, recorded, as it ends.

    Arguments as for `train_seeds`.
    """
    crew = nodes.crew(show)
    images = SharedImages(nodes.cluster, search.searched)
    say(images.in_words)

    def start(token: Path) -> None:
        for job in [] if stop() else search.waiting(crew.running):
            message = {
                "number": job.number, "settings": dict(job.settings), "rivals": job.rivals,
                "classifier": _plain(job.classifier, nodes),
            }  # fmt: skip
            crew.start(job.number, _run_trial, message, images.message, search.source, _sent(job.folder, token))

    with _token(search.run.path) as token:
        say(_folder_in_words(nodes.cluster, search.run.path, token))
        start(token)
        for number, found in crew.results(lambda: stop() or search.is_out_of_time):
            if found["trial"] is None:
                _keep(found["files"], search.folder(number))
            else:
                trial = Trial.from_json(found["trial"])
                search.add(trial)
                yield trial
            start(token)


def fold_runner(
    nodes: Nodes, stop: Callable[[], bool], show: Show, ended: Callable[[int], None], say: Say
) -> FoldRunner:
    """A runner for `Training.cross_fit`, which fits all folds at once, as far as there is room."""

    def run(fitting: CrossFitting, numbers: Sequence[int]) -> Iterator[FoldAnswers]:
        if not numbers:
            return
        crew = nodes.crew(show)
        images = SharedImages(nodes.cluster, fitting.images)
        say(images.in_words)
        shared = {"folds": vars(fitting.folds), "weights": fitting.weights, "epochs": fitting.epochs}
        for number in numbers:
            own = _plain(fitting.unfitted(int((fitting.folds.of != number).sum())), nodes)
            crew.start(number, _fit_fold, own, images.message, shared, number)
        for number, content in crew.results(stop):
            ended(number)
            if content is not None:
                yield FoldAnswers.from_bytes(content)

    return run


def label_fold_runner(nodes: Nodes, say: Say) -> LabelFoldRunner:
    """A runner for `label_error_finder`, which trains the networks of all folds at once, as far as there is room."""

    def run(
        data: LabelledImages, folds: Sequence[LabelFold], progress: Progress | None
    ) -> Iterator[tuple[int, NDArray[Any]]]:
        shares = dict.fromkeys((fold.number for fold in folds), 0.0)

        def show(number: int, state: Mapping[str, Any], _: str) -> None:
            done = state["number"] - 1 + state["step"] / max(1, state["steps"])
            shares[number] = max(shares[number], done / state["epochs"])
            if progress:
                progress(LEARNING, round(1000 * sum(shares.values())), 1000 * len(shares))

        crew = nodes.crew(show)
        images = SharedImages(nodes.cluster, data)
        say(images.in_words)
        for fold in folds:
            crew.start(fold.number, _score_fold, images.message, vars(fold), nodes.worker_device)
        yield from crew.results(lambda: False)

    return run


def _score_fold(link: Link, images: Mapping[str, Any], fold: Mapping[str, Any], device: str) -> NDArray[np.float64]:
    """In a worker: the scores of one fold of an audit."""
    return LabelFold(**fold).scores(received(images), device, link.report)


def _train_seed(
    link: Link, own: Mapping[str, Any], images: Mapping[str, Any], source: dict[str, Any], folder: Mapping[str, Any]
) -> dict[str, Any]:
    """In a worker: begin or resume the training of one seed, and finish it."""
    with _received_folder(folder) as (path, files):
        step = begin_seed(_classifier(own), received(images), source, path)
        if not isinstance(step, Training):
            return {"words": step.in_words, "stopped": False, "files": {}}
        try:
            for epoch in step.epochs(link.stop):
                link.report(epoch)
            if step.folds and not (link.stop() and step.stopped):
                step.cross_fit(link.stop, lambda fold, folds, epoch: link.report(epoch))
        except KeyboardInterrupt:  # there is no head yet; what was computed is kept in the cache
            return {"words": "stopped before there was a model", "stopped": True, "files": files()}
        if not step.can_finish:
            step.leave()
            return {"words": "stopped before the first fold ended", "stopped": True, "files": files()}
        stopped = link.stop() and step.stopped
        words = step.finish().in_words
        return {"words": words, "stopped": stopped, "files": files()}


def _run_trial(
    link: Link, message: Mapping[str, Any], images: Mapping[str, Any], source: dict[str, Any], folder: Mapping[str, Any]
) -> dict[str, Any]:
    """In a worker: run one trial of a search."""
    with _received_folder(folder) as (path, files):
        job = Job(message["number"], _classifier(message["classifier"]), message["settings"], message["rivals"], path)
        trial = run_trial(job, received(images), source, link.stop, link.report)
        return {"trial": trial and trial.to_json(), "files": files() if trial is None else {}}


def _fit_fold(
    link: Link, own: Mapping[str, Any], images: Mapping[str, Any], shared: Mapping[str, Any], number: int
) -> bytes | None:
    """In a worker: fit one fold."""
    folds, weights, epochs = Folds(**shared["folds"]), shared["weights"], shared["epochs"]
    fitting = CrossFitting(lambda _: _classifier(own), received(images), folds, weights, epochs)
    answers = fitting.fit(number, link.stop, lambda fold, count, epoch: link.report(epoch))
    return None if answers is None else answers.to_bytes()


def _plain(classifier: Arguments, nodes: Nodes) -> dict[str, Any]:
    """The arguments of a classifier that was made from names and numbers alone."""
    arguments = classifier.arguments()
    own = {name: arguments[name] for name in ("seed", "split_seed")}
    return {**own, "recipe": classifier.chosen_recipe().to_json(), "device": nodes.worker_device}


def _classifier(own: Mapping[str, Any]) -> Classifier:
    return Classifier(**{**own, "recipe": msgspec.convert(own["recipe"], Recipe)})


# --- folders -------------------------------------------------------------------------------------------------------


@contextmanager
def _token(folder: Path) -> Iterator[Path]:
    """A file in the run folder, by which a node sees that it shares the folder's file system."""
    token = folder / f".shared-{secrets.token_hex(8)}.partial"
    write_bytes(token, token.name.encode())
    try:
        yield token
    finally:
        token.unlink(missing_ok=True)


def _sees(token: str) -> bool:
    path = Path(token)
    try:
        return path.read_bytes() == path.name.encode()
    except OSError:
        return False


def _folder_in_words(cluster: Cluster, folder: Path, token: Path) -> str:
    without = [name for name, sees in on_each_node(cluster, _sees, str(token.absolute())).items() if not sees]
    if not without:
        return f"all nodes see {folder}, so each training can be resumed from its checkpoints"
    return (
        f"{listed([f'node {name}' for name in without])} cannot see {folder}; a training there sends its files back "
        "when it ends, and starts over if its node is lost"
    )


def _sent(folder: Path, token: Path) -> dict[str, Any]:
    """What a worker needs for `_received_folder`: where the folder is, and what an earlier process left in it."""
    left = {}
    if folder.is_dir():
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if path.is_file() and name.split("/")[0] in _SENT:
                left[name] = path.read_bytes()
    return {"path": str(folder.absolute()), "token": str(token.absolute()), "files": left}


@contextmanager
def _received_folder(sent: Mapping[str, Any]) -> Iterator[tuple[Path, Callable[[], dict[str, bytes]]]]:
    """In a worker: the folder to work in, and a function that returns the files to send back, by name."""
    path = Path(sent["path"])
    if _sees(sent["token"]):
        make_folder(path.parent)
        _wait_for(Run(path))
        yield path, dict
        return
    with tempfile.TemporaryDirectory(prefix="hangtag-") as temporary:
        own = Path(temporary) / path.name
        _keep(sent["files"], own)
        yield (
            own,
            lambda: {each.relative_to(own).as_posix(): each.read_bytes() for each in own.rglob("*") if each.is_file()},
        )


def _wait_for(run: Run) -> None:
    """Wait for a worker that has outlived its killed driver to end."""
    end = time.monotonic() + _LEAVING_SECONDS
    while run.path.is_dir() and run.is_locked() and time.monotonic() < end:
        time.sleep(0.1)


def _keep(files: Mapping[str, bytes], folder: Path) -> None:
    """Write files into a folder; config.json, which says that a run is complete, is the last."""
    for name in sorted(files, key=lambda each: (each == "config.json", each)):
        path = folder / name
        make_folder(path.parent)
        write_bytes(path, files[name])
