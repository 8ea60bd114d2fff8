"""One page in which the model answers in the browser, without a server and without a network."""

import base64
import gzip
import json
from pathlib import Path
from typing import Any

from markupsafe import Markup

from hangtag.html import render, script
from hangtag.model.artifact import INPUT, OUTPUT, PIXELS
from hangtag.model.conformal import LEVELS
from hangtag.model.guarantees import COVERAGE, LEAST_SURE, OOD_FALSE_POSITIVE_RATE, SURE_ACCURACY, AnswerPolicy
from hangtag.pictures import MAX_PIXELS
from hangtag.shipping.parcel import Parcel, Shipped
from hangtag.shipping.runtime import FILES, PACKAGE, VERSION, runtime_files

__all__ = ["page", "ship"]

_COVERAGES = (0.8, 0.9, 0.95, 0.99)


def ship(parcel: Parcel, runtime: Path | None) -> Shipped:
    """The page as one file; see `runtime.runtime_files` for where the runtime comes from and what can go wrong."""
    return Shipped(
        {"index.html": page(parcel, runtime_files(runtime)).encode("utf-8", "replace")},
        ("open {folder}/index.html in a browser: a double click is enough",),
    )


def page(parcel: Parcel, runtime: dict[str, bytes]) -> str:
    """HTML with the model, the runtime and the program inside, compressed. It works as a file and on any web server."""
    source, digest = script("web.js")
    bundle, wasm = FILES
    parts = {"bundle": runtime[bundle], "wasm": runtime[wasm], "model": parcel.content, "about": _about(parcel)}
    packed = {
        name: Markup(base64.b64encode(gzip.compress(content, 6, mtime=0)).decode()) for name, content in parts.items()
    }
    guarantees, spec = parcel.guarantees, parcel.metadata.image
    return render(
        "web.html",
        {
            "parts": packed, "script": source, "script_hash": digest, "spec": str(spec), "coverages": _COVERAGES,
            "coverage": COVERAGE, "class_names": parcel.metadata.class_names, "fingerprint": parcel.sha256[:12],
            "data": str(parcel.metadata.data.get("name", "")), "limitations": guarantees.limitations,
            "has_sets": guarantees.by("threshold") is not None, "runtime": f"{PACKAGE} {VERSION}",
        },
    )  # fmt: skip


def _about(parcel: Parcel) -> bytes:
    """What the program in the page needs to know of the model, as JSON."""
    guarantees, policy = parcel.guarantees, AnswerPolicy()
    conformal = guarantees.by(policy.method)
    known = dict(zip(guarantees.target_accuracies, guarantees.confidence_thresholds, strict=False))
    spec = parcel.metadata.image
    about: dict[str, Any] = {
        "input": INPUT, "output": OUTPUT, "pixels": PIXELS, "outputs": parcel.deciding,
        "class_names": parcel.metadata.class_names, "fingerprint": parcel.sha256[:12], "most_pixels": MAX_PIXELS,
        "image": {name: getattr(spec, name) for name in ("height", "width", "channels", "background", "fit")},
        "sets": None if conformal is None else {
            "rows": OUTPUT if guarantees.calibrator.method == "none" else "uncalibrated", "images": conformal.images,
            "levels": LEVELS, "thresholds": conformal.thresholds, "fold_scores": conformal.fold_scores,
        },
        "has_ood_score": guarantees.has_ood_score, "most_familiar": 1 - OOD_FALSE_POSITIVE_RATE,
        "held_out": guarantees.held_out, "better_than_chance": guarantees.better_than_chance,
        "confidence": known.get(SURE_ACCURACY), "least_sure": LEAST_SURE,
        "why_not": {str(each): guarantees.why_not(AnswerPolicy(each)) for each in _COVERAGES},
    }  # fmt: skip
    return json.dumps(about).encode()
