"""`ImageClassifier`: a `Classifier` with scikit-learn's interface."""

from typing import TYPE_CHECKING, Any, Self

import sklearn.exceptions
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags

from hangtag.errors import RunError
from hangtag.training.classifier import Classifier

__all__ = ["ImageClassifier", "NotFittedError"]


class NotFittedError(RunError, sklearn.exceptions.NotFittedError):  # type: ignore[misc]  # scikit-learn ships no types
    """The classifier has no model: `fit` was not called, or it failed."""


class ImageClassifier(Classifier, ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    __doc__ = Classifier.__doc__
    _not_fitted = NotFittedError

    if TYPE_CHECKING:  # scikit-learn ships no types

        def get_params(self, deep: bool = True) -> dict[str, Any]: ...
        def set_params(self, **params: Any) -> Self: ...
        def score(self, X: Any, y: Any, sample_weight: Any = None) -> float: ...

    def __sklearn_tags__(self) -> Tags:
        tags: Any = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        return tags
