"""An answer -> a row of a table, and the columns of that table."""

from typing import Any

from hangtag.model.predictor import Answer

__all__ = ["columns", "row_of"]


def columns(top: int, classes: int) -> dict[str, type]:
    """The columns and their types; with `top` above 1, also those of the next most probable labels."""
    others: dict[str, type] = {}
    for place in range(2, min(top, classes) + 1):
        others |= {f"label_{place}": str, f"probability_{place}": float}
    return {
        "file": str, "label": str, "probability": float, "sure": bool, "prediction_set": list, "is_ood": bool,
        "ood_score": float, **others, "warnings": list, "repairs": list, "error": str, "model": str,
    }  # fmt: skip


def row_of(file: str, answer: Answer) -> dict[str, Any]:
    """The values of one row; None where the model gives none."""
    row: dict[str, Any] = {
        "file": file, "label": answer.label, "probability": answer.probability, "sure": answer.sure,
        "prediction_set": answer.prediction_set, "is_ood": answer.is_ood, "ood_score": answer.ood_score,
        "warnings": answer.warnings, "error": answer.error, "model": answer.model,
        "repairs": [str(each) for each in answer.repairs],
    }  # fmt: skip
    for place, (label, probability) in enumerate(answer.top[1:], 2):
        row |= {f"label_{place}": label, f"probability_{place}": probability}
    return row
