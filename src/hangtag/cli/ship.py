"""`hangtag ship`: a model for other servers, containers and browsers."""

from pathlib import Path
from typing import Annotated

import typer

from hangtag.cli import options
from hangtag.files import user_path

__all__ = ["ship"]


def ship(
    model: options.Model,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.", parser=user_path)],
    to: Annotated[
        list[str], typer.Option(metavar="WHAT", help="triton, kserve, docker, systemd or web. Can be repeated.")
    ],
    name: Annotated[
        str | None, typer.Option(help="The model's name: lower-case letters, digits, hyphens. Default: the run's.")
    ] = None,
    runtime: Annotated[
        Path | None, options.path_option("For web: onnxruntime-web as a .tgz or folder. Default: npm fetches it.")
    ] = None,
    wheel: Annotated[
        Path | None,
        options.path_option("For docker and systemd: a wheel of hangtag. Default: one is made of this installation."),
    ] = None,
    storage_uri: Annotated[str | None, typer.Option(help="For kserve: where the model will be stored.")] = None,
    image: Annotated[str | None, typer.Option(help="For kserve: the image of hangtag ship --to docker.")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Write a model for other servers, containers or browsers. Nothing is uploaded or started.

    triton: a model repository for NVIDIA Triton. kserve: InferenceServices for Kubernetes. docker: a Dockerfile for a
    small image without PyTorch, not run as root. systemd: a hardened service. web: one page in which the model answers
    in the browser, without a network. Each prints what to do next. docs/serving.md in the source code describes them.

    For example, into a folder for each: hangtag ship last shipped --to docker --to web
    """
    from hangtag.cli import screen
    from hangtag.shipping.parcel import Parcel, check_name, name_for
    from hangtag.shipping.ship import ShipOptions
    from hangtag.shipping.ship import ship as write

    if name is not None:
        check_name(name)
    path = options.model_path(model)
    parcel = Parcel.of(options.open_model(model), name or name_for(path))
    made = write(parcel, to, folder, ShipOptions(runtime, wheel, storage_uri, image))
    if as_json:
        files = {target: sorted(each.files) for target, each in made.items()}
        return screen.print_json({"folder": str(folder), "name": parcel.name, "files": files})
    for target, each in made.items():
        print(f"{target}: {folder}")
        for file, content in sorted(each.files.items()):
            print(f"  {file:<40} {len(content):>12,} bytes")
        print("next:")
        for step in each.next:
            print(f"  {step.replace('{folder}', str(folder))}")
    return None
