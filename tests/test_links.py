"""Links of the lessons to documentation: enough of them, in one form, to hosts that are known. None is followed."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import jupytext
import pytest
from checkout import ROOT

LESSONS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.py"))
DEEPER = sorted((ROOT / "notebooks" / "deeper").glob("[0-9][0-9]_*.py"))
EXERCISES = sorted((ROOT / "data" / "exercises").glob("[0-9][0-9]_*.py"))
FEWEST, MOST = 3, 15  # of a lesson; a deeper page has one subject, and may have fewer
# The projects' own sites. A link is no request, but a reader who follows it asks that host.
HOSTS = {
    "arxiv.org",
    "developer.android.com",
    "developer.apple.com",
    "developer.mozilla.org",
    "docs.docker.com",
    "docs.nvidia.com",
    "docs.openvino.ai",
    "docs.python.org",
    "docs.pytorch.org",
    "docs.ray.io",
    "fastapi.tiangolo.com",
    "github.com",
    "huggingface.co",
    "jupytext.readthedocs.io",
    "numpy.org",
    "onnx.ai",
    "onnxruntime.ai",
    "prometheus.io",
    "protobuf.dev",
    "scikit-learn.org",
    "www.w3.org",
}
GITHUB_OWNERS = {"lutzroeder", "microsoft", "onnx", "pytorch", "triton-inference-server", "zalandoresearch"}
LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")  # [text](address); a picture has a ! before it
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)


def faults(cells: list[str], fewest: int = FEWEST) -> list[str]:
    """What is wrong with the links of a lesson, given its Markdown cells."""
    # Code may name an address, such as http://127.0.0.1:8000, without being a link; link texts are often code.
    plain = [CODE.sub("code", cell) for cell in cells]
    found = [address for cell in plain for address in LINK.findall(cell) if "//" in address]
    wrong = [f"not https: {address}" for address in found if not address.startswith("https://")]
    wrong += [f"unknown host: {address}" for address in found if urlsplit(address).hostname not in HOSTS]
    for address in found:
        parts = urlsplit(address)
        if parts.hostname == "github.com" and parts.path.split("/")[1] not in GITHUB_OWNERS:
            wrong.append(f"not a project's own repository: {address}")
    bare = [word for cell in plain for word in re.findall(r"\S*https?://\S+", LINK.sub("", cell))]
    wrong += [f"no Markdown link: {word}" for word in bare]
    wrong += [f"linked twice: {address}" for address in sorted(set(found)) if found.count(address) > 1]
    if not fewest <= len(found) <= MOST:
        wrong.append(f"{len(found)} links, not {fewest} to {MOST}")
    return wrong


@pytest.mark.parametrize("lesson", LESSONS + DEEPER, ids=lambda path: path.stem)
def test_a_lesson_links_to_the_documentation_of_what_it_names(lesson):
    cells = jupytext.read(lesson, fmt="py:percent").cells
    prose = [cell.source for cell in cells if cell.cell_type == "markdown"]
    assert faults(prose, FEWEST if lesson in LESSONS else 1) == []


def unlinked(text: str) -> list[str]:
    """The lessons that a page says one needs, without a link to them, or with a link to another one."""
    wrong = []
    for needed in re.findall(r"You need ((?:[^.]|\.(?!\s))*)\.", text):
        wrong += re.findall(r"(?<![.\d])\d\d\b", LINK.sub("", needed))
        for link, address in re.findall(r"\[([^\]]*\d\d)\]\(([^)\s]+)\)", needed):
            if not address.rpartition("/")[2].startswith(f"{link[-2:]}_"):
                wrong.append(f"{link} → {address}")
    return wrong


@pytest.mark.parametrize("page", LESSONS + DEEPER + EXERCISES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_page_links_to_the_lessons_that_it_needs(page):
    prose = [cell.source for cell in jupytext.read(page, fmt="py:percent").cells if cell.cell_type == "markdown"]
    assert "You need" in prose[0] or page in EXERCISES
    assert [fault for text in prose for fault in unlinked(text)] == []
    beside = ROOT / "notebooks" / "exercises" if page in EXERCISES else page.parent
    local = [address.partition("#")[0] for text in prose for address in LINK.findall(text) if "//" not in address]
    notebooks = [address for address in local if address.endswith(".ipynb")]
    assert [address for address in notebooks if not (beside / address).is_file()] == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("You need [lesson 08](../08_x.ipynb), and [07](../07_y.ipynb) for the end. After lesson 03, it ends.", []),
        ("You need lesson 03.", ["03"]),
        ("It runs. You need lessons 06 and 07; for 9.13 the [core of lesson 10](../10_x.ipynb).", ["06", "07"]),
        ("You need the [core of lesson 03](../04_x.ipynb).", ["core of lesson 03 → ../04_x.ipynb"]),
    ],
)
def test_a_lesson_without_its_link_is_named(text, found):
    assert unlinked(text) == found


GOOD = [
    "[`Dim`](https://docs.pytorch.org/x.html) and [Conv](https://onnx.ai/onnx/)",
    "[next](05_x.ipynb), see [the list](https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md)",
    "Ask `http://127.0.0.1:8000/health`.\n\n```\ncurl http://127.0.0.1:8000/predict\n```",
]


def test_good_links_pass():
    assert faults(GOOD) == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[x](http://onnx.ai/y)", "not https: http://onnx.ai/y"),
        ("[x](https://onnx.ai.example.org/)", "unknown host: https://onnx.ai.example.org/"),
        ("[x](https://github.com/somebody/fork)", "not a project's own repository: https://github.com/somebody/fork"),
        ("see https://onnx.ai/z for more", "no Markdown link: https://onnx.ai/z"),
        ("see <https://onnx.ai/z>", "no Markdown link: <https://onnx.ai/z>"),
        ("[again](https://onnx.ai/onnx/)", "linked twice: https://onnx.ai/onnx/"),
    ],
)
def test_a_bad_link_is_named(text, fault):
    assert faults([*GOOD, text]) == [fault]


def test_too_few_and_too_many():
    assert faults(GOOD[:1]) == ["2 links, not 3 to 15"]
    assert faults([f"[x](https://onnx.ai/{n})" for n in range(16)]) == ["16 links, not 3 to 15"]
