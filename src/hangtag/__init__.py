"""hangtag: from labelled images to a classifier you can trust, in one command, on your own machine.

    >>> import hangtag
    >>> data = hangtag.read("fashion-mnist")                                    # doctest: +SKIP
    >>> clf = hangtag.ImageClassifier(recipe="tutorial").fit(data.train)        # doctest: +SKIP
    >>> print(clf.evaluate(data.test))                                          # doctest: +SKIP
    >>> clf.save("clothes.onnx")                                                # doctest: +SKIP
    >>> tag = hangtag.load("clothes.onnx")      # no torch from here on         # doctest: +SKIP
    >>> tag("shoe.jpg").label                                                   # doctest: +SKIP

Names are looked up when first used, so that `import hangtag` stays instant and predicting never imports torch.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from hangtag.version import __version__ as __version__

if TYPE_CHECKING:
    from hangtag.classifier import ImageClassifier as ImageClassifier
    from hangtag.errors import HangtagError as HangtagError
    from hangtag.evaluate import Evaluation as Evaluation
    from hangtag.images import ImageSpec as ImageSpec
    from hangtag.labelled import LabelledImages as LabelledImages
    from hangtag.predictor import Answer as Answer
    from hangtag.predictor import Predictor as Predictor
    from hangtag.predictor import load as load
    from hangtag.recipes import Recipe as Recipe
    from hangtag.sources import read as read
    from hangtag.train import Epoch as Epoch

# PyTorch's threads wait for each other by spinning. Beside another busy program that made training a hundred times
# slower; after a shorter spin they sleep. It must be said before PyTorch is imported, hence here. See docs/log.md.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

_HOME = {
    "Answer": "predictor",
    "Epoch": "train",
    "Evaluation": "evaluate",
    "HangtagError": "errors",
    "ImageClassifier": "classifier",
    "ImageSpec": "images",
    "LabelledImages": "labelled",
    "Predictor": "predictor",
    "Recipe": "recipes",
    "figures": "",
    "load": "predictor",
    "read": "sources",
}

__all__ = sorted([*_HOME, "__version__"])  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'hangtag' has no attribute '{name}'")
    try:
        if not _HOME[name]:
            return import_module(f"hangtag.{name}")
        return getattr(import_module(f"hangtag.{_HOME[name]}"), name)
    except ModuleNotFoundError as error:
        from hangtag.errors import MissingExtra

        raise MissingExtra.for_module(error.name) or error from error


def __dir__() -> list[str]:
    return __all__
