"""The lab of chapter 11, in a browser with a software adapter for WebGPU: its tokens are those of `tokenizers`, its text is Python's."""

from __future__ import annotations

import json
import random
import subprocess
from typing import Any

import numpy as np
import pytest
from lab_files import LABS, maker, site_labs

from course_utils.lab.small_decoder import cache_names, decoder_model, sizes, small_decoder_text, small_decoder_weights
from course_utils.pages.browser_lab import node
from course_utils.pages.webgpu_lab import SOFTWARE_ADAPTER
from course_utils.paths import data_path
from course_utils.running import run, session_for

pytest.importorskip("playwright", reason="playwright is not installed: pip install -e '.[test]'")
from labs import Lab, fixtures, looks_right
from playwright.sync_api import expect

tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed: pip install -e '.[llm]'")
NAME, COUNT = "write_text", 100
PROMPTS = maker(NAME).PROMPTS
ENCODE = """
import { readFileSync } from "node:fs";
import { tokenizer } from "./write_text/tokens.js";
const [stored, texts] = JSON.parse(readFileSync(0, "utf8"));
const own = tokenizer(stored);
console.log(JSON.stringify(texts.map((text) => [own.encode(text), own.decode(own.encode(text))])));
"""
site, browser, lab = fixtures(NAME, Lab, *SOFTWARE_ADAPTER)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tokenizers.Tokenizer.from_file(str(data_path("small_decoder_tokenizer.json")))


@pytest.fixture(scope="module")
def greedy(tokenizer: Any) -> dict[str, str]:
    """Prompt → the text that Python's ONNX Runtime writes with the file of the lab."""
    session, found = session_for(decoder_model(small_decoder_weights(), sizes(), small=True)), {}
    empty = np.zeros((1, sizes().kv_heads, 0, sizes().size), np.float32)
    for prompt in PROMPTS:
        new, cache, written = tokenizer.encode(prompt).ids, [empty] * (2 * sizes().layers), []
        while len(written) < COUNT:
            feed = {f"past.{name}": value for name, value in zip(cache_names(sizes()), cache, strict=True)}
            logits, *cache = run(session, {"ids": np.array([new]), **feed}).values()
            new = [int(logits[0, -1].argmax())]
            if new == [0]:
                break
            written += new
        found[prompt] = small_decoder_text(written)
        assert found[prompt] == tokenizer.decode(written)
    return found


def strings() -> list[str]:
    """Lines of the course's own text, and what is made up from signs of many kinds."""
    source = random.Random(11)
    kinds = [
        "abcdefgh XYZ ",
        "éüßñ’“”—…",
        "日本語中文",
        "0123٣४",
        "🙂👩‍🚀🏽",
        " \n\t\r\u00a0\u3000\u0085\u2028",
        "'st're've .,;:!?()[]{}#",
        "\u0301\u200d\ufeff",
        "Ωжא",
    ]
    made = ["".join(source.choice(source.choice(kinds)) for _ in range(source.randrange(1, 40))) for _ in range(600)]
    lines = (data_path("ferry.txt")).read_text(encoding="utf-8").splitlines()
    return ["", " ", "<start>", "a<start>b <start>", "it's he'll 'S", "x  y   z ", "\n\n a", *made, *lines]


def test_tokens_are_those_of_the_package(tokenizer: Any) -> None:
    texts = strings()
    stored = json.loads(data_path("small_decoder_tokenizer.json").read_text(encoding="utf-8"))
    done = subprocess.run(
        [node(), "--input-type=module", "--eval", ENCODE],
        input=json.dumps([stored, texts]), cwd=LABS, capture_output=True, text=True, timeout=60, check=True, encoding="utf-8",
    )  # fmt: skip
    for text, (ids, back) in zip(texts, json.loads(done.stdout), strict=True):
        assert ids == tokenizer.encode(text).ids, repr(text)
        assert back == text.replace("<start>", "")


def written(lab: Lab) -> str:
    """The text behind the prompt, when it is there as a whole."""
    expect(lab.said).to_contain_text("per second")
    prompt = lab.page.locator(".write-page b").evaluate("one => one.textContent")
    return lab.page.locator(".write-page").evaluate("one => one.textContent").removeprefix(prompt)


def test_the_page_writes_what_python_writes_with_the_cache_and_without(lab: Lab, greedy: dict[str, str]) -> None:
    assert not [url for url in lab.requests if url.endswith((".wasm.gz", ".onnx"))], "nothing large before a click"
    for prompt, text in greedy.items():
        lab.page.get_by_role("radio", name="with cache").check(force=True)
        lab.page.get_by_role("button", name=prompt, exact=True).click()
        assert written(lab) == text
        lab.page.get_by_role("radio", name="without", exact=True).check(force=True)
        expect(lab.said).to_have_text("Write again: something has changed.")
        lab.page.get_by_role("button", name="Write", exact=True).click()
        assert written(lab) == text
        expect(lab.said).to_contain_text("With and without cache: the same text.")


def test_webgpu_writes_the_same(lab: Lab, greedy: dict[str, str]) -> None:
    lab.open(prompt=PROMPTS[0].replace(" ", "+"), on="webgpu")
    assert written(lab) == greedy[PROMPTS[0]]
    expect(lab.said).to_contain_text("WebGPU.")


