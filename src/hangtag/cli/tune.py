"""`hangtag tune`: a search over a recipe's settings, and the training of the best one."""

import shlex
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hangtag.cli import options
from hangtag.cli.train import RecipeName, Request, stop_on_interrupt, train_and_judge
from hangtag.errors import HangtagError, MissingExtra
from hangtag.words import amount, setting_text

if TYPE_CHECKING:
    from rich.console import Console

    from hangtag.cluster.trainings import Nodes
    from hangtag.evaluation.tuning_results import Trial
    from hangtag.training.tuning import Search

__all__ = ["tune"]

_SEARCH_HELP = (
    "A setting to search: a range, learning_rate=1e-4..1e-1, or values, batch_size=32,64; repeatable. "
    "[default: the settings that suit the recipe]"
)


@options.with_data_options
def tune(
    data_options: options.DataOptions,
    what: Annotated[
        str | None,
        typer.Argument(help=f"{options.DATA_HELP} [default: fashion-mnist]", autocompletion=options.complete_data),
    ] = None,
    path: options.DataPath = None,
    recipe: RecipeName = None,
    search: Annotated[list[str] | None, typer.Option("--search", help=_SEARCH_HELP)] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Fix a setting of the recipe, such as epochs=5; repeatable.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="A network: mlp, cnn, or your own as module:function.")] = None,
    trials: Annotated[
        int | None, typer.Option(help="Number of settings to try. [default: 20, or unlimited with --minutes]")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Search for about this many minutes; the final training comes after that.")
    ] = None,
    parallel: Annotated[
        int,
        typer.Option(
            help="How many trials may run at once with --ray. A trial learns only from trials at least this many "
            "before it, so the number affects the result on one machine, too."
        ),
    ] = 4,
    ray: options.Ray = None,
    cpus: Annotated[int, typer.Option(help="With --ray: CPUs and threads of each trial.", min=1)] = 1,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    out: Annotated[
        Path | None, options.path_option("The run folder to create; earlier runs are never overwritten.")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Search for the settings with the lowest validation loss, train with them, and evaluate the model once.

    The test images take no part in the search. To continue a search that was stopped or killed, run the same command
    again.
    """
    MissingExtra.check_training()
    from hangtag.cli import live, screen
    from hangtag.training.sampler import check_sampler
    from hangtag.training.trackers import Tracking
    from hangtag.training.tuning import Search, check_limits

    check_sampler()
    check_limits(trials, minutes, parallel)
    console = live.console(stderr=as_json)
    changes = {"network": model, "backbone": None, "fine_tune": None}
    request = Request(what, path, data_options, recipe, changes, settings or [], seed, device, out)
    request.check_out()
    with options.print_warnings(), ExitStack() as stack:
        nodes = None if ray is None else stack.enter_context(options.on_nodes(ray, cpus, device))
        _check_space(request, search or [])
        classifier, data = request.classifier_and_data()
        found = Search(classifier, data, request.source, out, search or [], trials, minutes, parallel)
        try:
            _search(console, found, nodes)
        except HangtagError:
            found.discard()
            raise
        training = found.refit()
        (chosen,) = (trial for trial in found.results.trials if trial.number == found.results.chosen)
        console.print(f"training with the settings of trial {chosen.number}: {_as_options(chosen)}")
        judged, stopped = train_and_judge(console, training, Tracking(None))
        from hangtag.reports.report import write_report_and_pictures

        report = write_report_and_pictures(training.run, training.data, judged)
    if as_json:
        facts = {"run": str(training.run.path), "tuning": found.results.to_json(), "seconds": training.seconds}
        screen.print_json({**facts, **judged.to_json()})
    else:
        screen.print_trials(found.results, judged.part)
        screen.print_summary(training, judged, report)
    if stopped:
        raise typer.Exit(130)


def _check_space(request: Request, search: list[str]) -> None:
    """Raise UsageError for a search space that is not valid, before any data is read."""
    from hangtag.training.search_space import parse_space

    parse_space(request.changed_recipe(), search)


def _search(console: "Console", search: "Search", nodes: "Nodes | None") -> None:
    """Run all trials that are not finished."""
    from hangtag.cli import live

    if search.is_chosen:
        return
    console.print(_begin_in_words(search))
    console.print(live.trial_head(search.space))
    for trial in search.results.trials:
        console.print(live.trial_line(trial, search.space))
    with stop_on_interrupt() as stop, live.jobs(console, "trial", search.count, len(search.results)) as jobs:
        if nodes is None:
            ended = search.trials_in_turn(stop, jobs.show)
        else:
            from hangtag.cluster.trainings import run_trials

            ended = run_trials(nodes, search, stop, jobs.report, jobs.bar.console.print)
        for trial in ended:
            jobs.note = _best_in_words(search)
            jobs.end(trial.number, live.trial_line(trial, search.space))
        if not stop():
            return
    search.pause()
    console.print(
        f"stopped after {amount(len(search.results), 'trial')}; {_best_in_words(search)}. To continue, run the same "
        "command again"
    )
    raise typer.Exit(130)


def _best_in_words(search: "Search") -> str:
    best = search.results.best
    if best is None:
        return "no trial is complete yet"
    return f"best: loss {best.loss:.4f}, trial {best.number}"


def _begin_in_words(search: "Search") -> str:
    name, count = search.classifier.chosen_recipe(search.data).name, search.count
    limit = f"for {search.minutes:g} minutes" if search.minutes is not None else f"in {count} trials"
    where = "; ".join(f"{name} {each}" for name, each in search.space.items())
    resumed = f"; continuing after {amount(len(search.results), 'trial')}" if search.resumed else ""
    note = f"\nnote: {search.note}" if search.note else ""
    return (
        f"searching {limit} for the settings of recipe '{name}' with the lowest {search.results.judged_by} loss; "
        f"run folder: {search.run.path}{resumed}\nsearch space: {where}{note}"
    )


def _as_options(trial: "Trial") -> str:
    """The settings as options of `hangtag train`."""
    return " ".join(f"--set {name}={shlex.quote(setting_text(value))}" for name, value in trial.settings.items())
