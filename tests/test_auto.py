"Saved models in transformers' own classes and pipelines."
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from rekd.auto import RekdConfig, RekdForClassification
from rekd.errors import DataError, ModelError, SettingError
from rekd.model import RationaleModel
from rekd.run import find_model
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageClassification, AutoModelForSequenceClassification, AutoTokenizer, pipeline

TOP = Path(__file__).resolve().parents[1]
TEXTS = ["the good and the dull", "good", "dull good the and dull the good and dull " * 9]


@pytest.fixture
def folder(text_model, tmp_path):
    text_model.save_pretrained(tmp_path / "mine")
    return tmp_path / "mine"


def test_the_configuration_says_whose_it_is(folder, text_model):
    config = AutoConfig.from_pretrained(folder)
    assert isinstance(config, RekdConfig) and config.model_type == "rekd"
    assert list(config.id2label.values()) == text_model.config.labels and config.num_labels == len(text_model.config.labels)

@pytest.mark.parametrize("auto", [AutoModel, AutoModelForSequenceClassification])
def test_an_auto_class_loads_what_was_saved(folder, text_model, auto):
    model = auto.from_pretrained(folder)
    assert isinstance(model, RekdForClassification) and not model.training
    assert model.explain(TEXTS[0]).to_dict() == text_model.explain(TEXTS[0]).to_dict()
    assert auto.from_pretrained(folder, dtype=torch.bfloat16).dtype == torch.bfloat16

@pytest.mark.parametrize("options", [{}, dict(batch_size=3), dict(truncation=True)], ids=str)
def test_a_pipeline_answers_as_explain_does(folder, text_model, options):
    for e, found in zip(text_model.explain(TEXTS), pipeline("text-classification", str(folder))(TEXTS, **options)):
        assert found["label"] == e.label and found["score"] == pytest.approx(e.probabilities[e.label], abs=1e-6)

@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_and_long_texts_move_nothing(folder, text_model, side):
    model, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer(TEXTS, return_tensors="pt", padding=True, padding_side=side)
    with torch.inference_mode(): out = model(**tokens)
    for i, e in enumerate(text_model.explain(TEXTS)):
        torch.testing.assert_close(out.logits[i].softmax(-1), torch.tensor(list(e.probabilities.values())), atol=1e-6, rtol=0)
        kept = tokens["input_ids"][i][out.rationale[i].bool()].tolist()
        assert kept == [j for j, keep in zip(tokenizer(e.source, add_special_tokens=False)["input_ids"], e.mask) if keep]

def test_pictures(image_model, tmp_path):
    image_model.save_pretrained(tmp_path / "p")
    picture = Image.effect_mandelbrot((40, 30), (-2, -1.5, 1, 1.5), 60).convert("RGB")
    model, prepared = AutoModelForImageClassification.from_pretrained(tmp_path / "p"), AutoImageProcessor.from_pretrained(tmp_path / "p")
    with torch.inference_mode(): out = model(**prepared(picture, return_tensors="pt"))
    e = image_model.explain(picture)
    torch.testing.assert_close(out.logits[0].softmax(-1), torch.tensor(list(e.probabilities.values())), atol=0.02, rtol=0) # pixels up to rounding
    assert {r["label"] for r in pipeline("image-classification", str(tmp_path / "p"))(picture)} == set(image_model.config.labels)
    with pytest.raises(DataError, match="AutoImageProcessor"): model(pixel_values=torch.zeros(1, 3, 5, 5))

def test_a_model_that_never_learned_to_select_reads_everything(text_model, tmp_path):
    text_model.config.selects = False
    text_model.save_pretrained(tmp_path / "cls")
    batch = text_model.processor(TEXTS[:1])
    with torch.inference_mode(): meant = text_model.eval().predict(batch, torch.ones(batch["valid"].shape))[0].softmax(-1)
    found = pipeline("text-classification", str(tmp_path / "cls"), top_k=None)(TEXTS[:1])[0]
    assert {r["label"]: pytest.approx(r["score"], abs=1e-6) for r in found} == dict(zip(text_model.config.labels, meant.tolist()))

def test_labels_give_a_loss_that_learns(folder):
    model, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    out = model(**tokenizer(TEXTS, return_tensors="pt", padding=True), labels=torch.tensor([0, 1, 1]))
    out.loss.backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())

def test_what_transformers_saves_is_ours_again(folder, tmp_path):
    AutoModel.from_pretrained(folder).save_pretrained(tmp_path / "again")
    assert RationaleModel.from_pretrained(tmp_path / "again").explain(TEXTS[0]).to_dict() == RationaleModel.from_pretrained(folder).explain(TEXTS[0]).to_dict()

def test_an_older_folder_has_no_model_type_and_loads_by_its_class(folder, text_model):
    config = json.loads((folder / "config.json").read_text())
    del config["model_type"]
    (folder / "config.json").write_text(json.dumps(config))
    assert RationaleModel.from_pretrained(folder).explain(TEXTS[0]).to_dict() == text_model.explain(TEXTS[0]).to_dict()
    classify = pipeline("text-classification", RekdForClassification.from_pretrained(folder), tokenizer=str(folder))
    assert classify(TEXTS[0])[0]["label"] == text_model.explain(TEXTS[0]).label

def test_a_damaged_folder_is_refused_in_one_line(folder):
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-8])
    with pytest.raises(ModelError) as e: AutoModel.from_pretrained(folder)
    assert "\n" not in str(e.value)

