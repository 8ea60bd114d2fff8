"""`hangtag train`: one training, several seeds, a training in a given time, or an interrupted training resumed."""

import shlex
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from hangtag.cli import options
from hangtag.errors import HangtagError, MissingExtra, UsageError
from hangtag.files import user_path

if TYPE_CHECKING:
    from rich.console import Console

    from hangtag.cluster.trainings import Nodes
    from hangtag.data.labelled_images import LabelledImages
    from hangtag.evaluation.judge import Judgement
    from hangtag.training.classifier import Classifier
    from hangtag.training.engine.loop import Epoch
    from hangtag.training.engine.recipes import Recipe
    from hangtag.training.engine.workers import Workers
    from hangtag.training.run import Training
    from hangtag.training.seeds import Seeds
    from hangtag.training.shared import Trainer
    from hangtag.training.trackers import Tracking

__all__ = ["RecipeName", "Request", "stop_on_interrupt", "train", "train_and_judge"]

BEGAN = time.perf_counter()
"""When the command began; `--minutes` counts from here."""

_RECIPE_HELP = (
    "Training recipe: transfer (pretrained features), fast, accurate, best, quick or tutorial. [default: transfer for "
    "photos and few images, else fast]"
)
_FINE_TUNE_HELP = (
    "Also train the last blocks of the backbone (on a GPU, all of it), and keep it if it is better on held-out images."
)
_BACKBONE_HELP = "The pretrained network of recipe transfer: efficientnet-lite0, -lite1, timm:NAME or FILE.onnx."
_CPUS_HELP = "With --ray: CPUs and threads of each training or worker. [default: 1; with --workers, an equal share]"
_WORKERS_HELP = "With --ray: divide every batch among this many processes. With torchrun, leave it out."
_RESUME_HELP = "Continue this interrupted run with its own settings; 'last' is the newest."
_SAME_PRESS_SECONDS = 1.0
RecipeName = Annotated[str | None, typer.Option(help=_RECIPE_HELP, autocompletion=options.complete_recipe)]
ResumedRun = Annotated[str | None, typer.Option(help=_RESUME_HELP, autocompletion=options.complete_run)]


