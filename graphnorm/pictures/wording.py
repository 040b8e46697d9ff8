"""Text in boxes: operators by their usual names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from graphnorm.ir import Node
from graphnorm.ops.table import title
from graphnorm.pictures.flow import Part
from graphnorm.rescaling.graph import RescalingGraph


def operator_text(graph: RescalingGraph, node: Node, weights: Sequence[str]) -> str:
    """A name for an operator; `weights` are those that it multiplies by."""
    if node.op in {"Conv", "ConvTranspose"} and weights:
        return _convolution(graph, node, node.op, weights[0])
    return title(node.op, weighted=bool(weights))


def plain_name(op: str) -> str:
    """An operator's name without domain, as people write it."""
    return title(op)


def _convolution(graph: RescalingGraph, node: Node, op: str, weight: str) -> str:
    kernel = graph.network.weights[weight].shape[2:]
    groups = int(node.attributes["group"])
    channels = graph.network.values[node.outputs[0]].shape or ()
    kind = "" if groups == 1 else "depthwise " if len(channels) > 1 and groups == channels[1] else "grouped "
    return f"{kind}{op} {'×'.join(str(size) for size in kernel)}"


def norm_text(nodes: Sequence[Node]) -> str:
    """The norm that a layer of elementary operators computes, or nothing."""
    operators = Counter(node.op for node in nodes)
    if not operators["ReduceMean"] or not (operators["Sqrt"] and operators["Pow"] + operators["Mul"]):
        return ""
    return "LayerNorm" if operators["Sub"] else "RMSNorm"


def tidy(parts: Sequence[Part], limit: int = 4) -> tuple[Part, ...]:
    """Omit the least informative parts until at most `limit` remain: layers and pins are kept longest."""
    kept: list[Part] = []
    for part in parts:
        if kept and kept[-1].text == part.text and not part.seam:
            kept[-1] = replace(kept[-1], pins=kept[-1].pins or part.pins)
        else:
            kept.append(part)
    while len(kept) > limit and (spare := [i for i, p in enumerate(kept) if i and not (p.pins or p.layer)]):
        del kept[spare[-1]]
    if len(kept) > limit:
        rest = kept[limit - 1 :]
        kept[limit - 1 :] = [Part(f"+{len(rest)}", rest[0].node, any(part.pins for part in rest))]
    return tuple(kept)


def counted(parts: Sequence[Part], most: int = 4) -> tuple[Part, ...]:
    """Parts of a whole module: each operator once, with its number; pinning operators keep their mark."""
    plain = [part.text.removeprefix("depthwise ").removeprefix("grouped ").split(" ")[0] for part in parts]
    pinning = {text for text, part in zip(plain, parts, strict=True) if part.pins}
    first = {text: part.node for text, part in reversed(list(zip(plain, parts, strict=True)))}
    found = Counter(plain).most_common()
    shown = [Part(f"{n} {text}" if n > 1 else text, first[text], text in pinning) for text, n in found[:most]]
    if len(found) > most:
        rest = {text for text, _ in found[most:]}
        shown.append(Part(f"+{len(rest)}", -1, bool(rest & pinning)))
    return tuple(shown)
