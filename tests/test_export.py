"A model as one ONNX graph: the same answers, at any size, and what is refused."

import pytest
import tiny
import torch
from rekd.cli import main
from rekd.errors import ModelError, SettingError
from rekd.export import LIMIT, Graph, difference, export_onnx, topk_by_rank
from rekd.select import topk_mask

onnxruntime = pytest.importorskip("onnxruntime")


def test_counting_keeps_what_sorting_keeps():
    g = torch.Generator().manual_seed(0)
    scores, able = torch.randn(300, 11, generator=g).round(decimals=1), torch.rand(300, 11, generator=g) < 0.7
    for share in (0.05, 0.1, 0.25, 0.5, 1.0): assert torch.equal(topk_by_rank(scores, able, share), topk_mask(scores, able, share))


@pytest.mark.parametrize("kind, options", [("bert", dict(dropped="remove", pool="mean", generator_layers=1)), ("timm", {}), ("vit", dict(dropped="remove"))])
def test_a_graph_answers_as_the_model(kind, options, tmp_path):
    model = tiny.make_model(kind, **options)
    assert export_onnx(model, tmp_path / "m.onnx")["difference"] <= LIMIT and not model.training
    batch = tiny.make_batch(kind, seed=5, lengths=(7, 20, 11))
    mask = model.mask(model.select(batch), model.selectable(batch)).detach()
    inputs = dict(pixel_values=batch["inputs"].numpy()) if kind in tiny.IMAGES else dict(input_ids=batch["inputs"].numpy(), attention_mask=batch["valid"].long().numpy())
    probabilities, scores, rationale = onnxruntime.InferenceSession(tmp_path / "m.onnx").run(None, inputs)
    assert torch.equal(torch.from_numpy(rationale), mask)
    torch.testing.assert_close(torch.from_numpy(probabilities), model.predict(batch, mask).softmax(-1).detach(), atol=1e-4, rtol=0)
    assert scores.shape == rationale.shape and ((scores > 0) == model.selectable(batch).numpy()).all()


def test_the_command_writes_eight_bits_and_tells_the_labels(tmp_path, capsys):
    tiny.make_model().save_pretrained(tmp_path / "mine")
    main(["export", str(tmp_path / "mine"), "--onnx", "new/m.onnx", "--int8"])
    assert "new/m.onnx: " in capsys.readouterr().out
    session = onnxruntime.InferenceSession("new/m.onnx")
    assert session.get_modelmeta().custom_metadata_map["labels"].split("\n") == tiny.LABELS
    assert LIMIT < difference(tiny.make_model(), tmp_path / "new" / "m.onnx") < 0.1 # eight bits were used
    with pytest.raises(SystemExit, match="must end in .onnx"): main(["export", str(tmp_path / "mine"), "--onnx", "m.json"])


def test_what_cannot_be_written_is_refused_and_leaves_no_file(tmp_path, monkeypatch):
    with pytest.raises(SettingError, match="'bigru' cannot be written as ONNX"): export_onnx(tiny.make_model("bigru"), tmp_path / "m.onnx")
    monkeypatch.setattr("rekd.export._trace", lambda model, file: None)
    monkeypatch.setattr("rekd.export.difference", lambda model, file: 0.5)
    with pytest.raises(ModelError, match="by 0.5"): export_onnx(tiny.make_model(), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_special_tokens_are_known_by_their_place():
    model, batch = tiny.make_model(), tiny.make_batch()
    assert torch.equal(Graph(model).batch(batch["inputs"], batch["valid"].long())["special"], batch["special"])
