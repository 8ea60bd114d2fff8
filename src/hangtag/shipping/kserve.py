"""InferenceServices for KServe: the model on KServe's Triton runtime, or `hangtag serve` in a container."""

import json
import re
from typing import Any

from hangtag.errors import UsageError
from hangtag.shipping.container import USER
from hangtag.shipping.parcel import Files, Parcel, Shipped
from hangtag.shipping.triton import repository

__all__ = ["IMAGE", "STORAGE", "ship"]

STORAGE, IMAGE = "s3://BUCKET/FOLDER", "REGISTRY/IMAGE:TAG"
"""What stands in the files until the user says where the model and the image are."""

_PORT = 8080  # where KServe expects a custom container
_RESOURCES = {"requests": {"cpu": "500m", "memory": "512Mi"}, "limits": {"cpu": "2", "memory": "2Gi"}}


def ship(parcel: Parcel, storage_uri: str | None, image: str | None) -> Shipped:
    """The model as a Triton repository, to be uploaded to the storage, and an InferenceService of each kind.

    Raises:
        UsageError: the storage is not a URI.
    """
    if storage_uri is not None and not re.match(r"[a-z][a-z0-9+.-]*://.", storage_uri):
        raise UsageError(f"the storage must be a URI, got '{storage_uri}'", f"for example {STORAGE}")
    storage, image = storage_uri or STORAGE, image or IMAGE
    files: Files = {f"models/{path}": content for path, content in repository(parcel).items()}
    files["inference-service.yaml"] = _yaml(_service(parcel.name, {"model": _triton(storage)}), _TRITON)
    container = {"containers": [_container(parcel, image)], "volumes": [{"name": "tmp", "emptyDir": {}}]}
    files["inference-service-hangtag.yaml"] = _yaml(_service(f"{parcel.name}-hangtag", container), _CUSTOM)
    return Shipped(
        files,
        (
            f"upload the content of {{folder}}/models to {storage}",
            "kubectl apply -f {folder}/inference-service.yaml",
            f"kubectl wait --for=condition=Ready inferenceservice/{parcel.name}",
        ),
    )


_TRITON = """# The model on KServe's Triton runtime. storageUri holds the content of the folder models/.
# Check the file before it is used: kubectl apply --dry-run=server -f inference-service.yaml
"""
_CUSTOM = """# `hangtag serve` in an image of `hangtag ship --to docker`: pictures in, answers with prediction sets out,
# at /predict and by the Open Inference Protocol. The token is a secret:
#   kubectl create secret generic hangtag-token --from-literal=token="$(openssl rand -hex 32)"
"""


def _service(name: str, predictor: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name},
        "spec": {"predictor": {"minReplicas": 1, **predictor}},
    }


def _triton(storage: str) -> dict[str, Any]:
    return {
        "modelFormat": {"name": "onnx"},
        "protocolVersion": "v2",
        "runtime": "kserve-tritonserver",
        "storageUri": storage,
        "resources": _RESOURCES,
    }


def _container(parcel: Parcel, image: str) -> dict[str, Any]:
    probe = {"httpGet": {"port": _PORT}, "periodSeconds": 5, "timeoutSeconds": 3}
    where = f"/models/{parcel.name}.onnx"
    return {
        "name": "kserve-container",
        "image": image,
        "command": ["/opt/hangtag/bin/hangtag", "serve", where],
        "args": ["--host", "0.0.0.0", "--port", str(_PORT), "--allow-host", "*"],
        "env": [{"name": "HANGTAG_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hangtag-token", "key": "token"}}}],
        "ports": [{"containerPort": _PORT, "protocol": "TCP"}],
        "readinessProbe": {**probe, "httpGet": {"path": "/v2/health/ready", "port": _PORT}},
        "livenessProbe": {**probe, "httpGet": {"path": "/v2/health/live", "port": _PORT}, "failureThreshold": 6},
        "resources": _RESOURCES,
        "securityContext": {
            "runAsNonRoot": True, "runAsUser": USER, "runAsGroup": USER, "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }  # fmt: skip


def _yaml(value: Any, comment: str) -> bytes:
    return (comment + "\n".join(_lines(value)) + "\n").encode()


def _lines(value: Any) -> list[str]:
    """YAML of objects and lists that are not empty; strings are written as in JSON, which YAML contains."""
    if isinstance(value, dict) and value:
        return [line for key, each in value.items() for line in _entry(f"{key}:", _lines(each), each)]
    if isinstance(value, list) and value:
        return [
            line
            for each in value
            for place, text in enumerate(_lines(each))
            for line in [("- " if place == 0 else "  ") + text]
        ]
    return [json.dumps(value)]


def _entry(key: str, lines: list[str], value: Any) -> list[str]:
    return (
        [key, *(f"  {line}" for line in lines)] if isinstance(value, (dict, list)) and value else [f"{key} {lines[0]}"]
    )
