"""Plots the soak: the values that must not grow, over time, with the faults."""

from pathlib import Path
from typing import Any

PANELS = (
    ("Resident memory", "MiB", ("server_mib", "engine_mib")),
    ("File descriptors", "open", ("server_fds", "engine_fds")),
    ("Metric series", "count", ("series",)),
    (
        "Threads, registered versions, temporary files",
        "count",
        ("server_threads", "engine_threads", "rows", "tmp_files"),
    ),
)
NAMES = {
    "server_mib": "server",
    "engine_mib": "engine",
    "server_fds": "server",
    "engine_fds": "engine",
    "series": "series in /metrics",
    "server_threads": "server's threads",
    "engine_threads": "engine's threads",
    "rows": "versions registered",
    "tmp_files": "temporary files",
}
COLOURS = {"engine killed": "#c1121f", "engine stopped": "#e08a00"}
OTHER = "#8d99ae"


def plot(document: dict[str, Any], path: Path) -> None:
    """Draw four panels over time in minutes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(len(PANELS), 1, figsize=(10, 11), sharex=True, constrained_layout=True)
    for axis, (title, unit, names) in zip(axes, PANELS, strict=True):
        for name in names:
            points = [(s["at"] / 60, s[name]) for s in document["samples"] if name in s]
            axis.plot(*zip(*points, strict=True), label=NAMES[name], linewidth=1.4)
        for fault in document["faults"]:
            axis.axvline(fault["at"] / 60, color=COLOURS.get(fault["name"], OTHER), alpha=0.5, linewidth=0.8)
        axis.set_title(title, loc="left", fontsize=10)
        axis.set_ylim(bottom=0)
        axis.set_ylabel(unit)
        axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, frameon=False)
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1].set_xlabel(
        "minutes. Vertical lines: the engine was killed (red) or stopped (orange), or another fault (grey)"
    )
    right = document["answers"]["counts"].get("right", 0)
    figure.suptitle(
        f"Soak test: {document['minutes']:g} minutes of traffic with {len(document['faults'])} faults. "
        f"{right:,} answers were right, {document['answers']['bad_count']} were not"
    )
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