@options.with_data_options
def train(
    data_options: options.DataOptions,
    what: Annotated[
        str | None,
        typer.Argument(help=f"{options.DATA_HELP} [default: fashion-mnist]", autocompletion=options.complete_data),
    ] = None,
    path: options.DataPath = None,
    recipe: RecipeName = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the images. [default: the recipe's]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per step. [default: the recipe's]")] = None,
    patience: Annotated[
        int | None, typer.Option(help="Early stopping: stop after this many epochs without a lower validation loss.")
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            help="Train on all images, and judge by cross-validation with this many folds; 0 holds images out. "
            "[default: 5 below 2,000 images without a test part, if it does not take long]"
        ),
    ] = None,
    balance: Annotated[
        str | None, typer.Option(help="How to handle imbalanced classes: auto, off, weights or sampling.")
    ] = None,
    backbone: Annotated[str | None, typer.Option(help=_BACKBONE_HELP)] = None,
    fine_tune: Annotated[bool, typer.Option("--fine-tune", help=_FINE_TUNE_HELP)] = False,
    model: Annotated[str | None, typer.Option(help="A network: mlp, cnn, or your own as module:function.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a setting of the recipe, such as learning_rate=0.01; repeatable."),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            help="The same seed, machine and versions give the same model. [default: 0]", min=0, max=options.MAX_SEED
        ),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Train with this many seeds; keep the model with the lowest validation loss.")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(help="Choose recipe, network and epochs so that the whole command takes about this many minutes."),
    ] = None,
    ray: options.Ray = None,
    cpus: Annotated[int | None, typer.Option(help=_CPUS_HELP, min=1)] = None,
    workers: Annotated[int | None, typer.Option(help=_WORKERS_HELP, min=1)] = None,
    log_to: Annotated[str | None, typer.Option(help="Also log each epoch to tensorboard or mlflow.")] = None,
    device: options.Device = "auto",
    out: Annotated[
        Path | None, options.path_option("The run folder to create; earlier runs are never overwritten.")
    ] = None,
    resume: ResumedRun = None,
    as_json: options.AsJson = False,
) -> None:
    """Train a classifier, then export, verify and evaluate it, all in one run folder. Ctrl-C stops and keeps the model.

    To continue a run that was killed, run the same command again, or use --resume.
    """
    MissingExtra.check_training()
    from hangtag.cli import live, screen
    from hangtag.training.engine.recipes import FINE_TUNING
    from hangtag.training.trackers import Tracking

    console = live.console(stderr=as_json)
    changes = {
        "network": model, "epochs": epochs, "batch_size": batch_size, "patience": patience, "balance": balance,
        "folds": folds, "backbone": backbone, "fine_tune": FINE_TUNING.epochs if fine_tune else None,
    }  # fmt: skip
    request = Request(what, path, data_options, recipe, changes, settings or [], seed, device, out)
    _check_combination(request, seeds, minutes, resume)
    _check_workers(workers, ray, seeds, minutes, log_to)
    with options.print_warnings(), ExitStack() as stack:
        tracking = Tracking(log_to)
        divide = stack.enter_context(_team(console, workers, ray, cpus, device))
        nodes = (
            stack.enter_context(options.on_nodes(ray, cpus or 1, device))
            if ray is not None and workers is None
            else None
        )
        if seeds is not None:
            return _train_seeds(console, request, seeds, tracking, as_json, nodes)
        if minutes is not None:
            training = _planned_training(console, request, minutes)
        elif resume is not None:
            training = _resumed_training(request, resume)
        else:
            training = _new_training(request)
        if nodes is not None and not training.folds:
            training.refuse()
            raise UsageError(
                "--ray has nothing to do: this is one training without a cross-validation",
                "--workers 2 divides it among two workers; --seeds 5 trains five seeds at once",
            )
        divide(training)
        judged, stopped = train_and_judge(console, training, tracking, nodes)
        from hangtag.reports.report import write_report_and_pictures

        report = write_report_and_pictures(training.run, training.data, judged)
        _end_tracking(console, tracking, judged)
    if as_json:
        screen.print_json({"run": str(training.run.path), "seconds": training.seconds, **judged.to_json()})
    else:
        screen.print_summary(training, judged, report)
    if stopped:
        raise typer.Exit(130)
    return None


def _check_combination(request: "Request", seeds: int | None, minutes: float | None, resume: str | None) -> None:
    """Raises UsageError if options exclude each other; no data is read before."""
    if minutes is not None and not 0 < minutes < float("inf"):
        raise UsageError(f"--minutes must be above 0, got {minutes:g}", "for example --minutes 5")
    changed = request.recipe or request.settings or any(value is not None for value in request.changes.values())
    if minutes is not None and (seeds is not None or resume is not None or changed):
        raise UsageError(
            "--minutes chooses the training settings itself, so it cannot be combined with others", "remove one of them"
        )
    if seeds is not None:
        from hangtag.training.seeds import check_count

        check_count(seeds)
    if seeds is not None and resume is not None:
        raise UsageError(
            "--resume and --seeds cannot be combined", "to resume several seeds, repeat the command without --resume"
        )
    if request.out is not None and resume is not None:
        raise UsageError("--resume and --out cannot be combined", "a resumed run stays in its folder")
    request.check_out()


