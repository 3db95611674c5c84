"""What the doctor's findings are made of, and the list of all that it can find."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..words import listed, plain  # noqa: F401 - findings take their words from here

if TYPE_CHECKING:
    import pandas as pd

ERROR, WARNING, NOTE = "error", "warning", "note"
SEVERITIES = {
    ERROR: "The model does not load in this runtime, or what it computes is broken.",
    WARNING: "It runs, but slower, larger or otherwise than intended, or not elsewhere: worth a change in most cases.",
    NOTE: "It may be meant so. Know it before you ship the model.",
}
# What explains a finding: a lesson, by its number, or a page below one, by the name of its file. → title, file
LESSONS = {
    "01": ("Graph structure", "01_graph_structure"),
    "02": ("Opsets", "02_opsets"),
    "03": ("Tracing versus scripting", "03_tracing_vs_scripting"),
    "04": ("Dynamic axes", "04_dynamic_axes"),
    "05": ("Execution providers", "05_execution_providers"),
    "06": ("Fusion", "06_fusion"),
    "07": ("Quantization", "07_quantization"),
    "08": ("Deployment", "08_deployment"),
    "09": ("Troubleshooting", "09_troubleshooting"),
    "01_large_files": ("Large files", "deeper/01_large_files"),
    "01_metadata": ("What a file tells", "deeper/01_metadata"),
    "02_converter": ("Converting", "deeper/02_converter"),
    "02_domains_and_functions": ("Domains and functions", "deeper/02_domains_and_functions"),
    "03_what_a_file_forgets": ("What a file forgets", "deeper/03_what_a_file_forgets"),
    "06_files_saved_optimised": ("Files saved optimised", "deeper/06_files_saved_optimised"),
    "06_why_not_fused": ("Why it does not fuse", "deeper/06_why_not_fused"),
    "07_calibration": ("Calibration", "deeper/07_calibration"),
    "07_find_the_layer": ("Find the layer that int8 ruins", "deeper/07_find_the_layer"),
    "07_where_int8_runs": ("Where int8 runs", "deeper/07_where_int8_runs"),
    "09_tiny_models": ("Tiny models", "deeper/09_tiny_models"),
    "09_unknown_shapes": ("Its shapes are unknown", "deeper/09_unknown_shapes"),
}
# The modules that declare codes, in the order in which their checks are made.
MODULES = (
    "file.reading",
    "findings.external_data",
    "findings.names",
    "findings.structure",
    "findings.dtypes",
    "findings.versions",
    "findings.hardware",
    "findings.training",
    "findings.loops",
    "findings.shapes",
    "findings.numbers",
    "findings.fusion",
    "findings.quantization",
    "findings.quantized_weights",
    "findings.metadata",
    "child.trial",
)
_PLACES_SHOWN = 3
# Where in ONNX Runtime's own source a message was made: with a path there is a declaration behind it, and perhaps a condition;
# without one, the name of a function.
_FILE = r"[\w+-]+\.(?:h|hpp|cc|cpp|cu|cuh|inc):\d+ "
_DECLARATION = r"[^()]*\((?:[^()]|\([^()]*\))*\)(?: const)?(?: \[with [^\]]*\])?(?:::<lambda\([^()]*\)>)? "
_SOURCE = re.compile(
    rf"(?:\S*[/\\]{_FILE}{_DECLARATION}(?:[^.]{{1,300}}(?:\.[^.]{{1,300}})*? was false\. (?=\S))?|\b{_FILE}\w+ )"
)
_LOADING = re.compile(r"Load model from .*? failed: ?")
_codes: dict[str, Code] = {}


@dataclass(frozen=True)
class Code:
    """One kind of finding. id: stable, for scripts and hand-outs. lesson: what explains it, a key of `LESSONS`."""

    id: str
    severity: str
    lesson: str
    title: str
    cure: str

    @property
    def lesson_name(self) -> str:
        return lesson_name(self.lesson)

    @property
    def lesson_file(self) -> str:
        return f"notebooks/{LESSONS[self.lesson][1]}.ipynb"


def lesson_name(lesson: str) -> str:
    """What a reader sees of a key of `LESSONS`, such as "06 · Files saved optimised"."""
    return f"{lesson[:2]} · {LESSONS[lesson][0]}"


def code(id: str, severity: str, lesson: str, title: str, cure: str) -> Code:
    """Declare a kind of finding. Ids are unique: they stand in people's scripts."""
    assert id not in _codes, id
    assert severity in SEVERITIES, severity
    assert lesson in LESSONS, lesson
    _codes[id] = Code(id, severity, lesson, title, cure)
    return _codes[id]