@pytest.mark.parametrize("labels", [5, "good", {"a": 1}, [1, 2], None], ids=str)
def test_labels_that_are_none_are_refused_in_one_line(folder, labels):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | dict(labels=labels)))
    with pytest.raises(ModelError, match="labels|class name") as e: AutoModel.from_pretrained(folder)
    assert "\n" not in str(e.value)

def test_our_own_loading_needs_no_registration(folder):
    "Files with `model_type` do not confuse transformers in the command, which never imports rekd.auto."
    code = f"""import sys; sys.path.insert(0, {str(TOP)!r}); sys.argv[0] = "rekd"
from rekd.model import RationaleModel
from rekd.run import find_model
assert "rekd.auto" not in sys.modules
print(RationaleModel.from_pretrained({str(folder)!r}).explain("good").label)"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True).stdout.strip()

def test_plain_import_rekd_is_enough(folder, text_model):
    code = f"""import sys; sys.path.insert(0, {str(TOP)!r})
import rekd
from transformers import AutoModel, AutoModelForSequenceClassification, pipeline
for auto in (AutoModel, AutoModelForSequenceClassification): assert type(auto.from_pretrained({str(folder)!r})).__name__ == "RekdForClassification"
print(pipeline("text-classification", {str(folder)!r})("good")[0]["label"])"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True).stdout.strip() in text_model.config.labels

@pytest.mark.parametrize("program", ["/usr/bin/rekd", r"rekd.exe", "nbdev-export"])
def test_the_command_does_not_wait_for_torch(program):
    code = f"""import sys; sys.path.insert(0, {str(TOP)!r}); sys.argv[0] = {program!r}; import rekd; print({{"torch", "transformers", "huggingface_hub", "fastcore"}} & set(sys.modules))"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True).stdout.strip() == "set()"


@pytest.mark.parametrize("auto", [AutoModel, RekdForClassification])
@pytest.mark.parametrize("options, said", [(dict(sparsity=0.9), "sparsity=0.9 cannot change"), (dict(num_labels=5), "(num_labels=5|id2label=.*) cannot change"),
                                           (dict(id2label={0: "a", 1: "b"}), "id2label=.* cannot change"), (dict(dtype="int8"), "dtype must be"),
                                           (dict(device_map="auto"), "device_map='auto' is not followed.*to\\(device\\)"), (dict(load_in_8bit=True), "load_in_8bit=True is not followed")])
def test_an_option_that_cannot_be_followed_is_refused(auto, options, said):
    with pytest.raises(SettingError, match=said): auto.from_pretrained(find_model("imdb-small"), **options)


def test_half_precision_by_its_name_and_a_model_without_weights():
    loaded = RekdForClassification.from_pretrained(find_model("imdb-small"), dtype="float16")
    assert {p.dtype for p in loaded.parameters()} == {torch.float16} == {AutoModel.from_pretrained(find_model("imdb-small"), torch_dtype="float16").dtype}
    with pytest.raises(SettingError, match="use from_pretrained"): AutoModel.from_config(loaded.config)


def test_ids_without_their_special_tokens_are_refused_and_not_misread(folder):
    model, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    bare = tokenizer(TEXTS[0], add_special_tokens=False, return_tensors="pt")["input_ids"]
    whole = tokenizer(TEXTS[0], return_tensors="pt")["input_ids"]
    for ids in (bare, whole[:, :-1], whole[:, 1:]):
        with pytest.raises(DataError, match="without the special tokens"): model(input_ids=ids)
    with pytest.raises(DataError, match=r"shape \(B, L\), got"): model(input_ids=whole[0])


def test_arguments_of_transformers_are_followed_or_refused(folder):
    model, tokens = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)(TEXTS[0], return_tensors="pt")
    with torch.inference_mode():
        out, (logits, rationale) = model(**tokens, output_attentions=None), model(**tokens, return_dict=False, output_hidden_states=False)
    assert torch.equal(out.logits, logits) and torch.equal(out.rationale, rationale)
    for name in ("output_attentions", "output_hidden_states", "inputs_embeds"):
        with pytest.raises(SettingError, match=f"{name} has no meaning"): model(**tokens, **{name: True})
    for types in (True, False): # some tokenizers do not tell which text a token is of
        pair = AutoTokenizer.from_pretrained(folder)(TEXTS[0], "dull", return_tensors="pt", return_token_type_ids=types)
        with pytest.raises(DataError, match="parts this one in two"): model(**pair)


def test_a_trainer_evaluates_and_trains(folder, tmp_path):
    from transformers import Trainer, TrainingArguments
    model, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    rows = [dict(tokenizer(t, padding="max_length", max_length=12, truncation=True), labels=i) for i, t in enumerate(TEXTS[:2])]
    before = {k: v.clone() for k, v in model.state_dict().items()}
    trainer = Trainer(model, TrainingArguments(str(tmp_path / "t"), report_to=[], use_cpu=True, max_steps=1, save_strategy="no", learning_rate=0.1), train_dataset=rows, eval_dataset=rows)
    assert trainer.evaluate()["eval_loss"] > 0
    trainer.train()
    assert any(not torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_padded_ids_need_their_mask(folder):
    tokens = AutoTokenizer.from_pretrained(folder)(TEXTS[:2], padding=True, return_tensors="pt")
    with pytest.raises(DataError, match="give their attention_mask"): AutoModel.from_pretrained(folder)(input_ids=tokens["input_ids"])
