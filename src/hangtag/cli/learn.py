"""`hangtag model`, `tutorial` and `bench`: the networks, the lesson, and this machine."""

from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer

from hangtag.cli.options import AsJson, Data, DataPath, Device, Seed, complete_recipe, path_option, read_data
from hangtag.errors import MissingExtra
from hangtag.files import make_own_folder

__all__ = ["bench", "model", "tutorial"]


def model(
    recipe: Annotated[
        str, typer.Argument(help="A recipe: fast, accurate, best, quick or tutorial.", autocompletion=complete_recipe)
    ] = "fast",
    as_json: AsJson = False,
) -> None:
    """Show the network of a recipe, layer by layer, for 28x28 grey images and ten classes."""
    MissingExtra.check_training()
    from hangtag.cli import screen
    from hangtag.cli.text_table import TextTable
    from hangtag.pictures import ImageSpec
    from hangtag.training.engine.build import build_network
    from hangtag.training.engine.networks import layers, parameter_count
    from hangtag.training.engine.recipes import find_recipe

    settings = find_recipe(recipe)
    spec = ImageSpec(28, 28)
    network = build_network(settings.network, spec, 10, seed=0)
    rows, total = layers(network, spec), parameter_count(network)
    if as_json:
        return screen.print_json(
            {"network": settings.network, "layers": [vars(row) for row in rows], "parameters": total}
        )
    table = TextTable("layer", "kind", ">output shape", ">parameters")
    for row in rows:
        table.add_row(row.name, row.kind, f"(N, {', '.join(map(str, row.shape))})", f"{row.parameters:,}")
    table.add_section()
    table.add_row("total", "", "", f"{total:,}")
    print(f"{settings.network}: the network of recipe '{settings.name}' ({settings.description})")
    table.show()
    return None


def bench(
    what: Data = "fashion-mnist",
    path: DataPath = None,
    seconds: Annotated[float, typer.Option(help="Measure for about this long.", min=1, max=3600)] = 25.0,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure this machine in half a minute: training, prediction, and the speed of matrix products.

    benchmarks/RESULTS.md in the source code has the same numbers for a known machine and for other frameworks.
    """
    MissingExtra.check_training()
    from hangtag.cli import live, screen

    data = read_data(what, path)
    with live.share_progress() as progress:
        progress("starting", 0.0)
        from hangtag.cli.bench import measure_machine

        result = measure_machine(data, device, seconds, progress)
    if as_json:
        return screen.print_json(result.to_json())
    screen.print_bench(result)
    return None


def tutorial(
    path: DataPath = None,
    out: Annotated[Path, path_option("Folder for the six figures.")] = Path("tutorial-pictures"),
    seed: Seed = 0,
) -> None:
    """Follow the lesson "Basic image classification" step by step on the real images, in about a minute."""
    MissingExtra.check_training()
    from hangtag.cli import live
    from hangtag.cli.tutorial import Section, walk
    from hangtag.training.classifier import Classifier

    data = read_data("fashion-mnist", path)
    make_own_folder(out)
    console = live.console()
    steps: Any = walk(data, Classifier("tutorial", seed=seed, device="cpu"), out)
    for kind, group in groupby(steps, type):
        if kind is Section:
            for section in group:
                live.print_section(console, section)
        else:
            live.show_epochs(console, group)
    print(
        "What comes after the lesson:\n"
        "  your own images        hangtag predict RUN photo.jpg takes any size and colour, prepared as in training\n"
        "  a better model         hangtag train fashion-mnist     (recipe 'fast': about 93% instead of 88%)\n"
        "  a file to ship         every run holds model.onnx, verified to answer as the trained network does\n"
        "  a number to rely on    accuracy has a 95% interval, and the gap to the training accuracy is explained\n"
        "  answers to rely on     hangtag predict says sure, not sure or unfamiliar (every recipe but the lesson's\n"
        "                         holds out the images this needs); --why draws what an answer is based on"
    )
