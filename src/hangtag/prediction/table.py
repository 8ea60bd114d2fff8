"""An answer -> a row of a table, and the columns of that table."""

from typing import Any

from hangtag.model.predictor import Answer

__all__ = ["columns", "row_of", "values_of"]


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
    values = [file, *values_of(answer), answer.model]
    return dict(zip(columns(len(answer.top), len(answer.top)), values, strict=True))


def values_of(answer: Answer) -> list[Any]:
    """The values of one row between the first column, the file, and the last, the model."""
    others = [value for each in answer.top[1:] for value in each]
    return [
        answer.label, answer.probability, answer.sure, answer.prediction_set, answer.is_ood, answer.ood_score,
        *others, answer.warnings, [str(each) for each in answer.repairs], answer.error,
    ]  # fmt: skip
