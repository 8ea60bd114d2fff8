"""The recipe `accurate` on Fashion-MNIST: seconds of training, test accuracy, peak memory; see fast_recipe.py.

python -m benchmarks.accurate_recipe [--seeds 5] [--json FILE] [--go-on]     (a seed takes about 25 minutes)
"""

from benchmarks.fast_recipe import Aims, measure


def main() -> None:
    measure("accurate", __doc__, seeds=5, aims=Aims((0.95, 1500.0, 2.0), (0.955, 900.0, 1.2)))


if __name__ == "__main__":
    main()
