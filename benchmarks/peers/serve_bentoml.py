"""BentoML serving a model.onnx, batched. usage: MODEL=model.onnx bentoml serve serve_bentoml:Service --port PORT"""

import json
import os

import bentoml
import numpy as np
import onnxruntime
from PIL.Image import Image


@bentoml.service(workers=1, traffic={"timeout": 60, "max_concurrency": 1000})
class Service:
    def __init__(self):
        self.session = onnxruntime.InferenceSession(os.environ["MODEL"], providers=["CPUExecutionProvider"])
        metadata = json.loads(self.session.get_modelmeta().custom_metadata_map["hangtag"])
        self.names, self.mode = metadata["class_names"], "L" if metadata["image"]["channels"] == 1 else "RGB"

    @bentoml.api(batchable=True, max_batch_size=64, max_latency_ms=10_000, route="/predict")
    def predict(self, images: list[Image]) -> list[dict]:
        x = np.stack([np.asarray(image.convert(self.mode)) for image in images])
        rows = self.session.run(["probabilities"], {"images": x})[0]
        return [{"label": self.names[int(row.argmax())], "probability": float(row.max())} for row in rows]
