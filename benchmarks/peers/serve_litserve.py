"""LitServe serving a model.onnx, batched. usage: serve_litserve.py MODEL PORT WORKERS

Pictures come as base64 in JSON, as in its documentation.
"""

import base64
import io
import json
import sys

import litserve
import numpy as np
import onnxruntime
from PIL import Image


class Api(litserve.LitAPI):
    def setup(self, device):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 2 // int(sys.argv[3])
        self.session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
        metadata = json.loads(self.session.get_modelmeta().custom_metadata_map["hangtag"])
        self.names, self.mode = metadata["class_names"], "L" if metadata["image"]["channels"] == 1 else "RGB"

    def decode_request(self, request):
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(request["image"]))).convert(self.mode))

    def batch(self, inputs):
        return np.stack(inputs)

    def predict(self, x):
        return self.session.run(["probabilities"], {"images": x})[0]

    def unbatch(self, output):
        return list(output)

    def encode_response(self, output):
        best = int(output.argmax())
        return {"label": self.names[best], "probability": float(output[best])}


if __name__ == "__main__":
    api = Api(max_batch_size=64, batch_timeout=0.002)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=int(sys.argv[3]))
    server.run(host="127.0.0.1", port=int(sys.argv[2]), log_level="warning", generate_client_file=False)
