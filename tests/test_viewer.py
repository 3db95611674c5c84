"""The viewer: what is served, where it is shown, and that nobody watches."""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
import types
import urllib.error
import urllib.request
from pathlib import Path

import netron
import onnx
import pytest

import course_utils as cu
from course_utils.pages import netron_static, viewer

# The exporter's note of where a node comes from; it holds paths of the machine.
TRACE = "pkg.torch.onnx.stack_trace"


@pytest.fixture(autouse=True)
def plain_kernel(monkeypatch, folder):
    """Neither a hub nor Colab nor the book's build, whatever the tests run in."""
    for name in (viewer.BOOK_MODELS, "JUPYTERHUB_SERVICE_PREFIX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)


def shown_address(shown) -> str:
    return re.search(r'<iframe [^>]*src="([^"]+)"', shown.data)[1]


def get(address: str) -> bytes:
    with urllib.request.urlopen(address, timeout=10) as answer:
        return answer.read()


def test_a_model_is_served_on_loopback(fashion_onnx):
    shown = cu.show(fashion_onnx, height=321)
    address = shown_address(shown)
    page, model = re.fullmatch(
        r"(http://127\.0\.0\.1:\d+/netron/index\.html)\?url=(\.\./models/.+\.onnx)", address
    ).groups()
    assert 'height="321"' in shown.data
    assert 'title="fashion_resnet in Netron"' in shown.data
    assert b"<title>Netron</title>" in get(page)
    data = get(page.replace("netron/index.html", model.removeprefix("../")))
    assert onnx.load_from_string(data) == onnx.load(fashion_onnx)
    # The name is made from the content, so that a changed model is not taken from the browser's cache.
    assert hashlib.sha256(data).hexdigest()[:8] in model


@pytest.mark.parametrize("path", ["", "models", "models/", "../../etc/passwd", "models/%2e%2e/%2e%2e/etc/passwd"])
def test_nothing_else_is_served(path, fashion_onnx):
    root = shown_address(cu.show(fashion_onnx)).split("netron/")[0]
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(root + path)


def test_every_file_that_the_page_asks_for_is_there(folder):
    netron_static.build(folder)
    asked = set(re.findall(r'(?:src|href)="([\w-]+\.\w+)"', (folder / "index.html").read_text()))
    for script in folder.glob("*.js"):
        asked |= set(re.findall(r"(?:from |import\()'\./([\w-]+\.js)'", script.read_text()))
    assert {"index.js", "grapher.css", "base.js", "dagre.js"} <= asked
    assert asked <= {f.name for f in folder.iterdir()}


def test_a_model_in_memory_gets_the_name_it_is_given(fashion_onnx):
    assert "models/my_model-" in shown_address(cu.show(onnx.load(fashion_onnx), name="my model"))
    assert "models/model-" in shown_address(cu.show(onnx.ModelProto()))
    shown = cu.show(onnx.ModelProto(), name='"><script>')
    assert "<script>" not in shown.data


def test_one_server_for_all_models(fashion_onnx):
    first, second = (shown_address(cu.show(fashion_onnx, name=name)).split("/netron")[0] for name in "ab")
    assert first == second


def test_nobody_watches(folder):
    """The steps that ask where the reader is, show a consent dialog, or load analytics are never called."""
    netron_static.build(folder / "netron")
    original = (Path(netron.__file__).parent / "browser.js").read_text()
    patched = (folder / "netron" / "browser.js").read_text()
    for step in ("age", "consent", "telemetry", "capabilities"):
        assert f"await {step}()" in original
        assert f"await {step}()" not in patched
    assert len(original.splitlines()) - len(patched.splitlines()) == 4, "the four calls are gone, and nothing else"


@pytest.mark.parametrize("change", ["one call fewer", "a file is gone", "no version"])
def test_a_netron_that_has_changed_is_refused(change, folder, monkeypatch):
    copy = folder / "netron"
    shutil.copytree(Path(netron.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    if change == "one call fewer":
        text = (copy / "browser.js").read_text()
        (copy / "browser.js").write_text(text.replace("await telemetry();", "await measure();"))
    elif change == "a file is gone":
        (copy / "onnx-proto.js").unlink()
    else:
        (copy / "index.html").write_text((copy / "index.html").read_text().replace('name="version"', 'name="release"'))
    monkeypatch.setattr(netron, "__file__", str(copy / "__init__.py"))
    with pytest.raises(cu.CourseError, match=r"is not as the course expects \(.*install the version in constraints"):
        netron_static.build(folder / "out")


def test_in_the_book_the_address_is_relative_and_the_model_holds_no_paths(fashion_onnx, folder, monkeypatch):
    model = onnx.load(fashion_onnx)
    traces = [p for node in model.graph.node for p in node.metadata_props if p.key == TRACE]
    assert traces, "the exporter writes them; otherwise this test says nothing"
    monkeypatch.setenv(viewer.BOOK_MODELS, str(folder / "models"))
    address = shown_address(cu.show(model, name="net"))
    (file,) = (folder / "models").iterdir()
    assert address == f"../netron/index.html?url=../models/{file.name}"
    published = onnx.load(file)
    assert not [p for node in published.graph.node for p in node.metadata_props if "stack_trace" in p.key]
    assert str(Path(cu.__file__).parent).encode() not in file.read_bytes()
    assert [n.op_type for n in published.graph.node] == [n.op_type for n in model.graph.node]
    assert [p for node in model.graph.node for p in node.metadata_props if p.key == TRACE] == traces, "a copy was made"


def test_on_a_hub_the_port_goes_through_the_proxy(fashion_onnx, monkeypatch):
    monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", "/user/ada/")
    assert re.fullmatch(
        r"/user/ada/proxy/\d+/netron/index\.html\?url=\.\./models/fashion_resnet-\w+\.onnx",
        shown_address(cu.show(fashion_onnx)),
    )


def test_on_colab_its_own_window_is_used(fashion_onnx, monkeypatch):
    calls = []
    output = types.ModuleType("google.colab.output")
    output.serve_kernel_port_as_iframe = lambda port, **how: calls.append((port, how))
    colab = types.ModuleType("google.colab")
    colab.output = output
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    monkeypatch.setitem(sys.modules, "google.colab.output", output)
    cu.show(fashion_onnx, height=300)
    ((port, how),) = calls
    assert re.fullmatch(r"/netron/index\.html\?url=\.\./models/fashion_resnet-\w+\.onnx", how["path"])
    assert how["height"] == "300"
    assert b"<title>Netron</title>" in get(f"http://127.0.0.1:{port}/netron/index.html")


@pytest.fixture
def page(folder: Path) -> Path:
    page = folder / "my page"
    (page / "ort").mkdir(parents=True)
    (page / "index.html").write_text("<title>Mine</title>")
    (page / "ort" / "run.mjs").write_text("export default 1")
    return page


def test_a_page_is_served_with_all_that_it_loads(page):
    shown = cu.show_page(page, 'Mine & "yours"', height=321)
    address = shown_address(shown)
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/pages/my_page-[0-9a-f]{8}/index\.html", address)
    assert 'height="321"' in shown.data
    assert "Open “Mine &amp; &quot;yours&quot;” here" in shown.data
    assert get(address) == b"<title>Mine</title>"
    with urllib.request.urlopen(address.replace("index.html", "ort/run.mjs"), timeout=10) as answer:
        assert answer.headers["Content-Type"] == "text/javascript", "a browser takes a module of no other type"
    (page / "ort" / "run.mjs").write_text("export default 2")
    changed = shown_address(cu.show_page(page, "Mine"))
    assert changed != address, "a changed page is not taken from the browser's cache"
    assert get(address.replace("index.html", "ort/run.mjs")) == b"export default 1"
    assert get(changed.replace("index.html", "ort/run.mjs")) == b"export default 2"


def test_a_page_in_the_book(page, folder, monkeypatch):
    monkeypatch.setenv(viewer.BOOK_MODELS, str(folder / "models"))
    address = shown_address(cu.show_page(page, "Mine"))
    assert (folder / "models" / address.removeprefix("../")).read_text() == "<title>Mine</title>"


def test_what_is_loaded_later_is_not_counted_as_loaded(page):
    (page / "large").mkdir()
    (page / "large" / "run.wasm").write_bytes(bytes(3_000_000))
    shown = cu.show_page(page, "Mine", later="large")
    assert "here: 0 MB are loaded, 3 MB more if you ask for them</summary>" in shown.data
    assert len(get(shown_address(shown).replace("index.html", "large/run.wasm"))) == 3_000_000
    assert "here: 3 MB are loaded</summary>" in cu.show_page(page, "Mine").data
    with pytest.raises(cu.CourseError, match=r"holds no folder 'small' with files"):
        cu.show_page(page, "Mine", later="small")


@pytest.mark.parametrize("given", ["no such folder", ".", "my page/index.html"])
def test_not_a_page(given, page):
    with pytest.raises(cu.CourseError, match=r"holds no index\.html: give the folder of a page"):
        cu.show_page(given, "Mine")
