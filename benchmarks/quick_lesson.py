"""The lesson's network, trained quickly by hangtag, as a user's script would: read, fit, evaluate.

    python -m benchmarks.quick_lesson [--seed 0]

The settings were chosen on 10,000 of the training images (docs/log.md has the search) so that the network, the
lesson's own, should exceed the lesson's 88.64 % on the test images by a clear margin: fewer, larger steps than the
lesson's, at a rate that rises and falls. Prints two JSON lines: one when trained, one with the test accuracy of the
model file.
"""

import argparse
import json

import hangtag

QUICK = hangtag.Recipe(
    name="quick-lesson",
    says="the lesson's network in 8 epochs",
    network="mlp",
    epochs=8,
    batch_size=64,
    lr_peak=0.003,
    warm_up=0.2,
    lr_start=0.2,
    lr_end=0.0,
    beta2=0.98,
    validation=0.0,  # as in the lesson, once the settings are chosen
    last_partial_batch=True,
    bfloat16=False,  # with this, and without weight decay or label smoothing, the compiled steps run
    cores=2,
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the lesson's network quickly.")
    parser.add_argument("--seed", type=int, default=0)
    settings = parser.parse_args()
    data = hangtag.read("fashion-mnist")
    classifier = hangtag.ImageClassifier(QUICK, seed=settings.seed, device="cpu").fit(data.train)
    print(json.dumps({"training_accuracy": classifier.history_[-1].accuracy}), flush=True)
    print(json.dumps({"test_accuracy": classifier.evaluate(data.test).accuracy}), flush=True)


if __name__ == "__main__":
    main()
