"""`hangtag evaluate`, `compare`, `stress` and `check`."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import hangtag as package
from hangtag.errors import RunError, UsageError
from hangtag.evaluation.judge import judge, read_again
from hangtag.evaluation.run_folder import Run


def test_compare_evaluates_both_on_the_same_images(in_trained: Any, trained: Path) -> None:
    said = in_trained("compare", "runs/a", "runs/b", "--json").json

    assert said["names"] == ["a", "b"] and said["images"] == 120
    assert said["both_right"] + said["only_first"] + said["only_second"] + said["both_wrong"] == 120
    assert "95% interval" in (trained / "comparison.html").read_text()
    config = json.loads((trained / "runs" / "a" / "config.json").read_text())
    assert len(config["test_opened"]) >= 2


def test_evaluating_cached_images_imports_neither_pillow_nor_other_slow_modules(trained: Path) -> None:
    program = (
        "import sys; from hangtag.cli import main\n"
        "try: sys.argv = ['hangtag', 'evaluate', 'runs/a']; main.main()\n"
        "except SystemExit: pass\n"
        "slow = {'PIL', 'rich', 'pydantic', 'torch', 'sklearn', 'numpy.ma', 'importlib.metadata', 'tomllib'}\n"
        "slow |= {'hangtag.evaluation.tuning_results'}\n"
        "print(sorted(slow & set(sys.modules)), file=sys.stderr)"
    )
    for _ in ("reads the images", "finds them in the cache"):
        done = subprocess.run([sys.executable, "-c", program], cwd=trained, capture_output=True, text=True, check=True)

    assert "test accuracy" in done.stdout and done.stderr.splitlines()[-1] == "[]"


def test_evaluating_a_run_on_a_public_set_imports_nothing_that_reads_files() -> None:
    program = (
        "import sys, hangtag.cli.evaluate, hangtag.evaluation.judge as judge\n"
        "data = judge._read('digits', None, {})\n"
        "unused = ('read', 'manifest', 'tables', 'near_duplicates', 'store.containers', 'store.pool')\n"
        "print(data.name, [name for name in unused if f'hangtag.data.{name}' in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert (done.stdout, done.stderr) == ("digits []\n", "")


def test_classes_in_another_order_or_spelling_are_the_same_classes(trained: Path) -> None:
    run = Run(trained / "runs" / "b")
    data = read_again(run)
    names = tuple(f"{name}\u200b " for name in reversed(data.class_names))
    turned = replace(data, labels=len(names) - 1 - data.labels, class_names=names)

    assert judge(run, turned).to_json()["confusion"] == judge(run, data).to_json()["confusion"]


def test_compare_refuses_other_images_and_other_classes(in_trained: Any, trained: Path, photos: Path) -> None:
    photos.replace(trained / "photos")
    assert in_trained("train", "photos", "--recipe", "quick", "--epochs", "1", "--out", "runs/c").code == 0

    other = in_trained("compare", "runs/a", "runs/c")

    assert other.code == 2 and "have different classes" in other.err
    assert in_trained("compare", "runs/a", "runs/nowhere").code == 1


def test_stress_breaks_the_model_and_adds_it_to_the_report(in_trained: Any, trained: Path) -> None:
    shown = in_trained("stress", "runs/a", "--images", "30")

    assert shown.code == 0, shown.err
    assert "inversion" in shown.out and "over all corruptions" in shown.out
    assert "Corrupted images" in (trained / "runs" / "a" / "report.html").read_text()
    said = in_trained("stress", "runs/a", "drawn", "--images", "20", "--json").json
    assert len(said["cells"]) == 75 and said["clean"]["accuracy"] > 0.5


def test_check_names_the_images_that_changed_and_fails(in_trained: Any, trained: Path) -> None:
    kept = in_trained("check", "runs/a", "drawn/test")
    wrong = trained / "wrong" / "dot"
    wrong.mkdir(parents=True)
    (wrong / "240.png").write_bytes((trained / "drawn/test/bar/240.png").read_bytes())
    (wrong / "text.png").write_text("no picture")
    (wrong / ".DS_Store").write_text("junk")
    broken = in_trained("check", "runs/a", "wrong")

    assert kept.code == 0 and "120 of 120 images have the expected label" in kept.out
    assert broken.code == 1
    assert broken.out.splitlines()[0].startswith("dot/240.png: must be dot, got bar ")
    assert "dot/text.png: must be dot, but cannot be classified: not an image" in broken.out
    assert "0 of 2 images have the expected label" in broken.out
    assert in_trained("check", "runs/a", "wrong", "--json").json["kept"] is False


def test_json_on_one_image_is_strict_json(in_trained: Any, trained: Path) -> None:
    for name in ("dot", "unknown"):
        (trained / "one" / name).mkdir(parents=True)
        shutil.copy(trained / "drawn/test/dot/241.png", trained / "one" / name)

    compared = in_trained("compare", "runs/a", "runs/b", "one", "--json").out
    evaluated = in_trained("evaluate", "runs/a", "one", "--json").out

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    found = json.loads(compared, parse_constant=refuse)
    assert found["images"] == 1 and found["loss_interval"] is None and "one image" in found["notes"][0]
    assert "Loss of b minus loss of a" in (trained / "comparison.html").read_text()
    assert json.loads(evaluated, parse_constant=refuse)["images"] == 1


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        (("check", "runs/a", "nowhere"), 1, "nowhere: no such folder"),
        (("stress", "runs/a", "--group-by", "x"), 2, "--group-by: not possible with the run's own data"),
        (("compare", "runs/a", "runs/b", "--size", "9"), 2, "--size: not possible with the run's own data"),
        (("evaluate", "runs/a", "--size", "64"), 2, "--size: not possible with the run's own data"),
        (
            ("evaluate", "runs/a", "--strict", "--grey"),
            2,
            "--colour/--grey, --strict: not possible with the run's own data",
        ),
        (("evaluate", "runs/a", "drawn", "--size", "9"), 2, "--size: images are read in the size and colours that the"),
        (
            ("compare", "runs/a", "runs/b", "drawn", "--colour"),
            2,
            "--colour/--grey: images are read in the size and colours",
        ),
        (("evaluate", "runs/a", "drawn", "--group-by", "(.)"), 2, "--group-by: this command does not use groups"),
        (("audit", "drawn", "--no-labels", "--seed", "1"), 2, "--seed: has no effect with --no-labels"),
        (("audit", "drawn", "--device", "gpu"), 2, "unknown device 'gpu'"),
        (("data", "drawn", "--first", "3"), 2, "--first: says what to export"),
        (("check", "runs/a", "runs/a/figures"), 1, "no images in this folder"),
        (("check", "runs/a", "drawn"), 2, "unknown class in drawn: 'test'"),
        (("predict", "runs/a", "x.png", "--coverage", "1"), 2, "coverage must be above 0 and below 1, got 1"),
        (
            ("predict", "runs/a", "x.png", "--target-accuracy", "0.5"),
            2,
            "choose one of 0.9, 0.95, 0.98, 0.99, 0.995, 0.999",
        ),
        (("predict", "runs/a", "x.png", "--cost", "0"), 2, "cost must be above 1, got 0"),
        (("predict", "runs/a", "x.png", "--set-method", "rap"), 2, "did you mean 'raps'"),
    ],
)
def test_an_impossible_request_is_one_line(in_trained: Any, command: tuple[str, ...], code: int, says: str) -> None:
    shown = in_trained(*command)

    assert shown.code == code and says in shown.err
    assert shown.err.count("\n") == 1


def test_decisions_give_the_score_before_and_after_them(in_trained: Any, trained: Path) -> None:
    (trained / "mine.csv").write_text("name,decision\ntest/dot/241.png,relabel: bar\n")

    both = in_trained("evaluate", "runs/a", "--decisions", "mine.csv", "--json")

    assert both.code == 0, both.err
    assert both.json["before_decisions"]["accuracy"] >= both.json["cleaned"]["accuracy"]
    again = in_trained(
        "train", "drawn", "--decisions", "mine.csv", "--recipe", "quick", "--epochs", "1", "--out", "runs/d", "--json"
    )
    assert again.json["before_decisions"]["images"] == again.json["images"] == 120
    assert "before your decisions" in (trained / "runs" / "d" / "report.html").read_text()


def test_evaluate_on_fewer_and_on_more_classes(in_trained: Any, trained: Path) -> None:
    for target, source in (("fewer/bar", "bar"), ("fewer/dot", "dot"), ("more/bar", "bar"), ("more/ring", "dot")):
        shutil.copytree(trained / "drawn/test" / source, trained / target)

    fewer = in_trained("evaluate", "runs/a", "fewer", "--page", "fewer.html")
    more = in_trained("evaluate", "runs/a", "more")
    said = in_trained("evaluate", "runs/a", "more", "--json").json
    both = in_trained("compare", "runs/a", "runs/b", "more")

    assert fewer.code == 0 and "wrote fewer.html" in fewer.out, fewer.err
    assert "80 images" in fewer.out.splitlines()[0] and "not counted" not in fewer.out
    assert "not the data of this run" in (trained / "fewer.html").read_text()
    assert "not counted: 40 images of classes that the model does not know: ring (40)" in more.out
    assert said["images"] == 40 and said["strangers"]["images"] == 40
    assert [row["images"] for row in said["classes"]] == [40, 0, 0]
    assert both.code == 0 and "note: left out: 40 images of classes" in both.out, both.err
    nowhere = in_trained("evaluate", "runs/a", "--page", "x.html")
    assert nowhere.code == 2 and "--page needs a dataset" in nowhere.err


# --- the same in Python --------------------------------------------------------------------------------------------


def test_runs_are_judged_compared_stressed_and_checked_in_python(
    in_trained: Any, trained: Path, tmp_path: Path
) -> None:
    run = package.find_run("a")
    drawn = package.read("drawn")

    judged = package.evaluate(run)
    compared = package.compare(run, "runs/b")
    by_models = package.compare(package.load(run), package.load("runs/b"), drawn)
    stressed = package.stress("a", images=20)
    checked = package.check(run, trained / "drawn/test")
    audited = package.audit("drawn", labels=False)

    printed = in_trained("compare", "a", "b", "--out", str(tmp_path / "page.html"), "--json").json
    assert {**json.loads(json.dumps(compared.to_json())), "page": printed["page"]} == printed
    assert (by_models.p, by_models.accuracies) == (compared.p, compared.accuracies)
    assert judged.data.class_names == ("bar", "dot", "edge") and judged.evaluation.images == 120
    assert package.evaluate("a", "drawn").evaluation == package.evaluate(package.load(run), drawn).evaluation
    assert package.stress(run, drawn, images=20) == stressed
    assert checked.pictures == 120 and checked.kept != bool(checked.broken)
    assert len(audited.findings) == len(audited.to_json()["findings"])
    assert "only 3 of the" in replace(judged, notes=("only 3 of the <b> images",))._repr_html_()
    assert repr(run) == f"<Run {run.path}>" and str(run) == str(run.path)
    assert len(repr(judged.guarantees)) < 200 and max(len(repr(each)) for each in audited.findings) < 300
    for result in (judged, compared, stressed, checked, audited, run, judged.evaluation):
        assert len(repr(result)) < 300
        assert result._repr_html_().startswith('<div class="hangtag-view">')
        assert len(result._repr_html_()) < 40_000
    assert '<a href="runs/a/report.html"' in run._repr_html_()
    assert run._repr_html_().count("<polyline") == 4


def test_a_model_without_data_is_refused(in_trained: Any) -> None:
    for model in (package.load("runs/a"), "runs/a/model.onnx"):
        with pytest.raises(UsageError, match="a model alone does not know its data"):
            package.evaluate(model)
    with pytest.raises(RunError, match="nothing: no such run"):
        package.stress("nothing")


def test_the_notebook_view_of_a_damaged_run_says_what_is_known(tmp_path: Path) -> None:
    (tmp_path / "<i>run").mkdir()
    (tmp_path / "<i>run" / "config.json").write_text("nonsense")

    assert "&lt;i&gt;run" in package.Run(tmp_path / "<i>run")._repr_html_()
