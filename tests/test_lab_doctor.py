"""The lab "doctor" in a browser: files are opened in the page, bad ones get one sentence, and nothing is sent anywhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from doctor_models import external, linear, nested, parsed
from lab_doctor_models import empty_parts
from lab_files import maker

import course_utils as cu
from course_utils.pages.netron_static import build

pytest.importorskip("playwright", reason="playwright is not installed: pip install -e '.[test]'")
import labs
from playwright.sync_api import expect

LIMIT = 10_000  # milliseconds: the page itself gives up then


class Lab(labs.Lab):
    """What is special in this one."""

    def choose(self, path: Path, which: int = 0) -> None:
        self.page.locator("input[type=file]").nth(which).set_input_files(path)

    def codes(self) -> list[str | None]:
        return [item.get_attribute("data-code") for item in self.page.locator(".doctor-finding").all()]


site, browser, lab = labs.fixtures("doctor", Lab, more=lambda it: build(it.folder / "netron"))  # and the viewer


def written(folder: Path, data: bytes, name: str = "mine.onnx") -> Path:
    (folder / name).write_bytes(data)
    return folder / name


def test_each_example_is_told_as_python_tells_it(lab: Lab) -> None:
    for name, data in maker("doctor").examples().items():
        lab.page.get_by_label("The file: an example").select_option(name.removesuffix(".onnx"))
        expect(lab.said).to_have_text(f"{cu.doctor(data).headline().replace('this model', name)}.")
        assert lab.codes() == cu.doctor(data).codes, name


def test_a_finding_has_its_texts_and_a_lesson_that_is_there(lab: Lab) -> None:
    lab.open(example="misspelt")
    (report,) = [
        f for f in cu.doctor(maker("doctor").examples()["misspelt.onnx"]).findings if f.code.id == "tensor-undefined"
    ]
    item = lab.page.locator("[data-code=tensor-undefined]")
    for text in (
        report.code.title,
        report.code.cure,
        report.places,
        "'H'",
        "This page did not load the file with ONNX Runtime.",
    ):
        expect(item).to_contain_text(text)
    target = item.get_by_role("link").get_attribute("href")
    assert target == f"{lab.site.address}/notebooks/01_graph_structure.html"


def test_the_example_stands_in_the_address_and_a_file_of_ones_own_does_not(lab: Lab, tmp_path: Path) -> None:
    lab.page.get_by_label("The file: an example").select_option("not_a_number")
    expect(lab.said).to_contain_text("not_a_number.onnx: 1 error.")
    assert "example=not_a_number" in lab.page.url
    lab.open(**lab.state)
    expect(lab.said).to_contain_text("not_a_number.onnx: 1 error.")
    lab.page.evaluate("location.hash = '#doctor?example=fixed_batch&with=nonsense'")  # a teacher's link in the page
    expect(lab.said).to_have_text("fixed_batch.onnx: 1 note.")
    before = len(lab.requests)
    lab.choose(written(tmp_path, linear(batch="1").SerializeToString(), "private.onnx"))
    expect(lab.said).to_have_text("private.onnx: 1 note.")
    assert "private" not in lab.page.url
    assert "example" not in lab.page.url
    asked = lab.requests[before:]
    assert all(url.endswith(".js") or url.startswith("blob:") for url in asked), asked
    assert not any("private" in url for url in asked)


def test_a_file_is_dropped(lab: Lab) -> None:
    data = list(linear(batch="1").SerializeToString())
    lab.page.locator(".doctor-chooser").first.evaluate(
        """(target, data) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([Uint8Array.from(data)], "dropped.onnx"));
          for (const kind of ["dragover", "drop"]) {
            target.dispatchEvent(new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: transfer }));
          }
        }""",
        data,
    )
    expect(lab.said).to_have_text("dropped.onnx: 1 note.")
    assert lab.codes() == ["batch-fixed"]


def test_by_keyboard(lab: Lab) -> None:
    lab.page.get_by_label("The file: an example").focus()
    lab.page.keyboard.press("ArrowDown")
    expect(lab.said).to_have_text("healthy.onnx: nothing found.")
    lab.page.keyboard.press("Tab")
    expect(lab.page.get_by_label("The file: from this device")).to_be_focused()
    lab.page.keyboard.press("Tab")
    expect(lab.page.get_by_role("link", name="Open it in the viewer")).to_be_focused()
    lab.page.keyboard.press("Tab")
    lab.page.keyboard.press("Enter")
    expect(lab.page.get_by_label("The second file: an example")).to_be_visible()


BAD = {
    "a PDF": (b"%PDF-1.7\n" + bytes(1000), "not-onnx", "looks like a PDF document"),
    "nothing": (b"", "empty-file", "0 bytes"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(1000), "not-onnx", "cureChoose the .onnx file."),
    "half a model": (linear(64).SerializeToString()[:5000], "truncated", "says that it ends at byte"),
    "10 000 graphs in graphs": (nested(10_000), "too-complex", "Graphs stand within graphs"),
    "millions of empty parts": (empty_parts(5_000_000), "too-complex", "more than 1,000,000 parts"),
    "noise": (bytes(range(7, 250)) * 40, "damaged", "not in the format of ONNX"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_model_gets_one_finding(kind: str, lab: Lab, tmp_path: Path) -> None:
    data, code, words = BAD[kind]
    lab.choose(written(tmp_path, data))
    expect(lab.said).to_have_text("mine.onnx: 1 error.", timeout=LIMIT)
    assert lab.codes() == [code]
    expect(lab.page.locator(".doctor-finding")).to_contain_text(words)
    expect(lab.page.get_by_role("link", name="Open it in the viewer")).to_have_count(0)


def test_a_file_of_300_mb_is_not_read(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "large.onnx"
    with path.open("wb") as stream:
        stream.truncate(300 * 10**6)
    lab.choose(path)
    expect(lab.said).to_have_text(
        "This file has 300 MB, and this page reads at most 200 MB. Python's doctor takes larger ones: python -m course_utils.doctor FILE."
    )


def test_weights_in_another_file(lab: Lab, tmp_path: Path) -> None:
    model = linear(64)
    external(model, "weights.bin")
    lab.choose(written(tmp_path, model.SerializeToString()))
    expect(lab.said).to_have_text("mine.onnx: nothing found.")
    expect(lab.page.locator(".doctor-result")).to_contain_text("1 tensor in the file 'weights.bin' beside the model")


def test_sizes_that_no_machine_has(lab: Lab, tmp_path: Path) -> None:
    model = linear(64)
    model.graph.initializer[0].dims[:] = [2**62, 2**62]
    lab.choose(written(tmp_path, model.SerializeToString()))
    expect(lab.said).to_contain_text("1 error")
    assert "weights-size-mismatch" in lab.codes()


def test_names_cannot_become_a_part_of_the_page(lab: Lab, tmp_path: Path) -> None:
    model = parsed("g (float[N] x) => (float[N] y) { y = Relu(x) }")
    model.graph.node[0].name = model.graph.node[0].op_type = model.producer_name = (
        "<img src=x onerror=alert(1)>\x1b[2J\u202e"
    )
    lab.choose(written(tmp_path, model.SerializeToString()))
    expect(lab.page.locator("[data-code=operator-unknown]")).to_contain_text(
        "<img src=x onerror=alert(1)>\\x1b[2J\\u202e"
    )
    expect(lab.page.locator(".lab img")).to_have_count(0)


@pytest.mark.parametrize("task", ["examine", "compare"])
def test_what_takes_too_long_is_ended_with_a_sentence(task: str, lab: Lab) -> None:
    said = lab.page.evaluate(
        """async (task) => {
          const { ask } = await import("../_static/labs/doctor/client.js");
          const file = new Blob([new Uint8Array(1000)]);
          return ask(task, [file, file], {}, { seconds: 0 }).then(() => "answered", (error) => error.message);
        }""",
        task,
    )
    assert said.startswith("The examination took more than 0 seconds, so the page ended it.")


def test_lists_longer_than_a_page_holds_are_refused(lab: Lab, tmp_path: Path) -> None:
    model = linear(4)
    model.graph.initializer.add(name="long", data_type=7, dims=[17 * 2**20], int64_data=[1] * (17 * 2**20))
    lab.choose(written(tmp_path, model.SerializeToString()))
    expect(lab.said).to_contain_text("more than 16 MiB of numbers in lists, which is too much for a page")


def test_two_models_are_compared(lab: Lab, tmp_path: Path) -> None:
    lab.open(example="healthy", **{"with": "in_training"})
    said = lab.page.get_by_role("status").nth(1)
    expect(said).to_contain_text("From healthy.onnx to in_training.onnx: ")
    changes = lab.page.locator(".doctor-differences")
    expect(changes.get_by_role("region", name="Nodes added")).to_contain_text("Dropout")
    expect(changes.get_by_role("region", name="Nodes changed")).to_contain_text("input 1: r → d")
    expect(changes.get_by_role("region", name="Stored tensors added")).to_contain_text("ratio float32[]")
    lab.choose(written(tmp_path, maker("doctor").examples()["healthy.onnx"]), which=1)
    expect(said).to_have_text("healthy.onnx and mine.onnx hold the same model.")
    assert "with" not in lab.page.url
    lab.page.get_by_label("The second file: an example").select_option("web_page")
    expect(said).to_contain_text("web_page.onnx cannot be compared. This is another kind of file.")
    lab.choose(written(tmp_path, b"\x89PNG\r\n\x1a\n", "p.png"))
    lab.page.get_by_label("The second file: an example").select_option("healthy")
    expect(said).to_contain_text("p.png cannot be compared. This is another kind of file.")


def test_the_viewer_opens_a_file_of_ones_own(lab: Lab, tmp_path: Path) -> None:
    lab.choose(written(tmp_path, linear(64).SerializeToString(), "private.onnx"))
    expect(lab.said).to_have_text("private.onnx: nothing found.")
    with lab.page.context.expect_page() as opened:
        lab.page.get_by_role("link", name="Open it in the viewer").click()
    viewer = opened.value
    expect(viewer.locator("#canvas .node").first).to_be_attached()
    expect(viewer.locator("#canvas")).to_contain_text("MatMul")
    assert "private" not in viewer.url


def test_what_is_left_to_python_is_told(lab: Lab) -> None:
    lab.page.get_by_text("What this page does not look at").click()
    told = lab.page.locator(".doctor-left-out")
    titles = {c.title for c in cu.diagnosis.vocabulary.all_codes() if c.id in ("run-fails", "shape-conflict")}
    assert len(titles) == 2
    for title in titles:
        expect(told).to_contain_text(title)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_accessible_and_not_wider_than_the_screen(theme: str, width: int, lab: Lab) -> None:
    lab.page.set_viewport_size({"width": width, "height": 900})
    lab.open(theme=theme, example="int8_gone_wrong", **{"with": "int8"})
    expect(lab.page.get_by_role("status").nth(1)).to_contain_text("differences")
    lab.page.get_by_text("What this page does not look at").click()
    wide = lab.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0
    lab.page.add_script_tag(path=labs.AXE)
    found = lab.page.evaluate("axe.run('.lab')")["violations"]
    severe = [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")]
    assert severe == [], json.dumps(severe)
