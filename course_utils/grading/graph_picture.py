"""A small graph as a drawing for a page of feedback: nodes in layers from top to bottom, as SVG that also prints.

The model is a student's, so nothing is built from it: its fields are gone through as they stand in the file.

Layers by the longest path, points where an arrow passes a layer, and the order within a layer by the mean of the neighbours:
Sugiyama, Tagawa and Toda, "Methods for visual understanding of hierarchical system structures" (1981).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from ..diagnosis.file.skeleton import MalformedError, fields
from ..handin.html_parts import text

MOST = 30  # nodes with inputs and outputs: more is no picture that one reads on paper
_MOST_FIELDS = 20_000
_LONGEST = 22  # characters of a name
_LETTER, _ROOM, _LAYER, _BOX, _GAP = 7.2, 18, 42, 26, 16  # pixels


@dataclass(frozen=True)
class Graph:
    """labels: of all points, inputs and outputs of the model among them. ends: those points. arrows: pairs of points."""

    labels: list[str]
    ends: frozenset[int]
    arrows: list[tuple[int, int]]


def read_graph(data: bytes) -> Graph | None:
    """The main graph of a model; None for what is no model, has no node, a circle, or more than `MOST` points."""
    try:
        view = memoryview(data)
        count = 0
        nodes: list[tuple[str, list[str], list[str]]] = []
        inputs: list[str] = []
        outputs: list[str] = []
        held: set[str] = set()
        for start, end in _parts(view, 0, len(view), 7):
            for number, kind, _, content, stop in fields(view, start, end):
                count += 1
                if count > _MOST_FIELDS or len(nodes) + len(inputs) + len(outputs) > 4 * MOST:
                    return None
                if kind == 2 and number == 1:
                    words = {n: [_text(view, *at) for at in _parts(view, content, stop, n)] for n in (1, 2, 4)}
                    nodes.append(((words[4] or ["?"])[0], words[1], words[2]))
                elif kind == 2 and number == 5:
                    held.update(_text(view, *at) for at in _parts(view, content, stop, 8))
                elif kind == 2 and number in (11, 12):
                    names = [_text(view, *at) for at in _parts(view, content, stop, 1)]
                    (inputs if number == 11 else outputs).extend(names[:1])
    except MalformedError:
        return None
    inputs = [name for name in inputs if name not in held]  # older files list their weights there, too
    if not nodes or len(nodes) + len(inputs) + len(outputs) > MOST:
        return None
    return _acyclic(_joined(nodes, inputs, outputs))


def _parts(view: memoryview, start: int, end: int, wanted: int) -> list[tuple[int, int]]:
    return [(a, b) for number, kind, _, a, b in fields(view, start, end) if (number, kind) == (wanted, 2)]


def _text(view: memoryview, start: int, end: int) -> str:
    return bytes(view[start:end]).decode(errors="replace")


def _joined(nodes: list[tuple[str, list[str], list[str]]], inputs: list[str], outputs: list[str]) -> Graph:
    labels = [*inputs, *(op for op, _, _ in nodes), *outputs]
    first, last = len(inputs), len(inputs) + len(nodes)
    source = {name: at for at, name in enumerate(inputs)}
    for at, (_, _, made) in enumerate(nodes, first):
        source.update((name, at) for name in made if name)
    arrows = {(source[name], at) for at, (_, taken, _) in enumerate(nodes, first) for name in taken if name in source}
    arrows |= {(source[name], at) for at, name in enumerate(outputs, last) if name in source}
    return Graph(labels, frozenset([*range(first), *range(last, len(labels))]), sorted(arrows))


def _acyclic(graph: Graph) -> Graph | None:
    return graph if len(_layers(graph)) == len(graph.labels) else None


def _layers(graph: Graph) -> dict[int, int]:
    """The layer of each point, by the longest path to it. Points in a circle have none."""
    waiting: dict[int, int] = defaultdict(int)
    after: dict[int, list[int]] = defaultdict(list)
    for start, end in graph.arrows:
        waiting[end] += 1
        after[start].append(end)
    layer = {point: 0 for point in range(len(graph.labels)) if not waiting[point]}
    ready = list(layer)
    for point in ready:
        for end in after[point]:
            waiting[end] -= 1
            if not waiting[end]:
                layer[end] = 1 + max(layer[a] for a, b in graph.arrows if b == end)
                ready.append(end)
    return layer


def svg(graph: Graph) -> str:
    """The drawing, with the graph in words for those who do not see it."""
    labels, layer, arrows = _with_points_between(graph)
    rows = _ordered(layer, arrows)
    width = {p: len(label) * _LETTER + _ROOM if label else 2.0 for p, label in labels.items()}
    lines = [sum(width[p] + _GAP for p in row) - _GAP for row in rows]
    full, high = max(lines), len(rows) * _LAYER - (_LAYER - _BOX)
    centre: dict[int, tuple[float, float]] = {}
    for depth, (row, line) in enumerate(zip(rows, lines, strict=True)):
        x = (full - line) / 2
        for point in row:
            centre[point] = (x + width[point] / 2, depth * _LAYER + _BOX / 2)
            x += width[point] + _GAP
    parts = [_arrow(centre[a], centre[b], bool(labels[a]), bool(labels[b])) for a, b in arrows]
    for point, (x, y) in centre.items():
        if labels[point]:
            kind, corner = ("end", _BOX / 2) if point in graph.ends else ("node", 4)
            parts.append(
                f'<rect class="{kind}" x="{x - width[point] / 2:.1f}" y="{y - _BOX / 2:.1f}" width="{width[point]:.1f}" '
                f'height="{_BOX}" rx="{corner:g}"/><text x="{x:.1f}" y="{y + 4:.1f}">{text(labels[point])}</text>'
            )
    return (
        f'<svg class="graph" viewBox="-2 -2 {full + 4:.0f} {high + 4}" style="max-width: {full + 4:.0f}px" role="img" '
        f'aria-label="{text(in_words(graph))}">{"".join(parts)}</svg>'
    )


def in_words(graph: Graph) -> str:
    """Each node with what it takes: "Relu takes Conv"."""
    taken: dict[int, list[str]] = defaultdict(list)
    for start, end in graph.arrows:
        taken[end].append(_short(graph.labels[start]))
    said = [f"{_short(graph.labels[p])} takes {' and '.join(found)}" for p, found in sorted(taken.items())]
    return "; ".join(said) or ", ".join(map(_short, graph.labels))


def _short(label: str) -> str:
    return label if len(label) <= _LONGEST else f"{label[: _LONGEST - 1]}…"


def _with_points_between(graph: Graph) -> tuple[dict[int, str], dict[int, int], list[tuple[int, int]]]:
    """Labels, layers and arrows, where each arrow goes from a layer to the next: points without a label lie between."""
    layer = _layers(graph)
    labels = {point: _short(label) or "?" for point, label in enumerate(graph.labels)}
    arrows = []
    for start, end in graph.arrows:
        at = start
        for depth in range(layer[start] + 1, layer[end]):
            between = len(labels)
            labels[between], layer[between] = "", depth
            arrows.append((at, between))
            at = between
        arrows.append((at, end))
    return labels, layer, arrows


def _ordered(layer: dict[int, int], arrows: list[tuple[int, int]]) -> list[list[int]]:
    """The points of each layer, from left to right."""
    rows: list[list[int]] = [[] for _ in range(max(layer.values()) + 1)]
    for point in sorted(layer):
        rows[layer[point]].append(point)
    for _ in range(4):
        for neighbours, order in ((0, rows[1:]), (1, rows[-2::-1])):
            for row in order:
                place = {point: at / len(r) for r in rows for at, point in enumerate(r)}
                near = {p: [place[a[neighbours]] for a in arrows if a[1 - neighbours] == p] for p in row}
                row.sort(key=lambda p: sum(near[p]) / len(near[p]) if near[p] else place[p])
    return rows


def _arrow(start: tuple[float, float], end: tuple[float, float], from_box: bool, to_box: bool) -> str:
    (x, y), (to_x, to_y) = start, end
    y, to_y = y + _BOX / 2 * from_box, to_y - _BOX / 2 * to_box
    middle = (y + to_y) / 2
    path = f'<path d="M{x:.1f} {y:.1f}C{x:.1f} {middle:.1f} {to_x:.1f} {middle:.1f} {to_x:.1f} {to_y:.1f}"/>'
    return path + (f'<path class="head" d="M{to_x:.1f} {to_y:.1f}l-3.5 -6h7z"/>' if to_box else "")