def test_without_webgpu_it_is_a_sentence(lab: Lab) -> None:
    lab.page.add_init_script("Object.defineProperty(Navigator.prototype, 'gpu', { get: () => undefined })")
    lab.open(on="webgpu")
    expect(lab.said).to_contain_text("This browser has no WebGPU, or not on this page")


def test_a_seed_and_the_address_give_the_same_text_again(lab: Lab, greedy: dict[str, str]) -> None:
    lab.open(prompt="A+session", temperature=1, most=20, seed=5)
    first, state = written(lab), lab.state
    assert state == {"prompt": "A session", "temperature": "1", "most": "20", "seed": "5", "cache": "1", "on": "wasm"}
    assert first != greedy["A session"]
    lab.open(prompt="A+session", temperature=1, most=20, seed=5)
    assert written(lab) == first
    lab.open(prompt="A+session", temperature=1, most=20, seed=6)
    assert written(lab) != first


def test_it_stops(lab: Lab) -> None:
    lab.open(prompt="The+model", cache=0)
    written(lab)
    lab.page.get_by_role("button", name="Write", exact=True).press("Enter")
    lab.page.get_by_role("button", name="Stop").press("Enter")
    expect(lab.said).to_contain_text("Stopped.")


def test_bars_show_the_chances_of_the_last_token(lab: Lab) -> None:
    lab.open(prompt="The+model")
    written(lab)
    shares = [
        float(text.removesuffix(" %"))
        for text in lab.page.locator(".write-below [data-series=chance]").all_text_contents()
    ]
    assert shares == sorted(shares, reverse=True)
    assert 0 < sum(shares) <= 100.3


def test_bars_show_what_was_drawn_among(lab: Lab) -> None:
    lab.open(prompt="The+model", temperature="1.5", most="5", seed="2")
    written(lab)
    shares = lab.page.locator(".write-below [data-series=chance]").all_text_contents()
    assert len(shares) == 5
    assert abs(sum(float(text.removesuffix(" %")) for text in shares) - 100) < 0.4


def test_the_drawn_token_is_among_the_bars(lab: Lab) -> None:
    """Whichever was drawn is in bold, also one that is not among the six most probable."""
    rows = lab.page.locator(".write-below .lab-bars tbody tr")
    for seed in range(1, 9):
        lab.open(prompt="The+model", temperature=2, most=0, seed=seed)
        written(lab)
        caption = lab.page.locator(".write-below caption").inner_text()
        bold = rows.filter(has=lab.page.locator(".lab-bar-first"))
        expect(bold).to_have_count(1)
        assert caption.endswith(f"It became {bold.get_by_role('rowheader').inner_text()}.")
        if rows.count() > 6:
            return
    pytest.fail("Each drawn token was among the six.")


def test_what_is_not_used_cannot_be_changed(lab: Lab) -> None:
    seed = lab.page.get_by_label("Seed")
    expect(seed).to_be_disabled()
    lab.open(temperature=1)
    seed.fill("-3")
    seed.blur()
    expect(seed).to_have_value("1")


@pytest.mark.parametrize(
    "state", [{"temperature": "hot", "seed": "-3", "most": "toString", "on": "cloud", "cache": "2"}]
)
def test_nonsense_in_the_address_is_left_out(lab: Lab, greedy: dict[str, str], state: dict[str, str]) -> None:
    lab.open(prompt=PROMPTS[0].replace(" ", "+"), **state)
    assert written(lab) == greedy[PROMPTS[0]]


def test_a_prompt_that_is_too_long_and_a_file_that_is_gone_are_sentences(lab: Lab) -> None:
    lab.page.get_by_label("Prompt").fill("語" * 200)
    lab.page.get_by_role("button", name="Write", exact=True).click()
    expect(lab.said).to_contain_text("make it shorter")
    lab.page.get_by_label("Prompt").fill("")
    lab.page.route("**/decoder.onnx", lambda route: route.fulfill(status=404))
    lab.page.get_by_role("button", name="Write", exact=True).click()
    expect(lab.said).to_have_text("decoder.onnx could not be loaded (404): load the page again.")
    lab.page.unroute("**/decoder.onnx")
    lab.page.get_by_role("button", name="Write", exact=True).click()
    assert written(lab)
    lab.seen.failed.clear()
    lab.seen.errors.clear()


def test_the_words_tell_what_it_writes(greedy: dict[str, str]) -> None:
    words = next(one.alternative for one in site_labs.labs() if one.name == NAME)
    quoted = " ".join(words.split()).split("“")[1].split("”")[0].removesuffix(" …")
    assert (PROMPTS[0] + " ".join(greedy[PROMPTS[0]].split("\n"))).startswith(quoted) and len(quoted) > 60  # noqa: PT018


def test_the_files_are_small(site: Any) -> None:
    assert sum(file.stat().st_size for file in site.files.iterdir()) < 3_000_000


def test_how_it_looks(lab: Lab) -> None:
    lab.open(prompt="The+model")
    written(lab)
    looks_right(lab)