def _check_workers(
    workers: int | None, ray: str | None, seeds: int | None, minutes: float | None, log_to: str | None
) -> None:
    """Raises UsageError if options for several workers or a cluster exclude others, or have no effect."""
    from hangtag.training.engine.torchrun import started_by_torchrun

    if seeds is not None and log_to is not None and ray is not None:
        raise UsageError("--log-to and --ray cannot be combined", "each run folder has its epochs in history.jsonl")
    divides = "--workers" if workers is not None else "torchrun" if started_by_torchrun() else ""
    for name, value in (("--seeds", seeds), ("--minutes", minutes)):
        if divides and value is not None:
            raise UsageError(
                f"{divides} divides one training among several workers, so it cannot be combined with {name}",
                "remove one of them; --seeds 5 --ray trains several seeds at once",
            )
    if started_by_torchrun() and ray is not None:
        raise UsageError("torchrun has started the workers, so --ray has nothing to do", "remove one of them")
    if workers is not None and ray is None and not started_by_torchrun():
        raise UsageError(
            "--workers divides a training among processes that Ray starts, so it needs --ray",
            "add --ray to start them on this machine, or --ray ADDRESS for a cluster",
        )


@contextmanager
def _team(
    console: "Console", workers: int | None, ray: str | None, cpus: int | None, device: str
) -> "Iterator[Callable[[Training], None]]":
    """A function that lets a training use several workers, if there are any.

    In all but the first of torchrun's processes, this trains until the first has ended, and then exits.
    """
    from hangtag.training.engine.torchrun import started_by_torchrun

    if started_by_torchrun():
        from hangtag.training.engine.loop import choose_device
        from hangtag.training.engine.workers import joined_as_torchrun_says
        from hangtag.training.shared import TheseWorkers

        with joined_as_torchrun_says(choose_device(device)) as group:
            assert group is not None
            if group.rank:
                _follow(group)
            these = TheseWorkers(group)
            try:
                if workers not in (None, group.count):
                    raise UsageError(f"--workers {workers}, but torchrun started {group.count}", "leave --workers out")
                yield lambda training: _divide(training, group.count, these)
            finally:
                these.dismiss()
    elif workers is not None and ray is not None:
        with options.on_cluster(ray, workers, cpus or 1, int(device == "cuda")) as cluster:
            from hangtag.cluster.one_training import on_workers

            trainer = on_workers(cluster, workers, cpus, device, console.print)
            yield lambda training: _divide(training, workers, trainer)
    else:
        yield lambda training: None


def _divide(training: "Training", workers: int, trainer: "Trainer") -> None:
    """Raises UsageError if this training cannot be divided; a new run folder is then removed."""
    from hangtag.training.shared import check_shareable

    try:
        check_shareable(training.classifier.chosen_recipe(training.data))
    except UsageError:
        training.refuse()
        raise
    training.workers, training.trainer = workers, trainer


def _follow(group: "Workers") -> NoReturn:
    """Take part in the training of the first process, which alone prints and writes; then exit."""
    from hangtag.training.shared import follow

    try:
        with stop_on_interrupt(quiet=True) as stop, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            follow(group, stop)
    except HangtagError:  # the first process says what is wrong
        raise typer.Exit(1) from None
    raise typer.Exit(130 if stop() else 0)


def _end_tracking(console: "Console", tracking: "Tracking", judged: "Judgement") -> None:
    where = tracking.end(judged.evaluation)
    if where:
        console.print(f"training log: {where}")


def train_and_judge(
    console: "Console", training: "Training", tracking: "Tracking", nodes: "Nodes | None" = None
) -> tuple["Judgement", bool]:
    """Train to the end, or to Ctrl-C, and evaluate; returns whether training was stopped.

    Args:
        nodes: train the networks of a cross-validation there.
    """
    from hangtag.cli import live

    data, name = training.data, training.config["recipe"]["name"]
    console.print(
        f"training with recipe '{name}' on {len(data.train):,} images of {data.name}; run folder: {training.run.path}"
    )
    if training.resume_message:
        console.print(training.resume_message)
    with stop_on_interrupt() as stop:
        epochs = tracking.track(training.epochs(stop), training.run, training.config["recipe"])
        try:
            live.show_epochs(console, epochs, training.notes)
        except KeyboardInterrupt:  # while features were computed, or the second Ctrl-C
            console.print(
                "stopped before there was a model; what was computed so far is kept. "
                f"To continue: hangtag train --resume {shlex.quote(str(training.run.path))}"
            )
            raise typer.Exit(130) from None
        stopped = stop() and training.stopped  # Ctrl-C in the last steps comes too late
        if training.folds and not stopped:
            if nodes is not None:
                _cross_fit_on(nodes, console, training, stop)
            with live.fold_progress(console) as progress:
                training.cross_fit(stop, progress)
            stopped = stop() and training.stopped
        if not training.can_finish:
            training.leave()
            console.print(
                "stopped before the first fold of the cross-validation: there is no model file yet, because nothing "
                f"judged it. To continue: hangtag train --resume {shlex.quote(str(training.run.path))}"
            )
            raise typer.Exit(130)
        if stopped:
            console.print(
                "stopped early; the model so far is kept. "
                f"To continue later: hangtag train --resume {shlex.quote(str(training.run.path))}"
            )
        stop.finishing = True
        console.print("exporting, verifying and evaluating the model ...")
        threading.Thread(target=_import_figures, daemon=True).start()
        return training.finish(), stopped


