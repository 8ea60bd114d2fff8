"""The usual handler: FastAPI, Pillow and an eager PyTorch network. usage: python -m ... RUN PORT

It runs in hangtag's own environment. The network is the one that the run's model file was exported from, so it computes
the same; it leaves out calibration, the prediction set and the out-of-distribution score.
"""

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import uvicorn
from fastapi import FastAPI, Request
from PIL import Image
from safetensors.torch import load_file

from hangtag.pictures import ImageSpec
from hangtag.training.engine.build import build_network
from hangtag.training.engine.networks import FlipTTA


def main() -> None:
    run, port = Path(sys.argv[1]), int(sys.argv[2])
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    spec, classes = ImageSpec(**config["data"]["image"]), config["data"]["classes"]
    network = build_network(config["recipe"]["network"], spec, len(classes), seed=0)
    network.load_state_dict(load_file(run / "weights.safetensors"))
    model = (FlipTTA(network) if config["recipe"].get("flip_tta") else network).eval()
    app = FastAPI()

    @app.post("/predict")
    async def predict(request: Request) -> dict[str, Any]:
        picture = Image.open(io.BytesIO(await request.body())).convert("L" if spec.channels == 1 else "RGB")
        pixels = np.asarray(picture.resize((spec.width, spec.height)), np.float32) / 255
        x = torch.from_numpy(pixels)[None]
        with torch.no_grad():
            shares = torch.softmax(model(x[:, None] if spec.channels == 1 else x.permute(0, 3, 1, 2)), 1)[0]
        best = int(shares.argmax())
        return {"label": classes[best], "probability": float(shares[best])}

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