def all_codes() -> list[Code]:
    """Every kind of finding, by subject."""
    modules = [importlib.import_module(f"{__package__}.{name}") for name in MODULES]
    order = {value.id: i for i, m in enumerate(modules) for value in vars(m).values() if isinstance(value, Code)}
    return sorted(_codes.values(), key=lambda c: order[c.id])  # stable: within a module as declared


def doctor_codes() -> pd.DataFrame:
    """All that `cu.doctor` can find, made from its own code: code, severity, title, cure, lesson."""
    import pandas as pd

    rows = [(c.id, c.severity, c.title, c.cure, c.lesson_name) for c in all_codes()]
    return pd.DataFrame(rows, columns=["code", "severity", "title", "cure", "lesson"])


@dataclass(frozen=True)
class Place:
    """Where something was found. kind: node, tensor, input, output, function, operator, file, graph. index: of a node,
    counted from 0 in its graph. graph: empty for the main one, else where the subgraph or function is."""

    kind: str
    name: str
    index: int | None = None
    graph: str = ""

    def __str__(self) -> str:
        number = "" if self.index is None else f" #{self.index}"
        return f"{self.kind}{number} {plain(self.name)!r}" + (f" in {plain(self.graph)}" if self.graph else "")


@dataclass(frozen=True)
class Finding:
    """One thing that was found in one model. cause: what was seen. where: the first places. count: of all places.

    advice: the cure, where it is another one than that of the code. level: the severity, where it is another one.
    """

    code: Code
    cause: str
    where: tuple[Place, ...] = ()
    count: int = 0
    advice: str = ""
    level: str = ""

    @property
    def cure(self) -> str:
        return self.advice or self.code.cure

    @property
    def severity(self) -> str:
        return self.level or self.code.severity

    @property
    def places(self) -> str:
        shown = ", ".join(map(str, self.where[:_PLACES_SHOWN]))
        rest = self.count - min(len(self.where), _PLACES_SHOWN)
        return f"{shown} and {rest} more" if rest > 0 else shown

    def as_dict(self) -> dict[str, Any]:
        return {
            "code": self.code.id,
            "severity": self.severity,
            "title": self.code.title,
            "cause": self.cause,
            "cure": self.cure,
            "lesson": {"name": self.code.lesson_name, "file": self.code.lesson_file},
            "count": self.count,
            "where": [
                {"kind": p.kind, "name": plain(p.name, None), "index": p.index, "graph": plain(p.graph, None)}
                for p in self.where
            ],
        }

    def __repr__(self) -> str:
        return f"<{self.severity} {self.code.id}: {self.cause}>"


_PLACES_KEPT = 50


def finding(code: Code, cause: str, where: Iterable[Place] | Place = (), advice: str = "", level: str = "") -> Finding:
    """A finding; of many places the first 50 are kept."""
    places = (where,) if isinstance(where, Place) else tuple(where)
    return Finding(code, cause, places[:_PLACES_KEPT], len(places), advice, level)


def spoken(words: str, folder: str | os.PathLike[str] = "") -> str:
    """What ONNX Runtime said, on one line, without names of folders and without the place in its own source text."""
    text = " ".join(words.split())
    for place in {os.path.realpath(folder), os.fspath(folder)} if folder else ():
        text = text.replace(place + os.sep, "").replace(place, "")
    return " ".join(_LOADING.sub("", _SOURCE.sub(" ", text)).split())


def amount(count: int) -> str:
    """Bytes in words, such as 1.2 MB."""
    size, unit = float(count), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{count:,} bytes" if unit == "bytes" else f"{size:.1f} {unit}" if size < 1e6 else f"{size:.1e} {unit}"


def count(number: int, what: str) -> str:
    """`1 pair`, `2 pairs`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def nodes(number: int) -> str:
    return count(number, "node")
