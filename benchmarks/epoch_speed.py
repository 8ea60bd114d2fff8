"""Seconds per epoch of the lesson's training: recipe `tutorial` against its peers, on the same CPU.

    make bench-peers                                                    # once: the peers' environments
    python -m benchmarks.epoch_speed [--rounds 5] [--epochs 3] [--only tensorflow jax] [--json FILE]

Same network, optimizer, batch size (32) and images. A round starts one process for every way of running every peer, one
after the other, and one for hangtag before the ways of each peer; a process's number is the median of its epochs after
the first, which compiles. hangtag's epochs are short, so it runs four times as many, to be timed for about as long. A
ratio is taken between neighbours in a round, then its median over the rounds: a slow minute of the machine hits both.
Each peer runs as its users write it and with the settings its documentation names for speed; nothing is drawn. A peer
whose environment is not made is left out, and the result says so.

A group of neighbours is measured again when other processes took more than 10 % of the processors beside any of them,
whatever the times were; after twice as many rounds as asked for, the least disturbed count. How disturbed they were is
said in the result.
"""

import statistics
import sys
import tempfile
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.beside import (
    KERAS_AS_WRITTEN,
    KERAS_JAX_75,
    NOT_MEASURED,
    PEERS,
    Peer,
    python_of,
    run,
    write_arrays,
)
from benchmarks.common import Others, Result, alone, in_fresh_process, options, publish, summary

HANGTAG = "hangtag, recipe `tutorial`"
DISTURBED = 0.1  # share of the processors that others may take during a measurement
AIMS = {KERAS_AS_WRITTEN.name: (8.0, 12.0), KERAS_JAX_75.name: (1.0, 1.5)}  # at least, better


@dataclass(frozen=True)
class Group:
    """Neighbours in a round: hangtag, then every way of running one peer."""

    environment: str
    seconds: dict[str, float]  # per epoch, of each side
    others: float  # largest share of the processors that other processes took beside one of the sides

    def __str__(self) -> str:
        times = ", ".join(f"{value:.3f}" for value in self.seconds.values())
        return f"{self.environment}: {times} s; others took at most {self.others:.0%} of the processors"


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=3, help="at least 2: the first does not count")
    parser.add_argument("--only", nargs="+", metavar="PEER", help="environments to measure; all when not given")
    settings = parser.parse_args()
    wanted = list(
        dict.fromkeys(peer.environment for peer in PEERS if peer.environment in (settings.only or [peer.environment]))
    )
    there = [name for name in wanted if python_of(name)]
    if not there:
        sys.exit("skipped epoch_speed: no peer is installed; make their environments: make bench-peers")
    groups: dict[str, list[Group]] = defaultdict(list)
    versions: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory(prefix="hangtag-bench-") as name:
        folder = Path(name)
        in_fresh_process(write_arrays, folder)
        for number in range(1, 2 * settings.rounds + 1):
            for environment in there:
                if sum(one.others <= DISTURBED for one in groups[environment]) < settings.rounds:
                    groups[environment].append(measure(environment, folder, settings.epochs, versions))
                    print(f"round {number}: {groups[environment][-1]}", flush=True)
    left_out = [name for name in wanted if name not in there]
    publish(compare(groups, settings.rounds, versions, left_out), settings.json)


def measure(environment: str, folder: Path, epochs: int, versions: dict[str, dict[str, str]]) -> Group:
    """hangtag and every way of running one peer, once."""
    with alone():
        watch = Others()
        seconds = {HANGTAG: steady(in_fresh_process(hangtag_epochs, 1 + 4 * (epochs - 1)))}
        others = watch.share()
        for peer in ways(environment):
            watch = Others()
            found = run(peer, folder, epochs)
            versions[environment] = found.versions
            seconds[peer.name] = steady([epoch.seconds for epoch in found.epochs])
            others = max(others, watch.share())
        return Group(environment, seconds, others)


def ways(environment: str) -> list[Peer]:
    return [peer for peer in PEERS if peer.environment == environment]


