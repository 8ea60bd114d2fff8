"""classifier.py: scikit-learn's contract, proved by use."""

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted
from torch import nn

import hangtag
from hangtag.data.labelled_images import LabelledImages
from hangtag.errors import (
    DataError,
    HangtagError,
    HangtagWarning,
    ModelError,
    PictureError,
    RunError,
    UnknownName,
    UsageError,
)
from hangtag.evaluation import metrics
from hangtag.pictures import ImageSpec
from hangtag.training.engine.recipes import find_recipe
from hangtag.training.estimator import ImageClassifier
from toys import CLASSES, SIDE, quick_recipe, shapes

TEN_EPOCHS = quick_recipe(epochs=10)


@pytest.fixture(scope="module")
def fitted() -> ImageClassifier:
    return ImageClassifier(recipe=TEN_EPOCHS).fit(*shapes(120))


def test_fit_predict_and_score(fitted: ImageClassifier) -> None:
    images, labels = shapes(30, seed=5)

    rows = fitted.predict_proba(images)

    assert fitted.classes_.tolist() == [0, 1, 2]
    assert (rows.shape, rows.dtype) == ((30, 3), np.float32)
    np.testing.assert_allclose(rows.sum(axis=1), 1, atol=1e-6)
    assert (fitted.predict(images) == fitted.classes_[rows.argmax(1)]).all()
    assert fitted.score(images, labels) > 0.9
    assert [epoch.number for epoch in fitted.history_] == list(range(1, 11))


def test_the_answers_come_from_the_exported_file(fitted: ImageClassifier, tmp_path: Path) -> None:
    images, _ = shapes(30, seed=5)

    fitted.save(tmp_path / "toys.onnx")

    tag = hangtag.load(tmp_path / "toys.onnx")
    np.testing.assert_array_equal(tag.probabilities(images), fitted.predict_proba(images))
    assert tag(images[0]).label == str(fitted.predict(images[:1])[0])


def test_a_batch_of_one_and_a_batch_of_none(fitted: ImageClassifier) -> None:
    images, _ = shapes(3)

    assert fitted.predict_proba(images[:1]).shape == (1, 3)
    assert fitted.predict(images[:0]).shape == (0,)


@pytest.mark.parametrize(
    "names", [np.array(["tie", "belt", "sock"]), np.array([7, -2, 100]), np.array(["sock", "7", ""])]
)
def test_labels_may_be_strings_or_have_gaps(names: np.ndarray) -> None:
    images, labels = shapes(90)

    classifier = ImageClassifier(recipe=TEN_EPOCHS).fit(images, names[labels])

    assert classifier.classes_.tolist() == sorted(names.tolist())
    assert classifier.score(images, names[labels]) > 0.9
    assert classifier.class_names_ == tuple(str(name) for name in sorted(names.tolist()))
    assert classifier.evaluate(images, names[labels]).accuracy > 0.9


def test_labelled_images_bring_their_names() -> None:
    images, labels = shapes(90)
    data = LabelledImages(images, labels, CLASSES, parts={"train": slice(0, 60), "test": slice(60, 90)})

    classifier = ImageClassifier(recipe=TEN_EPOCHS).fit(data)

    assert classifier.class_names_ == CLASSES
    assert classifier.evaluate(data.test).images == 30
    assert classifier.metadata().data["images"] == 60


