"""Energy per layer before and after, as in figure 7 of Stock et al. 2019."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from graphnorm.errors import InputError
from graphnorm.util.atomic import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BEFORE, _AFTER = "#c0504d", "#1f6f8b"


def energy_figure(energy: Mapping[str, tuple[float, float]], title: str, p: float = 2.0) -> Figure:
    """Draw sum |w|^p of each layer on a logarithmic axis, in network order.

    Args:
        energy: layer -> (before, after), as in ``report.energy``.
        title: heading.
        p: exponent of the norm.

    Raises:
        InputError: matplotlib is missing, or no layer has a non-zero weight.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError as error:
        raise InputError("drawing needs matplotlib: pip install 'graphnorm[plot]'") from error
    values = np.array(list(energy.values()), dtype=np.float64).reshape(-1, 2)
    values = np.where(values > 0, values, np.nan)
    if not np.isfinite(values).any():
        raise InputError(f"{title}: no layer has a non-zero weight to draw")
    figure = Figure(figsize=(8.0, 4.2), dpi=150, layout="constrained")  # no pyplot: no global state
    axes = figure.add_subplot()
    index = np.arange(1, len(values) + 1)
    axes.set_yscale("log")
    low = 10.0 ** np.floor(np.log10(np.nanmin(values)) - 0.3)
    for column, label, colour in ((0, "before", _BEFORE), (1, "after", _AFTER)):
        line = values[:, column]
        total = np.nansum(line)
        axes.fill_between(index, low, line, color=colour, alpha=0.18, linewidth=0)
        axes.plot(
            index, line, color=colour, marker="o", markersize=3.5, linewidth=1.6,
            label=f"{label} (sum {total:.3g})",
        )  # fmt: skip
    axes.set_ylim(bottom=low)
    axes.set_xlim(0.5, len(values) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("layer index (multiplicative weights in network order)")
    axes.set_ylabel(rf"energy of the layer, $\sum |w|^{{{p:g}}}$")
    axes.set_title(title, loc="left", fontsize=11)
    axes.grid(axis="y", which="major", alpha=0.3, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, borderaxespad=0.2)
    return figure


def save_energy(energy: Mapping[str, tuple[float, float]], path: Path, title: str, p: float = 2.0) -> None:
    """Draw into a PNG file.

    Raises:
        InputError: see `energy_figure`.
    """
    with replacing(path) as temporary:
        energy_figure(energy, title, p).savefig(temporary, format="png")
