"""hangtag: from labelled images to a classifier you can trust, in one command, on your own machine.

    >>> import hangtag
    >>> data = hangtag.read("fashion-mnist")                                    # doctest: +SKIP
    >>> clf = hangtag.ImageClassifier(recipe="tutorial").fit(data.train)        # doctest: +SKIP
    >>> print(clf.evaluate(data.test))                                          # doctest: +SKIP
    >>> clf.save("clothes.onnx")                                                # doctest: +SKIP
    >>> tag = hangtag.load("clothes.onnx")      # no torch from here on         # doctest: +SKIP
    >>> tag("shoe.jpg").label                                                   # doctest: +SKIP

Names are looked up when first used: `import hangtag` is instant, and predicting never imports torch.

This file imports only what Python has already loaded when `python -m hangtag` starts: until `__main__.py` runs, any
other import could find a file of that name in the current folder.
"""

import os
import sys
from importlib import import_module

from hangtag.version import __version__ as __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hangtag.data.labelled_images import LabelledImages as LabelledImages
    from hangtag.data.read import read as read
    from hangtag.errors import HangtagError as HangtagError
    from hangtag.evaluation.judge import evaluate as evaluate
    from hangtag.evaluation.metrics import Evaluation as Evaluation
    from hangtag.model.predictor import Answer as Answer
    from hangtag.model.predictor import Predictor as Predictor
    from hangtag.model.predictor import load as load
    from hangtag.pictures import ImageSpec as ImageSpec
    from hangtag.training.classifier import ImageClassifier as ImageClassifier
    from hangtag.training.engine.loop import Epoch as Epoch
    from hangtag.training.engine.recipes import Recipe as Recipe

# PyTorch's threads spin while they wait for each other, which made training a hundred times slower on a busy machine.
# With this limit they soon sleep instead. PyTorch reads it when it is imported, so it is set here. See docs/log.md.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

_HOME = {
    "Answer": "model.predictor",
    "Epoch": "training.engine.loop",
    "Evaluation": "evaluation.metrics",
    "HangtagError": "errors",
    "ImageClassifier": "training.classifier",
    "ImageSpec": "pictures",
    "LabelledImages": "data.labelled_images",
    "Predictor": "model.predictor",
    "Recipe": "training.engine.recipes",
    "evaluate": "evaluation.judge",
    "figures": "reports.figures",
    "load": "model.predictor",
    "read": "data.read",
}

__all__ = sorted([*_HOME, "__version__"])  # noqa: PLE0605


def __getattr__(name: str) -> "Any":
    if name not in _HOME:
        raise AttributeError(f"module 'hangtag' has no attribute '{name}'")
    from hangtag.errors import MissingAttribute, MissingExtra

    missing: ImportError | None = None
    try:
        module = import_module(f"hangtag.{_HOME[name]}")
        return module if name == "figures" else getattr(module, name)
    except ModuleNotFoundError as error:
        missing = MissingExtra.for_module(error.name) or error
    except MissingExtra as error:
        missing = error
    # `from hangtag import NAME` would replace an AttributeError by one without the hint; `hasattr` needs one.
    importing = sys._getframe(1).f_globals.get("__name__") == "importlib._bootstrap"
    if isinstance(missing, MissingExtra) and not importing:
        raise MissingAttribute(missing.message, missing.hint) from missing
    raise missing


def __dir__() -> list[str]:
    return __all__