def _import_figures() -> None:
    """Import what draws the report's figures, which takes most of a second, while the model is judged."""
    with suppress(Exception):  # the report will meet it again, and say so
        from hangtag.reports import figures, report  # noqa: F401


def _train_seeds(
    console: "Console", request: "Request", count: int, tracking: "Tracking", as_json: bool, nodes: "Nodes | None"
) -> None:
    """Train with one seed after the other, or with all of them on a cluster; then print what they have in common."""
    classifier, data = request.classifier_and_data()
    from hangtag.cli import screen
    from hangtag.training.seeds import Seeds

    seeds = Seeds(classifier, data, request.source, request.out, count)
    console.print(f"training with {count} seeds; run folder: {seeds.run.path}{'; resuming' if seeds.resumed else ''}")
    try:
        if nodes is None:
            _train_in_turn(console, seeds, tracking)
        else:
            _train_on_cluster(console, seeds, nodes)
    except HangtagError:
        seeds.discard()
        raise
    best, judged = seeds.finish()
    from hangtag.reports.report import write_report_and_pictures

    report = write_report_and_pictures(seeds.run, data, judged)
    if as_json:
        return screen.print_json({"run": str(seeds.run.path), **seeds.run.metrics()})
    screen.print_seeds(seeds, best, judged, report)
    return None


def _train_in_turn(console: "Console", seeds: "Seeds", tracking: "Tracking") -> None:
    from hangtag.training.run import Training

    for number, step in seeds.trainings():
        if not isinstance(step, Training):
            console.print(f"seed {number}: already trained; {step.in_words}")
            continue
        console.print(f"seed {number}:")
        judged, stopped = train_and_judge(console, step, tracking)
        console.print(f"seed {number}: {judged.in_words}")
        _end_tracking(console, tracking, judged)
        if stopped:
            console.print("to continue with all seeds, run the same command again")
            raise typer.Exit(130)


def _train_on_cluster(console: "Console", seeds: "Seeds", nodes: "Nodes") -> None:
    from hangtag.cli import live
    from hangtag.cluster.trainings import train_seeds

    with stop_on_interrupt() as stop, live.jobs(console, "seed", len(seeds.numbers)) as jobs:
        for number, words, _ in train_seeds(nodes, seeds, stop, jobs.report, jobs.bar.console.print):
            jobs.end(number, f"seed {number}: {words}")
    if stop():
        console.print("stopped; to continue with all seeds, run the same command again")
        raise typer.Exit(130)


def _cross_fit_on(nodes: "Nodes", console: "Console", training: "Training", stop: "_Interrupt") -> None:
    from hangtag.cli import live
    from hangtag.cluster.trainings import fold_runner

    with live.jobs(console, "fold", training.folds) as jobs:
        run = fold_runner(nodes, stop, jobs.report, jobs.end, jobs.bar.console.print)
        training.cross_fit(stop, run=run)


