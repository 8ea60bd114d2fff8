"""`hangtag.audit`: an audit that can also check the labels, which takes networks."""

from typing import Any

from hangtag.data import audit as auditing
from hangtag.data.read import read
from hangtag.errors import MissingExtra
from hangtag.progress import Progress

__all__ = ["audit"]


def audit(
    data: Any, labels: bool = True, seed: int = 0, device: str = "auto", progress: Progress | None = None
) -> auditing.Audit:
    """Look for duplicates, wrong labels, damaged files and small classes; nothing is changed.

    Args:
        data: a `LabelledImages`, or anything that `read` takes.
        labels: whether to look for wrong labels too, which takes most of the time.
        seed: of the networks that check labels.
        device: "auto", "cpu" or "cuda".
        progress: called with (what is happening, done, total).

    Raises:
        MissingExtra: `labels` needs packages that are not installed.
        DataError: the data cannot be used as labelled images.
    """
    finder = None
    if labels:
        MissingExtra.check_training(", or leave the labels unchecked: labels=False")
        from hangtag.training.label_errors import label_error_finder

        finder = label_error_finder(seed, device)
    return auditing.audit(read(data, progress=progress), finder, progress)
