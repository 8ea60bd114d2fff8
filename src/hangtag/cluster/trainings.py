"""Many trainings on a Ray cluster: several seeds, and the trials of a search.

Each training is a job of a `Crew`. It works in its own folder below the run folder where its node sees that folder, so
that it continues from its checkpoint after an interruption; elsewhere in a temporary folder, whose files travel back at
its end. The results are those of one machine, seed for seed.
"""

import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from hangtag.cluster.connect import Cluster
from hangtag.cluster.crew import Crew, Link, Show
from hangtag.cluster.images import SharedImages, on_each_node, received
from hangtag.evaluation.run_folder import Run
from hangtag.evaluation.tuning_results import Trial
from hangtag.files import make_folder, write_bytes
from hangtag.training.classifier import Classifier
from hangtag.training.engine.recipes import Recipe
from hangtag.training.run import Training
from hangtag.training.seeds import Seeds, begin_seed
from hangtag.training.tuning import Job, Search, run_trial

__all__ = ["gpus_for", "run_trials", "train_seeds"]

_LEAVING_SECONDS = 20.0
_SENT = ("checkpoints", "config.json", "history.jsonl")
Say = Callable[[str], None]


def train_seeds(
    cluster: Cluster, seeds: Seeds, cpus: int, stop: Callable[[], bool], show: Show, say: Say
) -> Iterator[tuple[int, str, bool]]:
    """Train all seeds that are not finished; yields the number, result in words and whether it was stopped, of each.

    Args:
        cpus: of each training.
        stop: called several times a second; when it returns True, the trainings stop and keep their checkpoints.
        show: as for `Crew`.
        say: called with sentences about how images and files travel.
    """
    gpus = gpus_for(cluster, seeds.classifier.device)
    crew = Crew(cluster, cpus, gpus, show)
    images = SharedImages(cluster, seeds.data)
    say(images.in_words)
    with _token(seeds.run.path) as token:
        say(_folder_in_words(cluster, seeds.run.path, token))
        for number in seeds.numbers:
            own = _plain(seeds.unfitted(number), gpus)
            folder = _sent(seeds.folder(number), token)
            crew.start(number, _train_seed, own, images.message, seeds.source, folder)
        for number, found in crew.results(stop):
            _keep(found["files"], seeds.folder(number))
            yield number, found["words"], found["stopped"]


def run_trials(
    cluster: Cluster, search: Search, cpus: int, stop: Callable[[], bool], show: Show, say: Say
) -> Iterator[Trial]:
    """Run the trials of a search until it is over or stopped; yields each, recorded, as it ends.

    Arguments as for `train_seeds`.
    """
    gpus = gpus_for(cluster, search.classifier.device)
    crew = Crew(cluster, cpus, gpus, show)
    images = SharedImages(cluster, search.searched)
    say(images.in_words)

    def start(token: Path) -> None:
        for job in [] if stop() else search.waiting(crew.running):
            message = {
                "number": job.number, "settings": dict(job.settings), "rivals": job.rivals,
                "classifier": _plain(job.classifier, gpus),
            }  # fmt: skip
            crew.start(job.number, _run_trial, message, images.message, search.source, _sent(job.folder, token))

    with _token(search.run.path) as token:
        say(_folder_in_words(cluster, search.run.path, token))
        start(token)
        for number, found in crew.results(lambda: stop() or search.is_out_of_time):
            if found["trial"] is None:
                _keep(found["files"], search.folder(number))
            else:
                trial = Trial.from_json(found["trial"])
                search.add(trial)
                yield trial
            start(token)


def gpus_for(cluster: Cluster, device: str) -> int:
    """GPUs of each training: one, if the cluster has any and the device may be a GPU."""
    return int(cluster.gpus > 0 and device != "cpu")


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


def _plain(classifier: Classifier, gpus: int) -> dict[str, Any]:
    """The arguments of a classifier that was made from names and numbers alone."""
    arguments = classifier.arguments()
    own = {name: arguments[name] for name in ("seed", "split_seed")}
    return {**own, "recipe": classifier.chosen_recipe().to_json(), "device": classifier.device if gpus else "cpu"}


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
        f"{', '.join(without)} cannot see {folder}; files from there travel through Ray when a training ends, and one "
        "that is lost with its node starts over"
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
    """Wait until a worker of a driver that was killed has ended, too."""
    end = time.monotonic() + _LEAVING_SECONDS
    while run.path.is_dir() and run.is_locked() and time.monotonic() < end:
        time.sleep(0.1)


def _keep(files: Mapping[str, bytes], folder: Path) -> None:
    """Write files into a folder; config.json, which says that a run is complete, is the last."""
    for name in sorted(files, key=lambda each: (each == "config.json", each)):
        path = folder / name
        make_folder(path.parent)
        write_bytes(path, files[name])