@dataclass(frozen=True)
class Request:
    """The options of `hangtag train` and `tune`; None or empty where none was given."""

    what: str | None
    path: Path | None
    data_options: options.DataOptions
    recipe: str | None
    changes: Mapping[str, Any]
    settings: Sequence[str]
    seed: int | None
    device: str
    out: Path | None

    def check_out(self) -> None:
        """Raise RunError unless a run can begin in the folder `out`, or an interrupted one can be resumed there."""
        if self.out is not None:
            from hangtag.evaluation.run_folder import check_new

            check_new(self.out, resumable=True)

    def changed_recipe(self, name: str | None = None) -> "Recipe":
        """The recipe with the user's settings.

        Args:
            name: of the recipe, if the user named none.
        """
        from hangtag.training.engine.recipes import DEFAULT, check_not_two, find_recipe, with_settings

        name = self.recipe or name or ("transfer" if self.changes["backbone"] or self.changes["fine_tune"] else DEFAULT)
        recipe = with_settings(find_recipe(name), self.settings)
        for name in recipe.given:
            check_not_two(name, getattr(recipe, name), self.changes.get(name))
        return find_recipe(recipe, **self.changes)

    @property
    def source(self) -> dict[str, Any]:
        """Where the data is and how it is read, for the run folder: a run can be evaluated from any folder."""
        from hangtag.data.public.datasets import NAMED

        what = self.what or "fashion-mnist"
        if Path(what).exists() and what not in NAMED:
            what = str(Path(what).resolve())
        data_options = {name: value for name, value in self.data_options.given().items() if name != "strict"}
        for name in {"root", "decisions"} & data_options.keys():
            data_options[name] = str(user_path(data_options[name]).absolute())
        path = str(self.path.absolute()) if self.path else None
        return {"what": what, "path": path, **({"options": data_options} if data_options else {})}

    def read(self, photo_side: int | None = None, photos: bool | None = None) -> "LabelledImages":
        data = options.read_data(self.what, self.path, self.data_options, photo_side=photo_side, photos=photos)
        options.print_description(data, sys.stderr)
        return data

    def classifier_and_data(self) -> tuple["Classifier", "LabelledImages"]:
        """The unfitted classifier and its data; wrong names and a missing device are errors before data is read."""
        recipe = self.changed_recipe()
        from hangtag.training.choose_recipe import PHOTO_SIDE, choose_recipe, may_transfer
        from hangtag.training.classifier import Classifier
        from hangtag.training.engine.build import find_network
        from hangtag.training.engine.loop import choose_device

        choose_device(self.device)
        if recipe.backbone:
            from hangtag.training.engine.backbones import find_backbone

            data = self.read(min(find_backbone(recipe.backbone).side), photos=True)
        else:
            find_network(recipe.network, self.seed or 0)
            chooses = self.recipe is None
            data = self.read(PHOTO_SIDE if chooses and may_transfer(recipe.given) else None)
            if chooses:
                name, note = choose_recipe(data, recipe.given)
                recipe = self.changed_recipe(name)
                print(note, file=sys.stderr) if note else None
        _find_near_duplicates(data, recipe)
        return Classifier(recipe=recipe, seed=self.seed or 0, device=self.device), data


def _find_near_duplicates(data: "LabelledImages", recipe: "Recipe") -> None:
    """Find near-duplicates with a progress bar, before a split needs them."""
    from hangtag.training.cross_fit import choose_folds

    if not (recipe.validation or choose_folds(recipe, data)[0]) or "validation" in data.parts:
        return
    from hangtag.cli import live
    from hangtag.data.splits import near_groups

    _ = data.contents  # hashes every image once; the parts take their hashes along
    with live.byte_progress() as progress:
        near_groups(data.train, progress)


def _new_training(request: Request) -> "Training":
    """A new training, or a killed one with exactly these settings."""
    classifier, data = request.classifier_and_data()
    from hangtag.training.run import Training

    return Training.begin(classifier, data, request.source, request.out)


