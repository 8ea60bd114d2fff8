"""slices.py: a planted weakness is found, and without one hardly any group is reported."""

import dataclasses

import numpy as np
from scipy.stats import false_discovery_control, fisher_exact

from hangtag.data.labelled_images import LabelledImages
from hangtag.data.picture_facts import FACTS
from hangtag.evaluation.slices import groupings_of, weak_slices


def pictures(count: int = 2000) -> LabelledImages:
    random = np.random.default_rng(0)
    levels = random.integers(0, 200, count)
    images = (levels[:, None, None] + random.integers(0, 50, (count, 6, 6))).astype(np.uint8)
    facts = np.zeros(count, FACTS)
    facts["height"] = facts["width"] = random.integers(6, 200, count)
    return LabelledImages(images, random.integers(0, 4, count), ("a", "b", "c", "d"), picture_facts=facts)


def test_groups_are_formed_by_class_and_by_image_properties() -> None:
    groupings = groupings_of(pictures(), {"camera": np.arange(2000) % 3})

    assert list(groupings) == ["class", "brightness", "contrast", "size", "camera"]
    assert sorted(set(groupings["brightness"])) == ["bright", "brightest", "dark", "darkest", "middle"]
    counts = np.unique(groupings["brightness"], return_counts=True)[1]
    assert counts.min() > 350
    assert sorted(set(groupings["camera"])) == ["0", "1", "2"]


def test_the_darkest_being_worst_is_found_first() -> None:
    groupings = groupings_of(pictures())
    random = np.random.default_rng(1)
    dark = groupings["brightness"] == "darkest"
    right = random.random(2000) < np.where(dark, 0.75, 0.95)

    found = weak_slices(right, groupings)

    assert (found[0].by, found[0].group) == ("brightness", "darkest")
    assert found[0].interval[0] < found[0].accuracy < found[0].rest
    assert found[0].q < 1e-6


def test_q_is_that_of_fisher_and_of_benjamini_and_hochberg() -> None:
    groupings = {"class": pictures(400).labels.astype(str).astype(object)}
    right = np.random.default_rng(2).random(400) < np.where(groupings["class"] == "2", 0.5, 0.9)

    found = {each.group: each.q for each in weak_slices(right, groupings, rate=1.0)}

    names = sorted(set(groupings["class"]))
    ps = []
    for name in names:
        inside = groupings["class"] == name
        table = [[(inside & ~right).sum(), (inside & right).sum()], [(~inside & ~right).sum(), (~inside & right).sum()]]
        ps.append(fisher_exact(table, alternative="greater").pvalue)
    expected = dict(zip(names, false_discovery_control(ps), strict=True))
    assert found.keys() == expected.keys()
    np.testing.assert_allclose([found[name] for name in names], [expected[name] for name in names], rtol=1e-9)


def test_without_a_weakness_hardly_any_group_is_reported() -> None:
    groupings = groupings_of(pictures())
    random = np.random.default_rng(3)

    reported = sum(len(weak_slices(random.random(2000) < 0.9, groupings)) for _ in range(100))

    assert reported <= 5


def test_no_mistakes_and_tiny_groups_report_nothing() -> None:
    data = pictures(60)
    few = dataclasses.replace(data, picture_facts=None)

    assert weak_slices(np.ones(60, bool), groupings_of(few)) == []
    assert weak_slices(np.zeros(60, bool), {"one": np.array(["x"] * 5 + ["y"] * 55, object)}) == []
