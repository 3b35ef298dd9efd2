"""To the hub and back: a stub on localhost plays the hub, other processes push and load."""

import json
import os
import subprocess
import sys
from pathlib import Path
import pytest
import tiny
import torch
import yaml
from hub_worker import METRICS
from huggingface_hub import ModelCard
from rekd.errors import MissingError, ModelError, SettingError
from rekd.model import RationaleModel
from rekd.run import hub_ids
from stub_hub import TOKEN, stub_hub
from transformers import AutoImageProcessor, AutoTokenizer

HERE = Path(__file__).parent


def ask(url, home, *args):
    "What the worker says of the hub at `url`."
    env = os.environ | dict(HF_ENDPOINT=url, HF_HOME=str(home), HF_TOKEN=TOKEN, HF_HUB_OFFLINE="0", HF_HUB_DISABLE_XET="1", HF_HUB_DISABLE_PROGRESS_BARS="1",
                            PYTHONPATH=f"{HERE}:{HERE.parent}", OMP_NUM_THREADS="1")
    done = subprocess.run([sys.executable, str(HERE / "hub_worker.py"), *args], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def trip(tmp_path_factory):
    "One stub hub, one process that pushes a text and an image model and loads both, and one that does everything wrong."
    home = tmp_path_factory.mktemp("hub")
    with stub_hub() as hub:
        said = ask(hub.url, home / "a", "bert", "vit")
        return hub, said, ask(hub.url, home / "b", "errors")


@pytest.mark.parametrize("kind", ["bert", "vit"])
def test_what_was_pushed_comes_back_bit_for_bit(trip, kind):
    hub, said, _ = trip
    assert said[kind].pop("address").startswith(f"{hub.url}/user/{kind}/")
    assert all(said[kind].values()), said[kind]


def test_the_hub_holds_the_files_that_it_knows(trip):
    common = {"config.json", "model.safetensors", "metrics.json", "rationale.png", "README.md"}
    repos = trip[0].repos
    assert common | {"tokenizer.json", "tokenizer_config.json"} <= set(repos["user/bert"])
    assert common | {"preprocessor_config.json"} == set(repos["user/vit"])
    assert not [p for files in repos.values() for p in files if p.endswith((".bin", ".pt", ".pkl", ".py"))]


def test_the_weights_went_as_large_files(trip):
    seen = trip[0].seen
    assert sum(s.startswith("PUT /lfs-store/") for s in seen) >= 4 # weights and picture of two models
    assert any(s.startswith("POST /api/validate-yaml") for s in seen)


@pytest.mark.parametrize("kind, task", [("bert", "text-classification"), ("vit", "image-classification")])
def test_the_card_on_the_hub(trip, kind, task):
    card = ModelCard(trip[0].repos[f"user/{kind}"]["README.md"].decode())
    assert (card.data.library_name, card.data.pipeline_tag, card.data.model_name) == ("rekd", task, f"user/{kind}")
    found = {(r.metric_type, r.metric_name): r.metric_value for r in card.data.eval_results}
    assert found["accuracy", "accuracy, topk mask"] == 0.75 and found["selection_rate", "selection rate, sampled mask"] == 0.3 and len(found) == 4
    assert f'RationaleModel.from_pretrained("user/{kind}")' in card.text and "](rationale.png)" in card.text
    assert "| topk | 0.750 | 0.250 |" in card.text and "On the 8 test examples of toy reviews" in card.text and "25% of the selectable" in card.text


def test_what_goes_wrong_is_told_in_one_line(trip):
    wrong = trip[2]
    assert {k: v[0] for k, v in wrong.items()} == dict(load="MissingError", revision="MissingError", push=None, token="WriteError")
    assert "spelling" in wrong["load"][1] and "HF_TOKEN" in wrong["token"][1]


def test_a_hub_that_cannot_be_reached(tmp_path):
    wrong = ask("http://127.0.0.1:9", tmp_path, "errors") # a port where nobody listens
    assert {k: v[0] for k, v in wrong.items()} == dict(load="MissingError", revision="MissingError", push="WriteError", token="WriteError")
    for said in wrong.values(): assert "HF_HUB_OFFLINE" in said[1] and "HF_ENDPOINT" in said[1] and "\n" not in said[1]


# a local folder: the same, without a hub

@pytest.mark.parametrize("kind", tiny.BACKBONES)
def test_metrics_and_picture_travel_with_the_folder(tmp_path, kind):
    model = tiny.make_model(kind)
    model.save_pretrained(tmp_path / "without")
    assert not {"metrics.json", "rationale.png"} & {p.name for p in (tmp_path / "without").iterdir()}
    model.metrics, model.picture = METRICS, b"\x89PNG, so to say"
    model.save_pretrained(tmp_path / "with")
    again = RationaleModel.from_pretrained(tmp_path / "with")
    assert (again.metrics, again.picture) == (METRICS, model.picture)
    again.save_pretrained(tmp_path / "again" / "with")
    ours = {f.name for f in (tmp_path / "with").iterdir()} - {"tokenizer_config.json"} # in which transformers notes where it was loaded from
    for name in ours: assert (tmp_path / "with" / name).read_bytes() == (tmp_path / "again" / "with" / name).read_bytes(), name
    bare = RationaleModel.from_pretrained(tmp_path / "without")
    assert (bare.metrics, bare.picture) == (None, None)


def test_the_hubs_own_classes_read_our_processors(tmp_path, text_model, image_model):
    text_model.save_pretrained(tmp_path / "text"); image_model.save_pretrained(tmp_path / "image")
    assert AutoTokenizer.from_pretrained(tmp_path / "text")("good dull")["input_ids"] == text_model.processor.encode(["good dull"])["input_ids"][0]
    pictures = tiny.images(3, 0, size=50) + [p.convert("L") for p in tiny.images(1, 1, size=9)]
    theirs = AutoImageProcessor.from_pretrained(tmp_path / "image")(pictures, return_tensors="pt")["pixel_values"]
    assert (theirs - image_model.processor(pictures)["inputs"]).abs().max() < 0.03 # a step of 1/255, divided by the standard deviation


NASTY = ['<script>alert("x")</script>', "| a | b |\n---\n# heading", "[click](http://bad)", "---\nlicense: mit\n", "{0} {labels} %s", "a: b\n- c", "`code` $x$ ~~s~~ **b**", "", "日本 🙂"]


def test_what_a_user_typed_is_inert_in_the_card(tmp_path):
    model = tiny.make_model("bert")
    model.config.labels = NASTY
    model.config.backbone = model.config.backbone | dict(architecture=NASTY[1])
    model.metrics = dict(dataset=NASTY[3] + NASTY[0], examples=3, masks={NASTY[1]: dict(accuracy=1.0, selection_rate=float("nan"))})
    card = model.generate_model_card(model_id='x"); import os\n```\n# hi')
    head, body = str(card).split("\n---\n", 1)
    data = yaml.safe_load(head)
    assert set(data) == {"library_name", "pipeline_tag", "tags", "model-index"} and data["model-index"][0]["results"][0]["dataset"]["type"].strip("-")
    assert "<script" not in body and "\n# heading" not in body and "\n# hi" not in body and "\n---\n" not in body and "](http" not in body.replace("\\]", "")
    assert body.count("```") == 3 and 'from_pretrained("x\\"); import os\\n```\\n# hi")' in body # inside the line, where three backticks end nothing
    rows = [line for line in body.splitlines() if line.startswith("|")]
    cells = {line.replace("\\|", "").count("|") for line in rows}
    assert cells == {3, 4} # two columns and three, whatever the names hold


def test_the_cards_head_names_licence_base_model_and_data_set(tmp_path):
    model = tiny.make_model("bert")
    model.metrics = METRICS | dict(hub=dict(datasets=["stanfordnlp/imdb"], base_model="prajjwal1/bert-mini"))
    model.save_pretrained(tmp_path / "m", model_card_kwargs=dict(license="mit"))
    data = ModelCard.load(tmp_path / "m" / "README.md").data
    assert (data.license, data.base_model, data.datasets) == ("mit", "prajjwal1/bert-mini", ["stanfordnlp/imdb"])
    assert data.eval_results[0].dataset_type == "stanfordnlp/imdb"
    assert RationaleModel.from_pretrained(tmp_path / "m").metrics["hub"] == model.metrics["hub"]


@pytest.mark.parametrize("data, backbone, weights, right", [
    ("imdb", "bert-mini", "", dict(datasets=["stanfordnlp/imdb"], base_model="prajjwal1/bert-mini")), ("hub:cifar100-20", "vit-tiny", "", dict(
        datasets=["uoft-cs/cifar100"], base_model="WinKawaks/vit-tiny-patch16-224")),
    ("imdb", "bert-mini", "/my/weights", dict(datasets=["stanfordnlp/imdb"])), ("/my/imdb", "bigru", "", {}), ("toy", "/my/bert-mini", "", {})])
def test_a_run_names_only_what_it_knows_on_the_hub(data, backbone, weights, right, monkeypatch):
    monkeypatch.setenv("REKD_WEIGHTS", weights)
    assert hub_ids(data, backbone) == right


@pytest.mark.parametrize("bad", [dict(dataset="x"), dict(masks=3), dict(masks={"topk": 1}), dict(masks={"topk": dict(accuracy="high", selection_rate=1)}),
                                 dict(masks={"topk": dict(accuracy=1.0)}), METRICS | dict(hub=3), METRICS | dict(hub=dict(datasets=3)), [1], "good", 3])
def test_metrics_of_another_form_are_refused(tmp_path, text_model, bad):
    text_model.metrics = bad
    with pytest.raises(ModelError, match="metrics are"): text_model.save_pretrained(tmp_path / "m")
    assert not (tmp_path / "m").exists()
    text_model.metrics = None
    text_model.save_pretrained(tmp_path / "m")
    (tmp_path / "m" / "metrics.json").write_text(json.dumps(bad))
    with pytest.raises(ModelError, match="metrics"): RationaleModel.from_pretrained(tmp_path / "m")


def test_a_picture_from_elsewhere_is_carried_not_opened(tmp_path, text_model):
    text_model.save_pretrained(tmp_path / "m")
    (tmp_path / "m" / "rationale.png").write_bytes(b"no picture at all")
    assert RationaleModel.from_pretrained(tmp_path / "m").picture == b"no picture at all"


def test_names_that_no_hub_takes(text_model):
    with pytest.raises(SettingError, match="Repo id"): text_model.push_to_hub("too/many/parts")
    with pytest.raises(MissingError, match="no model"): RationaleModel.from_pretrained("too/many/parts")


def test_half_precision_keeps_the_metrics(tmp_path, text_model):
    text_model.metrics = METRICS
    text_model.half().save_pretrained(tmp_path / "m")
    again = RationaleModel.from_pretrained(tmp_path / "m")
    assert again.metrics == METRICS and next(again.parameters()).dtype == torch.float32