def test_clone_grid_search_cross_validation_and_calibration_work() -> None:
    images, labels = shapes(90)
    classifier = ImageClassifier(recipe=quick_recipe(4))

    assert clone(classifier).get_params() == classifier.get_params()
    assert len(cross_val_score(classifier, images, labels, cv=3)) == 3
    search = GridSearchCV(classifier, {"epochs": [1, 6], "seed": [0]}, cv=2).fit(images, labels)
    assert search.best_params_["epochs"] == 6
    calibrated = CalibratedClassifierCV(classifier, cv=2).fit(images, labels)
    np.testing.assert_allclose(calibrated.predict_proba(images).sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(
    "names",
    [
        ["class 1", "class 2", "class 10"],
        ["10", "9", "1"],
        ["01", "10", "9"],
        ["b", "B", "a"],
        [10, 9, 1],
        np.array([-1, 5, 3], np.int8),
    ],
    ids=str,
)
def test_labels_of_any_kind_come_back_by_their_own_names(names: Any) -> None:
    """Three orders of names there are (as text, by their numbers, as given); scikit-learn's is the only one here."""
    images, positions = shapes(120)
    labels = np.asarray(names)[positions]

    classifier = ImageClassifier(recipe=TEN_EPOCHS).fit(images, labels)

    assert classifier.classes_.tolist() == sorted(set(labels.tolist()))
    assert classifier.class_names_ == tuple(map(str, classifier.classes_))
    assert classifier.score(images, labels) > 0.9
    assert classifier.evaluate(images, labels).accuracy == classifier.score(images, labels)
    assert (classifier.predict(images) == labels).mean() > 0.9
    tag = hangtag.load(classifier.to_bytes())
    assert np.mean([tag(image).label == str(label) for image, label in zip(images, labels, strict=True)]) > 0.9


def test_grid_search_cross_validation_and_calibration_score_names_with_numbers() -> None:
    images, positions = shapes(120)
    labels = np.array(["class 1", "class 2", "class 10"])[positions]
    classifier = ImageClassifier(recipe=TEN_EPOCHS)

    for scoring in ("accuracy", "roc_auc_ovr", "neg_log_loss"):
        scores = cross_val_score(classifier, images, labels, cv=2, scoring=scoring)
        assert scores.min() > (0.8 if scoring != "neg_log_loss" else -1.0)
    assert GridSearchCV(classifier, {"seed": [0]}, cv=2).fit(images, labels).best_score_ > 0.8
    calibrated = CalibratedClassifierCV(classifier, cv=2).fit(images, labels)
    assert (calibrated.predict(images) == labels).mean() > 0.9


def test_a_fitted_classifier_moves_between_processes(fitted: ImageClassifier) -> None:
    images, _ = shapes(9)

    moved = pickle.loads(pickle.dumps(fitted))  # as joblib does it, inside scikit-learn

    np.testing.assert_array_equal(moved.predict_proba(images), fitted.predict_proba(images))


def test_a_users_own_network_is_copied_trained_and_exported() -> None:
    images, labels = shapes(90)
    torch.manual_seed(0)
    own = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 3))
    before = own[0].weight.clone()

    classifier = ImageClassifier(recipe=TEN_EPOCHS, model=own).fit(images, labels)

    assert classifier.score(images, labels) > 0.9
    assert torch.equal(own[0].weight, before)
    assert clone(classifier).fit(images, labels).score(images, labels) > 0.9


def test_a_function_may_make_the_network() -> None:
    def make(spec: ImageSpec, classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(spec.height * spec.width, classes))

    assert ImageClassifier(recipe=TEN_EPOCHS, model=make).fit(*shapes(90)).score(*shapes(30, 2)) > 0.9


def test_the_seed_decides_the_weights_of_a_network_of_ones_own() -> None:
    def make(spec: ImageSpec, classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.LazyLinear(classes))

    def weights(model: nn.Module | Callable[[ImageSpec, int], nn.Module], seed: int) -> torch.Tensor:
        torch.manual_seed(np.random.default_rng().integers(1000))
        weight: torch.Tensor = (
            ImageClassifier("tutorial", model, epochs=1, seed=seed).fit(*shapes(30)).network_[1].weight
        )
        return weight

    for model in (make, make(ImageSpec(SIDE, SIDE), 3)):
        assert torch.equal(weights(model, 3), weights(model, 3))
        assert not torch.equal(weights(model, 3), weights(model, 4))


def test_the_default_recipe_holds_out_validation_images_and_shows_them() -> None:
    classifier = ImageClassifier(epochs=1).fit(*shapes(300))

    assert 27 <= len(classifier.split_.validation) <= 30  # images nearly the same stay together
    assert classifier.history_[0].val_accuracy is not None


