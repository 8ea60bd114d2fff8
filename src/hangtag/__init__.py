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

    from hangtag import errors as errors
    from hangtag.data.audit import Audit as Audit
    from hangtag.data.audit import Finding as Finding
    from hangtag.data.labelled_images import LabelledImage as LabelledImage
    from hangtag.data.labelled_images import LabelledImages as LabelledImages
    from hangtag.data.read import read as read
    from hangtag.errors import HangtagError as HangtagError
    from hangtag.errors import HangtagWarning as HangtagWarning
    from hangtag.evaluation.comparison import Comparison as Comparison
    from hangtag.evaluation.comparison import compare as compare
    from hangtag.evaluation.judge import Judgement as Judgement
    from hangtag.evaluation.judge import evaluate as evaluate
    from hangtag.evaluation.metrics import Evaluation as Evaluation
    from hangtag.evaluation.regression_check import Check as Check
    from hangtag.evaluation.regression_check import check as check
    from hangtag.evaluation.run_folder import Run as Run
    from hangtag.evaluation.run_folder import find_run as find_run
    from hangtag.evaluation.stress_test import Stress as Stress
    from hangtag.evaluation.stress_test import stress as stress
    from hangtag.model.guarantees import AnswerPolicy as AnswerPolicy
    from hangtag.model.predictor import Answer as Answer
    from hangtag.model.predictor import Predictor as Predictor
    from hangtag.model.predictor import load as load
    from hangtag.pictures import ImageSpec as ImageSpec
    from hangtag.prediction.bulk import FileAnswer as FileAnswer
    from hangtag.prediction.bulk import predict as predict
    from hangtag.reports import figures as figures
    from hangtag.training.audit import audit as audit
    from hangtag.training.engine import recipes as recipes
    from hangtag.training.engine.loop import Epoch as Epoch
    from hangtag.training.engine.recipes import Recipe as Recipe
    from hangtag.training.estimator import ImageClassifier as ImageClassifier
    from hangtag.training.tuning import tune as tune

# PyTorch's threads spin while they wait for each other, which made training a hundred times slower on a busy machine.
# With this limit they soon sleep instead. PyTorch reads it when it is imported, so it is set here. See docs/log.md.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

# ONNX Runtime 1.29 and later records each session for Microsoft, unless this is set before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOME = {
    "Answer": "model.predictor",
    "AnswerPolicy": "model.guarantees",
    "Audit": "data.audit",
    "Check": "evaluation.regression_check",
    "Comparison": "evaluation.comparison",
    "Epoch": "training.engine.loop",
    "Evaluation": "evaluation.metrics",
    "FileAnswer": "prediction.bulk",
    "Finding": "data.audit",
    "HangtagError": "errors",
    "HangtagWarning": "errors",
    "ImageClassifier": "training.estimator",
    "ImageSpec": "pictures",
    "Judgement": "evaluation.judge",
    "LabelledImage": "data.labelled_images",
    "LabelledImages": "data.labelled_images",
    "Predictor": "model.predictor",
    "Recipe": "training.engine.recipes",
    "Run": "evaluation.run_folder",
    "Stress": "evaluation.stress_test",
    "audit": "training.audit",
    "check": "evaluation.regression_check",
    "compare": "evaluation.comparison",
    "evaluate": "evaluation.judge",
    "find_run": "evaluation.run_folder",
    "load": "model.predictor",
    "predict": "prediction.bulk",
    "read": "data.read",
    "stress": "evaluation.stress_test",
    "tune": "training.tuning",
}
_MODULES = {"errors": "errors", "figures": "reports.figures", "recipes": "training.engine.recipes"}
_NEED = {"Epoch": "torch", "ImageClassifier": "torch", "figures": "matplotlib", "tune": "torch"}
"""The package of an extra that a name needs."""

__all__ = sorted([*_HOME, *_MODULES, "__version__"])  # noqa: PLE0605


def __getattr__(name: str) -> "Any":
    if name not in _HOME and name not in _MODULES:
        raise AttributeError(f"module 'hangtag' has no attribute '{name}'")
    from hangtag.errors import MissingAttribute, MissingExtra

    try:
        module = import_module(f"hangtag.{_HOME.get(name) or _MODULES[name]}")
        return module if name in _MODULES else getattr(module, name)
    except (MissingExtra, ModuleNotFoundError) as error:
        missing = error if isinstance(error, MissingExtra) else MissingExtra.for_module(error.name)
        if missing is None:
            raise
    # `from hangtag import NAME` would replace an AttributeError by one without the hint; `hasattr` needs one.
    if sys._getframe(1).f_globals.get("__name__") == "importlib._bootstrap":
        raise missing
    raise MissingAttribute(f"hangtag.{name}: {missing.message}", missing.hint) from missing


def __dir__() -> list[str]:
    from importlib.util import find_spec

    return [name for name in __all__ if name not in _NEED or find_spec(_NEED[name]) is not None]