def _planned_training(console: "Console", request: Request, minutes: float) -> "Training":
    """A training planned to end in this time, or a killed one with the same plan."""
    from hangtag.cli import live
    from hangtag.training.choose_recipe import PHOTO_SIDE, may_transfer
    from hangtag.training.classifier import Classifier
    from hangtag.training.engine.loop import choose_device
    from hangtag.training.engine.recipes import DEFAULT, find_recipe
    from hangtag.training.run import Training, find_planned
    from hangtag.training.time_budget import plan

    device = choose_device(request.device)
    data = request.read(PHOTO_SIDE if may_transfer(()) else None)
    seed = request.seed or 0
    earlier = find_planned(data, minutes, seed, request.out)
    if earlier is not None:
        return Training.resume(earlier, request.device)
    _find_near_duplicates(data, find_recipe(DEFAULT))  # before the plan, so that its time counts
    console.print("measuring this machine ...")

    def watch(title: str, epochs: Iterator["Epoch"]) -> None:
        console.print(title)
        live.show_epochs(console, epochs)

    chosen = plan(data, minutes, BEGAN, device, seed, watch)
    console.print(chosen.in_words)
    classifier = Classifier(chosen.recipe, seed=seed, device=request.device)
    training = Training.begin(classifier, data, request.source, request.out)
    training.record(plan=chosen.to_json())
    return training


def _resumed_training(request: Request, name: str) -> "Training":
    """The named training; options given again must be its own. Its data may have moved, and is checked to be the same.

    Raises:
        UsageError: an option differs from the run's.
    """
    from hangtag.evaluation.run_folder import find_run, newest_unfinished

    run = newest_unfinished() if name == "last" and not Path(name).exists() else find_run(name)
    run.check_resumable(request.changes["network"])
    config = run.config()
    source = config.get("source", {})
    recipe = request.changed_recipe()
    wanted = {key: getattr(recipe, key) for key in recipe.given}
    if request.recipe is not None:
        wanted["recipe"] = recipe.name
    if request.seed is not None:
        wanted["seed"] = request.seed
    wanted |= request.source.get("options", {})
    settings = config.get("recipe", {})
    started = {**settings, "recipe": settings.get("name"), "seed": config.get("seed"), **source.get("options", {})}
    differences = [
        f"{key} was {started.get(key)}, now {value}" for key, value in wanted.items() if started.get(key) != value
    ]
    if differences:
        raise UsageError(
            f"{run.path} was started with different settings: {', '.join(differences)}",
            "use --resume alone to keep its settings, or start a new run without --resume",
        )
    from hangtag.training.run import Training

    if request.what is None and request.path is None:
        return Training.resume(run, request.device, network=request.changes["network"])
    moved = {key: request.source[key] for key in ("path", *(["what"] if request.what is not None else []))}
    return Training.resume(run, request.device, source | moved, request.changes["network"])


@dataclass
class _Interrupt:
    """Whether Ctrl-C was pressed.

    Attributes:
        finishing: all steps are done; there is nothing left to stop.
    """

    pressed: bool = False
    finishing: bool = False

    def __call__(self) -> bool:
        return self.pressed


@contextmanager
def stop_on_interrupt(quiet: bool = False) -> Iterator[_Interrupt]:
    """The first Ctrl-C requests a clean end; a second one is an ordinary KeyboardInterrupt.

    torchrun passes Ctrl-C on to processes that the terminal has already interrupted; both together count once.

    Args:
        quiet: whether nothing is printed.
    """
    from hangtag.training.engine.torchrun import started_by_torchrun

    interrupt, first = _Interrupt(), 0.0

    def request_stop(signum: int, frame: object) -> None:
        nonlocal first
        if interrupt.pressed:
            if time.monotonic() - first > _SAME_PRESS_SECONDS:
                raise KeyboardInterrupt
            return
        interrupt.pressed, first = True, time.monotonic()
        if not started_by_torchrun():
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if quiet:
            return
        doing = "almost done" if interrupt.finishing else "finishing the current steps"
        print(f"\n{doing}; press Ctrl-C again to abort", file=sys.stderr)

    before = signal.signal(signal.SIGINT, request_stop)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)