def test_colour_pictures_work() -> None:
    grey, labels = shapes(60)
    images = np.stack([grey, grey // 2, 255 - grey], axis=-1)

    classifier = ImageClassifier(recipe=TEN_EPOCHS).fit(images, labels)

    assert classifier.spec_ == ImageSpec(SIDE, SIDE, 3, classifier.spec_.background)
    assert classifier.score(images, labels) > 0.9


def test_leaving_the_training_early_keeps_what_was_learned() -> None:
    images, labels = shapes(90)
    classifier = ImageClassifier(recipe=TEN_EPOCHS)

    for epoch in classifier.fit_epochs(images, labels):
        if epoch.number == 2 and epoch.finished:
            break

    assert len(classifier.history_) == 2
    assert classifier.predict(images).shape == (90,)


def broken(spec: ImageSpec, classes: int) -> nn.Module:
    raise KeyError("weights")


class Answers(nn.Sequential):
    """A linear layer, and then what somebody does with pixels and logits."""

    def __init__(self, then: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__(nn.Flatten(), nn.Linear(SIDE * SIDE, 3))
        self.then = then

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.then(x, super().forward(x))


def never_off(spec: ImageSpec, classes: int) -> nn.Module:
    return Answers(lambda x, logits: nn.functional.dropout(logits, 0.5))


def counted(spec: ImageSpec, classes: int) -> nn.Module:
    return Answers(lambda x, logits: logits.reshape(len(x), 3))


class Odder(nn.Sequential):
    """Has extra state besides its tensors."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(SIDE * SIDE, 3))

    def get_extra_state(self) -> dict[str, int]:
        return {"steps": 0}

    def set_extra_state(self, state: dict[str, int]) -> None: ...


def parts(**images: int) -> LabelledImages:
    """So many images in each part."""
    ends = np.cumsum(list(images.values())).tolist()
    slices = {name: slice(end - count, end) for (name, count), end in zip(images.items(), ends, strict=True)}
    return LabelledImages(*shapes(ends[-1]), CLASSES, "shapes", parts=slices)


MISTAKES = [
    (lambda: ImageClassifier().fit(shapes(9)[0]), DataError, "labels are missing"),
    (lambda: ImageClassifier().fit(shapes(9)[0], [0, 1]), DataError, "9 images but 2 labels"),
    (lambda: ImageClassifier().fit(shapes(9)[0], [1] * 9), DataError, "only one class"),
    (lambda: ImageClassifier().fit(shapes(9)[0] * 1j, shapes(9)[1]), DataError, "from 0 to 255"),
    (lambda: ImageClassifier().fit(shapes(9)[0].reshape(9, -1), shapes(9)[1]), DataError, "reshape"),
    (lambda: ImageClassifier(recipe="fats").fit(*shapes(9)), UnknownName, "did you mean 'fast'"),
    (lambda: ImageClassifier(model="cnnn").fit(*shapes(9)), UnknownName, "did you mean 'cnn'"),
    (lambda: ImageClassifier(model=nn.Flatten()).fit(*shapes(9)), ModelError, "64 logits .* 3 classes"),
    (lambda: ImageClassifier(model=nn.Linear(5, 3)).fit(*shapes(9)), ModelError, "does not accept pixels"),
    (
        lambda: ImageClassifier(model=broken).fit(*shapes(9)),
        ModelError,
        "'broken' cannot be built: KeyError",
    ),
    (
        lambda: ImageClassifier(model=Odder()).fit(*shapes(9)),
        ModelError,
        "'_extra_state', which is not a tensor",
    ),
    (lambda: ImageClassifier(model=never_off).fit(*shapes(9)), ModelError, "'never_off' returns different logits"),
    (lambda: ImageClassifier(model=counted).fit(*shapes(9)), ModelError, "works only for one batch size"),
    (lambda: ImageClassifier(find_recipe("tutorial", patience=3)).fit(*shapes(9)), UsageError, "'tutorial' holds out"),
    (lambda: ImageClassifier().fit(parts(train=0, test=9)), DataError, "no training images"),
    (lambda: ImageClassifier(epochs=0).fit(*shapes(9)), HangtagError, "from 1 to 1,000,000"),
    (lambda: ImageClassifier().predict(shapes(9)[0]), RunError, "call fit"),
]


@pytest.mark.parametrize(("do", "kind", "says"), MISTAKES)
def test_mistakes_are_answered_in_one_clear_sentence(do, kind: type, says: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(kind, match=says) as caught:
        do()
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_patience_watches_a_part_that_was_given() -> None:
    classifier = ImageClassifier(find_recipe("tutorial", epochs=3, patience=1)).fit(parts(train=60, validation=30))

    assert classifier.history_[-1].kept is not None


class Patches(nn.Module):
    """The first of its linear layers to run, which is made last, sees four rows for each image."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(5, 3)
        self.embed = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.unfold(2, 4, 4).unfold(3, 4, 4).reshape(-1, 16)
        seen: torch.Tensor = self.head(torch.relu(self.embed(rows)).reshape(x.shape[0], -1, 5).mean(1))
        return seen


class Volumes(nn.Module):
    """A convolution with weights of five dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(1, 2, (1, 3, 3))
        self.logits = nn.Linear(2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen: torch.Tensor = self.logits(self.conv(x[:, None]).amax((2, 3, 4)))
        return seen


def test_a_last_batch_of_one_image_is_left_out_where_it_could_not_be_normalised() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))
    recipe = find_recipe("tutorial", epochs=2)  # takes the rest of the images, too

    history = ImageClassifier(recipe, model=network).fit(*shapes(65)).history_

    assert [(epoch.step, epoch.steps) for epoch in history] == [(2, 2), (2, 2)]


@pytest.mark.parametrize("network", [Patches, Volumes])
def test_networks_with_unusual_layers_train_and_ship(network: type[nn.Module]) -> None:
    images, labels = shapes(60)
    classifier = ImageClassifier(model=network(), recipe=replace(TEN_EPOCHS, validation=0.2)).fit(images, labels)

    assert classifier.predict_proba(images[:7]).shape == (7, 3)
    assert classifier.ood_detector_ is not None


def test_evaluating_on_other_classes_is_refused(fitted: ImageClassifier) -> None:
    images, labels = shapes(9)

    with pytest.raises(DataError, match="no class that the model knows: its classes are 9, 10, 11; the model's are 0"):
        fitted.evaluate(images, labels + 9)
    with pytest.raises(DataError, match="no class that the model knows: its classes are bar, dot, edge; the model's"):
        fitted.evaluate(LabelledImages(images, labels, CLASSES))


def test_a_chosen_batch_size_above_the_number_of_images_is_an_error() -> None:
    images, labels = shapes(30)

    with pytest.raises(UsageError, match=r"batch_size must be at most 30, .* got 64"):
        ImageClassifier(recipe=find_recipe("tutorial", batch_size=64)).fit(images, labels)


def test_a_class_of_one_image_trains_and_is_named_as_not_validated() -> None:
    images, labels = shapes(31)
    labels[30] = 3

    clf = ImageClassifier(recipe=replace(quick_recipe(), validation=0.1)).fit(images, labels)

    assert 30 in clf.split_.train and clf.classes_.tolist() == [0, 1, 2, 3]
    (text,) = (note for note in clf.notes_ if note.startswith("no validation images of "))
    assert text.endswith("3: too few images, or all in one group")


def test_nothing_to_hold_out_is_refused() -> None:
    images, labels = shapes(3)

    with pytest.raises(DataError, match=r"no image can be held out: each class has one image.*--set validation=0"):
        ImageClassifier(recipe=replace(quick_recipe(), validation=0.1)).fit(images, labels)


def test_the_split_can_stay_while_the_seed_changes() -> None:
    images, labels = shapes(60)
    recipe = replace(quick_recipe(1), validation=0.2)

    one, other = (ImageClassifier(recipe=recipe, seed=seed, split_seed=7).fit(images, labels) for seed in (0, 1))

    assert np.array_equal(one.split_.validation, other.split_.validation)
    assert one.history_[0].loss != other.history_[0].loss


@pytest.mark.parametrize(
    ("names", "flip", "hinted"),
    [
        (["0", "1", "2"], True, True),
        (["A", "B", "C"], True, True),
        (["left shoe", "Right_shoe", "bag"], True, True),
        (["leftover", "bright", "bag"], True, False),
        (["0", "1", "twelve"], True, False),
        (["0", "1", "2"], False, False),
    ],
)
def test_a_hint_where_a_mirror_image_may_be_another_thing(names: list[str], flip: bool, hinted: bool) -> None:
    images, labels = shapes(30)

    clf = ImageClassifier(recipe=replace(quick_recipe(1), flip=flip)).fit(images, np.array(names)[labels])

    assert any("flip=no" in note for note in clf.notes_) is hinted


def test_mirror_images_are_averaged_inside_the_model_file() -> None:
    images, labels = shapes(60)
    recipe = replace(quick_recipe(), flip=True)
    plain = ImageClassifier(recipe=recipe).fit(images, labels)
    averaged = ImageClassifier(recipe=replace(recipe, flip_tta=True)).fit(images, labels)

    assert all(
        torch.equal(a, b) for a, b in zip(plain.network_.parameters(), averaged.network_.parameters(), strict=True)
    )
    assert np.allclose(averaged.predict_proba(images), averaged.predict_proba(images[:, :, ::-1]), atol=1e-6)
    logs = [np.log(plain.predict_proba(each)) for each in (images, images[:, :, ::-1])]
    mean = np.exp((logs[0] + logs[1]) / 2)
    assert np.allclose(averaged.predict_proba(images), mean / mean.sum(1, keepdims=True), atol=1e-5)


def test_evaluate_reads_deep_pixels_on_the_scale_of_the_training_images_as_predict_does() -> None:
    images, labels = shapes(90)
    deep = images.astype(np.uint16) * 16 + 100
    classifier = ImageClassifier(recipe=TEN_EPOCHS).fit(deep, labels)
    dark = np.minimum(deep[:30], 1200)  # alone, their range of values would be another scale

    expected = metrics.evaluate(classifier.predict_proba(dark), labels[:30], classifier.class_names_)

    assert classifier.evaluate(dark, labels[:30]).loss == pytest.approx(expected.loss, rel=1e-4)


# --- what fit is given ---------------------------------------------------------------------------------------------


def trained(
    X: Any, y: Any = None, sample_weight: Any = None, validation_data: Any = None, **settings: Any
) -> ImageClassifier:
    """A classifier trained without an export."""
    classifier = ImageClassifier(recipe=settings.pop("recipe", "quick"), **settings)
    for _ in classifier.fit_epochs(X, y, sample_weight=sample_weight, validation_data=validation_data):
        pass
    return classifier


def weights_of(classifier: ImageClassifier) -> np.ndarray:
    return torch.cat([each.detach().flatten() for each in classifier.network_.parameters()]).numpy()


def test_settings_that_are_given_are_kept() -> None:
    images, labels = shapes(400)
    for classifier in (
        trained(images, labels, recipe="quick", epochs=8, batch_size=64),
        trained(images, labels, recipe="quick", settings={"epochs": 8, "batch_size": 64}),
    ):
        assert (classifier.recipe_.epochs, classifier.recipe_.batch_size) == (8, 64)
        assert classifier.notes_ == []
    given = {"learning_rate": 0.01, "validation": 0.2, "patience": 2, "balance": "sampling"}
    classifier = trained(images, labels, epochs=1, **given)
    assert {name: getattr(classifier.recipe_, name) for name in given} == given
    assert len(classifier.split_.validation) == 81  # 27 of each class


def test_every_parameter_is_cloned_searched_and_settable() -> None:
    settings: dict[str, Any] = {
        "recipe": "quick", "model": None, "epochs": 2, "seed": None, "device": "cpu", "split_seed": 3, "batch_size": 8,
        "learning_rate": 0.01, "validation": 0.2, "patience": 1, "balance": None, "class_weight": {0: 2.0},
        "settings": {"weight_decay": 0.01}, "loss": torch.nn.functional.cross_entropy, "augment": None,
        "random_state": 5, "verbose": 0, "folds": None,
    }  # fmt: skip
    classifier = ImageClassifier(**settings)

    assert clone(classifier).get_params() == classifier.get_params() == settings
    images, labels = shapes(60)
    grid = {"net__batch_size": [8], "net__settings": [{"flip": False}, {"weight_decay": np.float64(0.1)}]}
    search = GridSearchCV(Pipeline([("net", ImageClassifier("quick", epochs=1))]), grid, cv=2).fit(images, labels)
    assert not np.isnan(search.cv_results_["mean_test_score"]).any()
    assert search.best_estimator_.set_params(net__epochs=2)["net"].epochs == 2


def test_random_state_is_the_seed() -> None:
    images, labels = shapes(60)
    one, same, other = (
        weights_of(trained(images, labels, epochs=1, **seed))
        for seed in ({"random_state": np.int64(4)}, {"seed": 4}, {})  # type: ignore[dict-item]
    )

    assert (one == same).all()
    assert (one != other).any()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"seed": 1, "random_state": 2}, "the seed was given twice: 1 and 2"),
        ({"random_state": np.random.RandomState(0)}, "random_state must be a whole number"),
        ({"epochs": 3, "settings": {"epochs": 4}}, "epochs was given twice: 3 and 4"),
        ({"settings": {"learning_rte": 1}}, "did you mean 'learning_rate'"),
        ({"settings": ["flip=no"]}, "settings must be a dict"),
        ({"epochs": 2.5}, "epochs must be a whole number, got 2.5"),
        ({"class_weight": "auto"}, "class_weight must be 'balanced', a dict or None"),
        ({"class_weight": "balanced", "balance": "off"}, "contradict each other"),
        ({"class_weight": {7: 1.0}}, "unknown class in class_weight '7'"),
        ({"class_weight": {0: -1.0}}, "at least 0"),
        ({"loss": nn.CrossEntropyLoss(), "class_weight": "balanced"}, "cannot be weighted or pruned"),
        ({"loss": "mse"}, "loss must be a function"),
        ({"augment": "flip"}, "augment must be a function"),
        ({"recipe": None}, "recipe must be a name or a Recipe"),
        ({"verbose": 3}, "verbose must be 0, 1 or 2"),
    ],
)
def test_a_wrong_parameter_is_a_value_error_before_training(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ImageClassifier(**{"recipe": "quick", **settings}).fit(*shapes(30))


def test_a_classifier_predicts_pictures_in_every_form(fitted: ImageClassifier, tmp_path: Path) -> None:
    images, _ = shapes(12, seed=5)
    paths = [tmp_path / f"{number}.png" for number in range(12)]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    forms = [
        paths, pandas.Series(map(str, paths)), iter(paths), [path.read_bytes() for path in paths],
        [Image.open(path) for path in paths], images[:, None], torch.from_numpy(images[:, None]) / 255,
    ]  # fmt: skip

    for form in forms:
        np.testing.assert_array_equal(fitted.predict(form), fitted.predict(images))
    with pytest.warns(hangtag.HangtagWarning, match="missing.png: no such file"):
        labels = fitted.predict([paths[0], "missing.png"])

    assert labels.tolist() == [fitted.predict(images)[0], None]
    assert len(fitted.predict([])) == 0
    for one in (paths[0], Image.fromarray(images[0])):
        with pytest.raises(PictureError, match=r"put it into a list"):
            fitted.predict(one)


def test_labels_in_one_column_are_labels() -> None:
    images, labels = shapes(30)
    column = np.array(["a", "b", "c"])[labels][:, None]

    classifier = ImageClassifier(recipe=quick_recipe()).fit(images, column)

    assert classifier.classes_.tolist() == ["a", "b", "c"]
    assert classifier.score(images, column) == classifier.score(images, column[:, 0])
    assert classifier.evaluate(images, column).accuracy == classifier.score(images, column)


def test_labels_beside_labelled_images_must_be_theirs() -> None:
    images, labels = shapes(30)
    data = hangtag.read((images, labels))

    classifier = ImageClassifier(recipe=quick_recipe()).fit(data, labels)

    for call in (classifier.evaluate, classifier.fit):
        with pytest.raises(DataError, match="has labels already, and others were given"):
            call(data, labels[::-1])


@pytest.mark.parametrize("name", ["network_", "shipped_"])
def test_the_network_before_fit_is_not_fitted(name: str) -> None:
    with pytest.raises(NotFittedError):
        getattr(ImageClassifier(), name)


@pytest.mark.parametrize("device", [0, "gpu", None])
def test_an_unknown_device_is_refused(device: Any) -> None:
    with pytest.raises(UnknownName, match=f"unknown device '{device}'"):
        ImageClassifier(device=device).fit(*shapes(30))


def test_a_warning_is_about_the_line_that_called_hangtag(fitted: ImageClassifier) -> None:
    for call in (fitted.predict, fitted.predict_proba, fitted.predictor_.predict, fitted.predictor_.predict_proba):
        with pytest.warns(HangtagWarning, match="1 picture of 1 cannot be read") as caught:
            call([b"no picture"])
        assert [warning.filename for warning in caught] == [__file__]


def test_what_a_fitted_classifier_holds_is_shown_in_few_words(fitted: ImageClassifier) -> None:
    values = [*fitted.history_, fitted.split_, fitted.ood_detector_, fitted.neighbours(), fitted.guarantees_]
    values += [fitted.recipe_, fitted.metadata()]
    assert repr(find_recipe("fast", learning_rate=0.5)).endswith(" epochs, learning_rate=0.5>")

    assert all(len(repr(value)) < 200 for value in values)
    assert repr(fitted.history_[0]).startswith("<Epoch  1/10 ")


def test_sample_weights_count_relative_to_each_other_and_0_leaves_out() -> None:
    images, labels = shapes(90)
    wrong = labels.copy()
    wrong[::2] = (labels[::2] + 1) % 3
    keep = np.arange(90) % 2

    plain, equal, kept, tenfold = (
        trained(images, wrong, weights, epochs=20, validation=0.0)
        for weights in (None, np.full(90, 7), keep, keep * 10.0)
    )

    assert (weights_of(plain) == weights_of(equal)).all()
    assert (weights_of(kept) == weights_of(tenfold)).all()
    assert len(kept.split_.train) == 45
    assert kept.history_[-1].accuracy > 0.95 > plain.history_[-1].accuracy
    leaning = trained(images, wrong, np.where(keep, 1.0, 0.01), epochs=20, validation=0.0)
    assert len(leaning.split_.train) == 90
    assert leaning.score(images, labels) > 0.95


@pytest.mark.parametrize("weights", [np.ones(3), -np.ones(30), ["a"] * 30, np.zeros(30), np.full(30, np.nan)], ids=str)
def test_weights_that_cannot_be_used_are_refused(weights: Any) -> None:
    with pytest.raises(DataError, match="weight"):
        ImageClassifier("quick").fit(*shapes(30), sample_weight=weights)


def test_classes_are_not_weighted_on_top_of_sample_weights() -> None:
    images, labels = shapes(120)
    kept = np.flatnonzero((labels > 0) | (np.arange(120) < 20))
    weights = np.where(labels[kept] == 0, 5.0, 1.0)

    assert trained(images[kept], labels[kept], epochs=1).recipe_.balance == "weights"
    assert trained(images[kept], labels[kept], weights, epochs=1).recipe_.balance == "off"
    assert trained(images[kept], labels[kept], weights, epochs=1, balance="weights").recipe_.balance == "weights"


def test_a_pickled_classifier_has_no_training_images(fitted: ImageClassifier) -> None:
    with pytest.raises(RunError, match="a classifier that was pickled has no training images"):
        pickle.loads(pickle.dumps(fitted)).neighbours()


def test_even_classes_are_not_called_imbalanced() -> None:
    assert not any("imbalanced" in note for note in trained(*shapes(90), epochs=1, class_weight="balanced").notes_)


def test_class_weights_have_scikit_learns_meaning() -> None:
    images, labels = shapes(90)
    names = np.array(["bar", "dot", "edge"])[labels]
    by_class = trained(images, names, epochs=2, class_weight={"bar": 3.0, "dot": 0.5})

    by_image = trained(images, names, np.array([3.0, 0.5, 1.0])[labels], epochs=2, balance="off")

    assert (weights_of(by_class) == weights_of(by_image)).all()
    assert trained(images, names, epochs=1, class_weight="balanced").recipe_.balance == "weights"
    assert len(trained(images, names, epochs=1, class_weight={"bar": 0}, validation=0.0).split_.train) == 60


@pytest.mark.parametrize(
    "form", [np.asarray, list, pandas.Series, lambda y: np.asarray(y, object), lambda y: y[:, None]]
)
def test_after_fitting_labelled_images_labels_may_be_positions_or_names(form: Callable[[Any], Any]) -> None:
    images, labels = shapes(60)
    others, truth = shapes(30, seed=5)
    names = np.array(["1", "2", "3"])
    classifier = trained(LabelledImages(images, labels, tuple(names)), epochs=20)

    positions, named = (classifier.evaluate(others, form(each)) for each in (truth, names[truth]))

    assert positions.accuracy == named.accuracy > 0.9 and named.strangers is None
    with pytest.raises(DataError, match="label 3 is not a position from 0 to 2, but the name of a class"):
        classifier.evaluate(others, form(truth + 1))


def test_validation_labels_in_one_column_are_labels() -> None:
    images, labels = shapes(60)
    column = trained(images, labels[:, None], epochs=1, validation_data=(images, labels[:, None]))

    assert (
        column.predict(images) == trained(images, labels, epochs=1, validation_data=(images, labels)).predict(images)
    ).all()


def test_validation_data_are_held_out_instead_of_a_part_of_the_images() -> None:
    images, labels = shapes(60)
    others, truth = shapes(30, seed=5)
    for X, y, held_out in (
        (images, labels, (others, truth)),
        (images, labels, LabelledImages(others, truth, ("0", "1", "2"))),
        (LabelledImages(images, labels, CLASSES), None, LabelledImages(others, 2 - truth, CLASSES[::-1])),
    ):
        classifier = trained(X, y, validation_data=held_out, epochs=20)

        assert (len(classifier.split_.train), len(classifier.split_.validation)) == (60, 30)
        assert (classifier.history_[-1].val_accuracy or 0) > 0.9
    assert classifier.metadata().data["images"] == 60


@pytest.mark.parametrize(
    ("held_out", "settings", "says"),
    [
        (shapes(9)[0], {}, r"must be \(images, labels\)"),
        ((shapes(9)[0], [0] * 8), {}, "9 images but labels of shape"),
        ((shapes(9)[0], [7] * 9), {}, "classes that the training images lack: 7"),
        ((shapes(9)[0][:, :5], [1] * 9), {}, "must have images of shape"),
        (shapes(9), {"validation": 0.2}, "contradict each other"),
    ],
)
def test_validation_data_that_cannot_be_used_are_refused(held_out: Any, settings: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ImageClassifier("quick", **settings).fit(*shapes(30), validation_data=held_out)


def test_a_history_becomes_a_data_frame_and_a_summary_a_table(fitted: ImageClassifier) -> None:
    frame = pandas.DataFrame(fitted.history_)

    assert frame["number"].tolist() == list(range(1, 11))
    assert frame["loss"].iloc[-1] < frame["loss"].iloc[0]
    assert fitted.summary().parameters == 64 * 128 + 128 + 128 * 3 + 3
    assert "hidden   Linear   128     8,320" in str(fitted.summary())


# --- errors of the field -------------------------------------------------------------------------------------------


def test_before_fit_everything_raises_not_fitted_error(tmp_path: Path) -> None:
    classifier, images = ImageClassifier("quick"), shapes(3)[0]
    asked: list[Callable[[], Any]] = [
        lambda: classifier.predict(images), lambda: classifier.predict_proba(images),
        lambda: classifier.score(images, [0, 1, 2]), lambda: classifier.evaluate(images, [0, 1, 2]),
        lambda: classifier.save(tmp_path / "x.onnx"), classifier.to_bytes, classifier.neighbours, classifier.summary,
        classifier.metadata, lambda: classifier.guarantees_, lambda: classifier.ood_detector_,
        lambda: check_is_fitted(classifier),
    ]  # fmt: skip
    for each in asked:
        with pytest.raises(NotFittedError):
            each()
    assert not hasattr(classifier, "predictor_")


def test_after_a_failed_fit_no_earlier_model_answers() -> None:
    images, labels = shapes(30)
    classifier = ImageClassifier("quick", epochs=1)
    for wrong in ({"epochs": -1}, {"learning_rate": 1e30}, {"model": "no such"}):
        classifier.set_params(model=None, epochs=1, learning_rate=None).fit(images, labels)
        with pytest.raises(HangtagError):
            classifier.set_params(**wrong).fit(images, labels)
        with pytest.raises(NotFittedError, match="the last call of fit failed"):
            classifier.predict(images)
        with pytest.raises(NotFittedError):
            pickle.loads(pickle.dumps(classifier)).predict(images)


@pytest.mark.parametrize("channels", [0, 1, 3, 4])
def test_one_picture_is_refused_with_the_cure(fitted: ImageClassifier, channels: int) -> None:
    picture = shapes(1)[0][0] if not channels else np.repeat(shapes(1)[0][0][..., None], channels, axis=-1)
    asked: list[Callable[[Any], Any]] = [
        fitted.predict, fitted.predict_proba, lambda X: fitted.score(X, [0]), lambda X: fitted.evaluate(X, [0]),
        lambda X: ImageClassifier("quick").fit(X, [0]),
    ]  # fmt: skip
    for each in asked:
        for form in (picture, list(picture), torch.from_numpy(picture)):
            with pytest.raises(PictureError, match=r"give images\[None\]"):
                each(form)
    if channels != 4:
        assert fitted.predict(picture[None] if channels < 2 else picture[None, ..., :1]).shape == (1,)


def test_many_narrow_images_are_not_one_picture() -> None:
    images, labels = shapes(90)
    narrow = ImageClassifier("quick", epochs=1).fit(images[:, :, :3], labels)

    assert narrow.predict(images[:, :, :3]).shape == (90,)
    assert narrow.evaluate(images[:, :, :3], labels).images == 90


def test_notes_go_to_the_logger(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="hangtag"):
        classifier = trained(*shapes(30), epochs=1)

    assert [each.message for each in caplog.records] == classifier.notes_ != []