def hangtag_epochs(epochs: int) -> list[float]:
    """Seconds of each epoch."""
    import hangtag

    train = hangtag.read("fashion-mnist").train
    classifier = hangtag.ImageClassifier(recipe="tutorial", epochs=epochs, device="cpu").fit(train)
    return [epoch.seconds for epoch in classifier.history_]


def steady(seconds: list[float]) -> float:
    """The median epoch after the first."""
    return statistics.median(seconds[1:])


def compare(
    groups: dict[str, list[Group]], wanted: int, versions: dict[str, dict[str, str]], left_out: list[str]
) -> Result:
    counted = {name: sorted(found, key=lambda one: one.others)[:wanted] for name, found in groups.items()}
    ours = [one.seconds[HANGTAG] for found in counted.values() for one in found]
    numbers: dict[str, Any] = {HANGTAG: {"seconds": summary(ours)}}
    rows = [row_of(HANGTAG, numbers[HANGTAG]["seconds"], None)]
    for environment, found in counted.items():
        for peer in ways(environment):
            seconds = summary([one.seconds[peer.name] for one in found])
            ratio = summary([one.seconds[peer.name] / one.seconds[HANGTAG] for one in found])
            numbers[peer.name] = {"environment": environment, "seconds": seconds, "ratio": ratio}
            rows.append(row_of(peer.name, seconds, ratio))
    numbers["best"] = {name: fastest(numbers, name) for name in counted}
    numbers["peer_versions"], numbers["left_out"] = versions, left_out
    numbers["groups"] = [asdict(one) for found in groups.values() for one in found]
    columns = ("side", "seconds per epoch (median)", "mean", "sd", "n", "of hangtag's time (median)", "per round")
    says = conclusions(numbers, groups, counted)
    return Result("epoch_speed", "An epoch of the lesson's training, batch 32", columns, rows, says, numbers)


def row_of(name: str, seconds: dict[str, Any], ratio: dict[str, Any] | None) -> tuple[str, ...]:
    sd = "-" if seconds["sd"] is None else f"{seconds['sd']:.3f}"
    times = f"{ratio['median']:.2f}x" if ratio else "1x"
    spread = f"{ratio['least']:.2f}-{ratio['most']:.2f}" if ratio else "-"
    return (name, f"{seconds['median']:.3f}", f"{seconds['mean']:.3f}", sd, str(seconds["n"]), times, spread)


def fastest(numbers: dict[str, Any], environment: str) -> str:
    """The name of the fastest way of running this peer."""
    return min((peer.name for peer in ways(environment)), key=lambda name: numbers[name]["ratio"]["median"])


def conclusions(numbers: dict[str, Any], groups: dict[str, list[Group]], counted: dict[str, list[Group]]) -> list[str]:
    says = [
        f"{name}: {numbers[name]['ratio']['median']:.2f} times hangtag's seconds (wanted {least:g}, better {better:g}: "
        + ("reached)." if numbers[name]["ratio"]["median"] >= least else "NOT REACHED).")
        for name, (least, better) in AIMS.items()
        if name in numbers
    ]
    best = min(numbers["best"].values(), key=lambda name: float(numbers[name]["ratio"]["median"]))
    says.append(f"The fastest peer found is {best}: {numbers[best]['ratio']['median']:.2f} times hangtag's seconds.")
    all_counted = [one for found in counted.values() for one in found]
    says.append(
        f"{len(all_counted)} of {sum(map(len, groups.values()))} groups of neighbours counted, those least disturbed: "
        f"other processes took at most {max(one.others for one in all_counted):.0%} of the processors from any side."
    )
    for environment, found in numbers["peer_versions"].items():
        said = ", ".join(f"{name} {version}" for name, version in found.items())
        says.append(f"Environment `{environment}`: {said}.")
    if numbers["left_out"]:
        says.append(f"Not installed, so not measured: {', '.join(numbers['left_out'])} (`make bench-peers`).")
    return says + [f"Not measured: {name}, for {reason}." for name, reason in NOT_MEASURED.items()]


if __name__ == "__main__":
    main()
