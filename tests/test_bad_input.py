"""Inputs that must be refused by name, and odd ones that must work: two tables, a line each, which anyone can extend.

A line of `BAD` is: what is wrong, the kind of error, words that its message must hold, and a function of the `World` below.
"""

import datetime
import io
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from unittest import mock

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rekd.attribute import attribute
from rekd.backbone import BiGRU
from rekd.processor import ImageProcessor, TextProcessor, load_processor
from rekd.pretrained import backbone_from_config, load_backbone
from rekd.settings import settings as rekd_settings
from rekd.cli import main
from rekd.console import parse_changes
from rekd.data import Examples, load_data, loader, make_batches
from rekd.rows import load_rows, stratified_split
from rekd.vocabulary import trim_vocabulary
from rekd.errors import DataError, MissingError, ModelError, RekdError, SettingError, WriteError
from rekd.documents import explain_document
from rekd.evaluate import judge
from rekd.preset import load_preset, resolve
from rekd.results import results_table
from rekd.run import find_model, run
from rekd.study import append_row, cells, read_rows, study
from rekd.objective import RE, REKD
from rekd.loss import rekd_loss
from rekd.model import ModelConfig, RationaleModel, build_model
from rekd.select import deterministic_mask, gumbel_softmax, temperature, topk_mask
from rekd.train import TrainConfig, validate, fit
from safetensors.torch import load_file, save_file
from transformers import BertTokenizer

NAN = float("nan")
TEXTS, LABELS = ["ka", "good", "bad ka", "le"], [0, 1, 0, 1]
EMPTY = dict(text=pa.array([], pa.string()), label=pa.array([], pa.int64()))


def encoded(image, kind="PNG", **options):
    image.save(f := io.BytesIO(), kind, **options)
    return f.getvalue()


def opened(data): return Image.open(io.BytesIO(data))


PICTURE = tiny.images(1, 0, 48)[0]
PNG, JPEG = encoded(PICTURE), encoded(PICTURE, "JPEG")


class World:
    "Tiny models, saved and not, and ways to damage what lies on a disk."
    def __init__(self, top):
        self.top, self.text, self.image = top, tiny.make_model("bert"), tiny.make_model("vit")
        self.text.save_pretrained(top / "text")
        self.image.save_pretrained(top / "image")
        self.text.generator.backbone.net.save_pretrained(top / "bert")
        self.text.processor.tokenizer.save_pretrained(top / "bert")
        self.good = self.rows()
        self.data = tiny.text_data()
        self.logits, self.selectable = torch.zeros(2, 6, 2), torch.ones(2, 6).bool()

    def fresh(self): return self.top / f"{len(list(self.top.iterdir())):04d}"

    def rows(self, train=None, test=None, names=None, **changes):
        "A data folder; `changes` replace columns of the good one."
        good, folder = dict(text=TEXTS * 10, label=LABELS * 10), self.fresh()
        folder.mkdir()
        train = train if train is not None else {k: v * 10 if isinstance(v, list) and len(v) == 4 else v for k, v in (good | changes).items()}
        for part, columns in dict(train=train, test=test if test is not None else train).items():
            pq.write_table(pa.table({k: v for k, v in columns.items() if v is not None}), folder / f"{part}.parquet")
        if names is not None: (folder / "label_names.json").write_text(names)
        return str(folder)

    def file(self, name, content):
        (folder := self.fresh()).mkdir()
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return folder / name

    def parquet(self, change):
        folder = shutil.copytree(self.good, self.fresh())
        (folder / "train.parquet").write_bytes(change((folder / "train.parquet").read_bytes()))
        return str(folder)

    def copy(self, name, change):
        change(folder := shutil.copytree(self.top / name, self.fresh()))
        return folder

    def load(self, change, name="text"): return RationaleModel.from_pretrained(self.copy(name, change))
    def backbone(self, change): return load_backbone(str(self.copy("bert", change)))

    def config(self, name="text", **changes):
        "Load a model whose config.json has other values; None takes a field away."
        def change(folder):
            c = json.loads((folder / "config.json").read_text()) | changes
            (folder / "config.json").write_text(json.dumps({k: v for k, v in c.items() if v is not None}))
        return self.load(change, name)

    def network(self, name="text", **changes):
        "Load a model whose config.json describes another backbone."
        return self.config(name, backbone=(self.text if name == "text" else self.image).config.backbone | changes)

    def weights(self, change):
        "Load a model whose weights were changed."
        def rewrite(folder):
            w = load_file(folder / "model.safetensors")
            change(w)
            save_file(w, folder / "model.safetensors")
        return self.load(rewrite)

    def ini(self, text):
        with mock.patch.dict(os.environ, REKD_SETTINGS=str(self.file("settings.ini", text))): return rekd_settings()


def junk(name, content): return lambda folder: (folder / name).write_bytes(content)
def cut(name, n): return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:n])
def without(name): return lambda folder: (folder / name).unlink()
def first(w): return next(k for k, v in w.items() if v.ndim == 2)
def image_rows(data): return dict(image=[dict(bytes=data, path=None)] * 8, label=[0, 1] * 4)
def seen(w, folder): return list(loader(Examples(load_rows(folder)[0]["train"], ImageProcessor(16, 4)), [[0]]))


def other_classes():
    model = tiny.make_model()
    model.config.labels = ["a", "b", "c"]
    return model


def other_words():
    "As many word pieces as the others have, but not the same."
    vocab = {(word if word in tiny.SPECIAL else word.upper()): i for i, word in enumerate(tiny.VOCAB)}
    return RationaleModel(tiny.make_model().config, TextProcessor(BertTokenizer(vocab=vocab, do_lower_case=False), 40))


class Own(RE):
    "An objective of somebody's own."
    def __init__(self, answer=None, **own):
        super().__init__()
        self.answer = answer
        vars(self).update(own)
    def __call__(self, model, batch, at): return self.answer


def no_choice():
    model = tiny.make_model()
    model.config.selects = False
    return model


def other_grid():
    config = tiny.make_model("vit").config
    return RationaleModel(ModelConfig(config.backbone | dict(patch_size=8), config.labels), ImageProcessor(16, 8))


@contextmanager
def full_disk():
    with mock.patch("os.fsync", side_effect=OSError(28, "No space left on device")): yield


@contextmanager
def read_only():
    with mock.patch("pathlib.Path.mkdir", side_effect=PermissionError(13, "Permission denied")): yield


def while_(state, f):
    with state(): return f()


BAD = [
    # texts
    ("empty text", DataError, ["''", "nothing to read"], lambda w: w.text.explain("")),
    ("blank text", DataError, ["nothing to read"], lambda w: w.text.explain(" \n\t ")),
    ("text of zero-width characters", DataError, ["nothing to read"], lambda w: w.text.explain("\u200b\u200b")),
    ("text of NUL characters", DataError, ["nothing to read"], lambda w: w.text.explain("\0\0")),
    ("None for a text", DataError, ["text 0", "string", "None"], lambda w: w.text.explain(None)),
    ("number for a text", DataError, ["text 0", "3.5"], lambda w: w.text.explain(3.5)),
    ("bytes for a text", DataError, ["text 0", "b'ka'"], lambda w: w.text.explain(b"ka")),
    ("NaN among texts", DataError, ["text 1", "nan"], lambda w: w.text.explain(["ka", NAN])),
    ("list in a list of texts", DataError, ["text 0", "['ka']"], lambda w: w.text.explain([["ka"]])),
    ("one empty text among many", DataError, ["text 40", "nothing to read"], lambda w: w.text.explain(["ka"] * 40 + [""])),
    ("one text of zero-width characters among many", DataError, ["text 40", "nothing to read"], lambda w: w.text.explain(["ka"] * 40 + ["\u200b"])),
    ("image for a text model", DataError, ["text 0", "string"], lambda w: w.text.explain(PICTURE)),
    ("a text instead of a list", DataError, ["list of texts", "'ka'"], lambda w: w.text.processor("ka")),
    ("no texts", DataError, ["no texts"], lambda w: w.text.processor([])),
    # images
    ("text for an image model", DataError, ["PIL image", "str"], lambda w: w.image.explain("cat.png")),
    ("array of NaN for an image", DataError, ["PIL image", "ndarray", "fromarray"], lambda w: w.image.explain(np.full((8, 8, 3), NAN))),
    ("tensor for an image", DataError, ["PIL image", "Tensor"], lambda w: w.image.explain(torch.rand(3, 8, 8))),
    ("bytes for an image", DataError, ["PIL image", "bytes"], lambda w: w.image.explain(PNG)),
    ("image of NaN pixels", DataError, ["mode 'F'", "0..255"], lambda w: w.image.explain(Image.new("F", (8, 8), NAN))),
    ("image of no pixels", DataError, ["(0, 5)"], lambda w: w.image.explain(Image.new("RGB", (0, 5)))),
    ("truncated PNG", DataError, ["cannot be read"], lambda w: w.image.explain(opened(PNG[: len(PNG) // 2]))),
    ("truncated JPEG", DataError, ["cannot be read"], lambda w: w.image.explain(opened(JPEG[: len(JPEG) * 2 // 3]))),
    ("no images", DataError, ["no images"], lambda w: w.image.processor([])),
    ("an image instead of a list", DataError, ["list of PIL images"], lambda w: w.image.processor(PICTURE)),
    # how to explain
    ("unknown mask", SettingError, ["'tokp'", "did you mean 'topk'"], lambda w: w.text.explain("ka", mask="tokp")),
    ("sparsity of 0", SettingError, ["sparsity", "(0, 1]", "0"], lambda w: w.text.explain("ka", sparsity=0)),
    ("sparsity above 1", SettingError, ["sparsity", "1.5"], lambda w: w.text.explain("ka", sparsity=1.5)),
    ("sparsity of NaN", SettingError, ["sparsity", "nan"], lambda w: w.text.explain("ka", sparsity=NAN)),
    ("sparsity in words", SettingError, ["sparsity", "'half'"], lambda w: w.text.explain("ka", sparsity="half")),
    ("batch size of 0", SettingError, ["batch_size", "0"], lambda w: w.text.explain("ka", batch_size=0)),
    # masks and schedules
    ("temperature of 0", SettingError, ["temperature", "0"], lambda w: gumbel_softmax(w.logits, 0)),
    ("negative temperature", SettingError, ["temperature", "-1"], lambda w: gumbel_softmax(w.logits, -1.0)),
    ("temperature of NaN", SettingError, ["temperature", "nan"], lambda w: gumbel_softmax(w.logits, NAN)),
    ("rising temperature", SettingError, ["rise", "start=1", "end=2"], lambda w: temperature(0, 10, 1.0, 2.0)),
    ("no steps", SettingError, ["total_steps", "0"], lambda w: temperature(0, 0)),
    ("a step before the first", SettingError, ["step", "-100"], lambda w: temperature(-100, 1000)),
    ("noise of another shape", SettingError, ["noise", "logits", "(1, 2)"], lambda w: gumbel_softmax(w.logits, 1.0, w.logits.new_zeros(1, 2))),
    ("mask of another shape", SettingError, ["(2, 6)", "(2, 5)"], lambda w: topk_mask(w.logits[..., 0], w.selectable[:, 1:], 0.5)),
    ("selectable of numbers", SettingError, ["bool", "float32"], lambda w: deterministic_mask(w.logits, w.selectable.float())),
    ("top-k of a negative share", SettingError, ["sparsity", "-0.1"], lambda w: topk_mask(w.logits[..., 0], w.selectable, -0.1)),
    # a model's settings
    ("sparsity of 1 in a model", SettingError, ["sparsity", "(0, 1)"], lambda w: tiny.make_model(sparsity=1.0)),
    ("dropout of 1", SettingError, ["dropout", "[0, 1)"], lambda w: tiny.make_model(dropout=1)),
    ("unknown pool", SettingError, ["pool", "'meen'", "'mean'"], lambda w: tiny.make_model(pool="meen")),
    ("unknown freeze_embeddings", SettingError, ["freeze_embeddings", "'all'"], lambda w: tiny.make_model(freeze_embeddings="all")),
    ("select_special in words", SettingError, ["select_special", "'no'"], lambda w: tiny.make_model(select_special="no")),
    ("one class", SettingError, ["two classes", "['a']"], lambda w: ModelConfig(tiny.BACKBONES["bert"], ["a"])),
    ("two classes of one name", SettingError, ["'a'", "more than once"], lambda w: ModelConfig(tiny.BACKBONES["bert"], ["a", "b", "a"])),
    ("numbers as class names", SettingError, ["class names", "[0, 1]"], lambda w: ModelConfig(tiny.BACKBONES["bert"], [0, 1])),
    ("a word as class names", SettingError, ["class names", "'good'"], lambda w: ModelConfig(tiny.BACKBONES["bert"], "good")),
    ("CLS pooling of a GRU", SettingError, ["pool='mean'", "cls"], lambda w: tiny.make_model("bigru", pool="cls")),
    ("odd GRU", SettingError, ["even", "7"], lambda w: BiGRU(10, 7)),
    ("unknown option of a model", SettingError, ["'sparsty'", "'sparsity'"], lambda w: build_model(str(w.top / "bert"), tiny.LABELS, sparsty=0.1)),
    ("max_length of 0", SettingError, ["max_length", "0"], lambda w: build_model(str(w.top / "bert"), tiny.LABELS, max_length=0)),
    ("max_length without room for a word", SettingError, ["max_length", "[3,"], lambda w: tiny.text_processor(max_length=2)),
    ("slow tokenizer", SettingError, ["fast tokenizer", "str"], lambda w: TextProcessor("bert")),
    ("patches that do not fit", SettingError, ["15", "multiple", "4"], lambda w: ImageProcessor(15, 4)),
    ("image size of NaN", SettingError, ["size", "nan"], lambda w: ImageProcessor(NAN, 4)),
    ("std of 0", SettingError, ["std", "0"], lambda w: ImageProcessor(16, 4, std=(1, 0, 1))),
    ("mean of two channels", SettingError, ["mean", "three"], lambda w: ImageProcessor(16, 4, mean=(0, 0))),
    ("image processor for a text model", SettingError, ["texts", "images"], lambda w: RationaleModel(w.text.config, ImageProcessor(16, 4))),
    ("processor of another patch size", SettingError, ["patches of 4", "16 in 8"], lambda w: RationaleModel(w.image.config, ImageProcessor(16, 8))),
    ("tokenizer larger than the word table", SettingError, ["31 tokens", "9 rows"], lambda w: tiny.make_model(backbone=dict(vocab_size=9))),
    ("longer than the positions", SettingError, ["max_length is 40", "20 positions"], lambda w: tiny.make_model(backbone=dict(max_position_embeddings=20))),
    ("longer than RoBERTa's positions", SettingError, ["max_length is 40", "39 positions"], lambda w: tiny.make_model(backbone=dict(model_type="roberta", max_position_embeddings=41, pad_token_id=1))),
    ("a register token for [CLS]", SettingError, ["no [CLS] state", "pool='mean'"], lambda w: tiny.make_model("timm", backbone=dict(architecture="vit_little_patch16_reg4_gap_256"))),
    # backbones
    ("unknown kind of network", SettingError, ["'brt'", "'bert'"], lambda w: backbone_from_config(dict(model_type="brt"))),
    ("no kind of network", SettingError, ["model_type", "None"], lambda w: backbone_from_config({})),
    ("description that is no dict", SettingError, ["dict", "'bert'"], lambda w: backbone_from_config("bert")),
    ("negative width", SettingError, ["no bert network"], lambda w: backbone_from_config(tiny.BACKBONES["bert"] | dict(hidden_size=-4))),
    ("width in words", SettingError, ["no bert network", "'big'"], lambda w: backbone_from_config(tiny.BACKBONES["bert"] | dict(hidden_size="big"))),
    ("heads that do not fit", SettingError, ["no bert network", "heads"], lambda w: backbone_from_config(tiny.BACKBONES["bert"] | dict(num_attention_heads=5))),
    ("decoder that pools at its first token", SettingError, ["'mean'", "gpt2"], lambda w: backbone_from_config(dict(model_type="gpt2", n_embd=8, n_head=1, n_layer=1, vocab_size=9))),
    ("network that mixes padding in", SettingError, ["fnet", "padding"], lambda w: backbone_from_config(dict(model_type="fnet"))),
    ("class to explain that is none", SettingError, ["target", "[0, 1]", "5"], lambda w: attribute(w.text, ["ka"], target=5)),
    ("hybrid of timm", SettingError, ["timm", "hybrid"], lambda w: backbone_from_config(dict(model_type="timm", architecture="vit_tiny_r_s16_p8_224", options=dict(img_size=32, depth=1)))),
    ("network without an adapter", SettingError, ["no adapter", "'swin'"], lambda w: backbone_from_config(dict(model_type="swin"))),
    ("image network of one grid a layer", SettingError, ["no adapter", "'resnet'"], lambda w: backbone_from_config(dict(model_type="resnet"))),
    ("unknown timm architecture", SettingError, ["timm", "'vit_tiny_patch16_22'", "did you mean"], lambda w: load_backbone("timm/vit_tiny_patch16_22", pretrained=False)),
    ("None for a backbone", SettingError, ["name", "None"], lambda w: load_backbone(None)),
    ("unknown backbone", MissingError, ["'bert-bse'", "'bert-base'", "HF_HUB_OFFLINE", "REKD_WEIGHTS"], lambda w: load_backbone("bert-bse")),
    ("more layers than there are", SettingError, ["num_layers", "[1, 2]", "3"], lambda w: load_backbone(str(w.top / "bert"), num_layers=3)),
    ("half a layer", SettingError, ["num_layers", "0.5"], lambda w: load_backbone(str(w.top / "bert"), num_layers=0.5)),
    ("backbone without weights", ModelError, ["safetensors"], lambda w: w.backbone(without("model.safetensors"))),
    ("backbone with truncated weights", ModelError, ["weights", "cannot be used"], lambda w: w.backbone(cut("model.safetensors", 999))),
    ("backbone with a broken config", ModelError, ["config.json", "JSON"], lambda w: w.backbone(junk("config.json", b"{"))),
    ("backbone with weights of another shape", ModelError, ["shape"], lambda w: w.backbone(lambda f: (f / "config.json").write_text((f / "config.json").read_text().replace('"intermediate_size": 64', '"intermediate_size": 32')))),
    ("backbone without a tokenizer", ModelError, ["tokenizer", "missing"], lambda w: load_processor(str(w.copy("bert", lambda f: [p.unlink() for p in f.glob("tok*")])), w.text.generator.backbone)),
    ("broken tokenizer", ModelError, ["tokenizer", "cannot be read"], lambda w: load_processor(str(w.copy("bert", junk("tokenizer.json", b"{"))), w.text.generator.backbone)),
    # saved models
    ("no such model", MissingError, ["'nobody/nothing'", "HF_HUB_OFFLINE", "HF_TOKEN"], lambda w: RationaleModel.from_pretrained("nobody/nothing", local_files_only=True)),
    ("impossible hub id", MissingError, ["no model", "too/many/parts"], lambda w: RationaleModel.from_pretrained("too/many/parts", local_files_only=True)),
    ("None for a model", SettingError, ["folder or a hub id", "None"], lambda w: RationaleModel.from_pretrained(None)),
    ("folder without config.json", MissingError, ["config.json"], lambda w: w.load(without("config.json"))),
    ("misspelt model", MissingError, ["'starter-techer'", "'starter-teacher'"], lambda w: find_model("starter-techer")),
    ("path without a model", MissingError, ["no model", "/nowhere/model"], lambda w: find_model("/nowhere/model")),
    ("two rows of one run", DataError, ["two of", "re paper 1", "leave one out"], lambda w: results_table([dict(objective="re", start="paper", seed=1, config=dict(backbone="x", num_layers=None), masks=dict(topk=dict(accuracy=a, selection_rate=0.1))) for a in (0.5, 0.8)])),
    ("preset without a model", MissingError, ["rekd train paper-imdb-base"], lambda w: find_model("paper-imdb-base")),
    ("config.json of 0 bytes", ModelError, ["config.json", "cannot be read"], lambda w: w.load(junk("config.json", b""))),
    ("config.json that is not JSON", ModelError, ["config.json", "cannot be read"], lambda w: w.load(junk("config.json", b"{'format': 1}"))),
    ("config.json that is not text", ModelError, ["config.json", "cannot be read"], lambda w: w.load(junk("config.json", b"\xff\xfe\x00"))),
    ("config.json nested too deep", ModelError, ["config.json", "cannot be read"], lambda w: w.load(junk("config.json", b"[" * 10**6))),
    ("config.json that is a list", ModelError, ["config.json", "object", "[]"], lambda w: w.load(junk("config.json", b"[]"))),
    ("model of a later version", ModelError, ["format 99", "format 1"], lambda w: w.config(format=99)),
    ("model without a version", ModelError, ["format None"], lambda w: w.config(format=None)),
    ("unknown field", ModelError, ["colour"], lambda w: w.config(colour="red")),
    ("missing field", ModelError, ["missing fields", "labels"], lambda w: w.config(labels=None)),
    ("labels of the wrong type", ModelError, ["config.json", "labels", "3"], lambda w: w.config(labels=3)),
    ("sparsity of the wrong type", ModelError, ["config.json", "sparsity", "'a tenth'"], lambda w: w.config(sparsity="a tenth")),
    ("backbone of the wrong type", ModelError, ["config.json", "dict", "[1]"], lambda w: w.config(backbone=[1])),
    ("processor of the wrong type", ModelError, ["config.json", "processor"], lambda w: w.config(processor=[1])),
    ("unknown processor option", ModelError, ["config.json", "colour"], lambda w: w.config(processor=dict(colour=1))),
    ("max_length of NaN", ModelError, ["config.json", "max_length", "nan"], lambda w: w.config(processor=dict(max_length=NAN))),
    ("image options of the wrong type", ModelError, ["config.json", "size"], lambda w: w.config("image", processor=dict(size="big"))),
    ("description of a billion layers", ModelError, ["num_hidden_layers", "1000"], lambda w: w.network(num_hidden_layers=10**9)),
    ("description of another network", ModelError, ["holds", "config.json means"], lambda w: w.network(num_hidden_layers=1)),
    ("description that would fill the memory", ModelError, ["holds", "config.json means"], lambda w: w.network(vocab_size=10**9, hidden_size=10**5)),
    ("more classes than weights", ModelError, ["holds", "config.json means"], lambda w: w.config(labels=["a", "b", "c"])),
    ("no weights", ModelError, ["model.safetensors", "missing"], lambda w: w.load(without("model.safetensors"))),
    ("weights of 0 bytes", ModelError, ["model.safetensors", "damaged"], lambda w: w.load(junk("model.safetensors", b""))),
    ("truncated weights", ModelError, ["model.safetensors", "damaged"], lambda w: w.load(cut("model.safetensors", -8))),
    ("weights that are not safetensors", ModelError, ["model.safetensors", "damaged"], lambda w: w.load(junk("model.safetensors", PNG))),
    ("NaN weight", ModelError, ["not finite", "diverged", "lower rate"], lambda w: w.weights(lambda s: s[first(s)].view(-1)[:1].fill_(NAN))),
    ("infinite weight", ModelError, ["not finite"], lambda w: w.weights(lambda s: s[first(s)].fill_(torch.inf))),
    ("missing weight", ModelError, ["holds", "config.json means"], lambda w: w.weights(lambda s: s.pop(first(s)))),
    ("weight of another name", ModelError, ["does not fit", "colour"], lambda w: w.weights(lambda s: s.__setitem__("colour", s.pop(first(s))))),
    ("weight of another shape", ModelError, ["does not fit"], lambda w: w.weights(lambda s: s.__setitem__(first(s), s[first(s)].reshape(-1)))),
    ("metrics that are not JSON", ModelError, ["metrics.json"], lambda w: w.load(junk("metrics.json", b"{"))),
    # teacher and student
    ("teacher of other classes", ModelError, ["classes", "['a', 'b', 'c']"], lambda w: REKD(other_classes()).fits(w.text)),
    ("teacher of another vocabulary", ModelError, ["31 word pieces"], lambda w: REKD(other_words()).fits(w.text)),
    ("teacher that may drop [CLS]", ModelError, ["select_special", "True", "False"], lambda w: REKD(tiny.make_model(select_special=True)).fits(tiny.make_model(select_special=False))),
    ("teacher of another grid", ModelError, ["patch"], lambda w: REKD(other_grid()).fits(w.image)),
    ("teacher of another modality", ModelError, ["teacher", "image"], lambda w: REKD(tiny.make_model("vit")).fits(w.text)),
    ("no teacher", SettingError, ["needs a teacher"], lambda w: run("demo", "rekd", overrides=dict(teacher=None))),
    ("missing teacher", MissingError, ["'imdb-techer'"], lambda w: run("demo", "rekd", teacher="imdb-techer")),
    # losses
    ("alpha above 1", SettingError, ["alpha", "1.5"], lambda w: REKD(w.text, alpha=1.5)),
    ("negative alpha", SettingError, ["alpha", "-0.1"], lambda w: rekd_loss(torch.zeros(()), torch.zeros(()), torch.zeros(()), 1.0, -0.1)),
    ("alpha of NaN", SettingError, ["alpha", "nan"], lambda w: resolve("demo", "rekd", overrides=dict(alpha=NAN))),
    ("negative lambda", SettingError, ["select_lambda", "-1"], lambda w: RE(-1.0)),
    ("negative lambda in a preset", SettingError, ["kd_r_lambda", "-1"], lambda w: resolve("demo", "rekd", overrides=dict(kd_r_lambda=-1.0))),
    ("unknown part", SettingError, ["part", "'rational'", "'rationale'"], lambda w: REKD(w.text, part="rational")),
    ("unknown noise", SettingError, ["noise", "'share'", "'shared'"], lambda w: resolve("demo", "rekd", overrides=dict(noise="share"))),
    # training
    ("no epochs", SettingError, ["epochs", "0"], lambda w: TrainConfig(epochs=0)),
    ("half an epoch", SettingError, ["epochs", "0.5"], lambda w: TrainConfig(epochs=0.5)),
    ("rate of NaN", SettingError, ["lr", "nan"], lambda w: TrainConfig(lr=NAN)),
    ("negative rate", SettingError, ["lr", "-0.1"], lambda w: TrainConfig(lr=-0.1)),
    ("batches of 0", SettingError, ["batch_size", "0"], lambda w: TrainConfig(batch_size=0)),
    ("unknown precision", SettingError, ["precision", "'fp16'"], lambda w: TrainConfig(precision="fp16")),
    ("unknown evaluation mask", SettingError, ["mask", "'tpk'", "'topk'"], lambda w: validate(w.text, w.data.val, "tpk")),
    ("data for another tokenizer", DataError, ["train", "model.processor"], lambda w: fit(other_words(), w.data, RE())),
    ("objective with weights of its own", SettingError, ["fit", "model's"], lambda w: fit(w.text, w.data, Own(extra=torch.nn.Linear(2, 2)))),
    ("objective with a weight of its own", SettingError, ["fit", "model's"], lambda w: fit(w.text, w.data, Own(extra=torch.nn.Parameter(torch.ones(2))))),
    ("objective without parts", SettingError, ["loss", "parts"], lambda w: fit(w.text, w.data, Own(answer=torch.ones(())), quiet=True)),
    ("part of an objective that is a float", SettingError, ["mine", "one number", "0.5"], lambda w: fit(w.text, w.data, Own(answer=(torch.ones(()), dict(mine=0.5))), quiet=True)),
    ("part of an objective with the log's own name", SettingError, ["'step'"], lambda w: fit(w.text, w.data, Own(answer=(torch.ones(()), dict(step=torch.ones(())))), quiet=True)),
    ("backbones that pool otherwise than the config", SettingError, ["'mean'", "'cls'"], lambda w: RationaleModel(w.text.config, w.text.processor, *(backbone_from_config(w.text.config.backbone, "mean") for _ in "gp"))),
    ("score function with NaN", DataError, ["NaN"], lambda w: judge(w.text, w.data.test, lambda m, b: torch.full(b["valid"].shape, torch.nan))),
    ("score function of another shape", DataError, ["(8, ", "one a feature"], lambda w: judge(w.text, w.data.test, lambda m, b: torch.ones(len(b["valid"])))),
    ("document for a model that selects nothing", ModelError, ["no rationale"], lambda w: explain_document(no_choice(), "ka good")),
    ("image files that are not there", DataError, ["8 of 8", "gone.png"], lambda w: load_rows(w.rows(dict(image=["gone.png"] * 8, label=[0, 1] * 4)))),
    ("objective in words", SettingError, ["objective", "'rekd'"], lambda w: fit(w.text, w.data, "rekd")),
    ("seed in words", SettingError, ["seed", "'x'"], lambda w: run("demo", "re", seed="x")),
    ("seed of half", SettingError, ["seed", "0.5"], lambda w: cells(["re"], [0.5], ["paper"])),
    ("negative seed", SettingError, ["seed", "-1"], lambda w: study("demo", ["cls"], [-1])),
    # presets and studies
    ("unknown preset", SettingError, ["'demmo'", "'demo'"], lambda w: load_preset("demmo")),
    ("None for a preset", SettingError, ["preset", "None"], lambda w: load_preset(None)),
    ("unknown setting", SettingError, ["'epoch'", "'epochs'"], lambda w: resolve("demo", "rekd", overrides=dict(epoch=3))),
    ("setting of the wrong type", SettingError, ["lr", "float", "'high'"], lambda w: resolve("demo", "rekd", overrides=dict(lr="high"))),
    ("sparsity outside (0, 1) in a preset", SettingError, ["sparsity", "(0, 1)", "2"], lambda w: resolve("demo", "rekd", overrides=dict(sparsity=2))),
    ("no rows for training", SettingError, ["n_train", "0"], lambda w: resolve("demo", "rekd", overrides=dict(n_train=0))),
    ("unknown objective", SettingError, ["'rked'", "'rekd'"], lambda w: run("demo", "rked")),
    ("unknown start", SettingError, ["'worm'", "'warm'"], lambda w: study("demo", ["re"], [1], ["worm"])),
    ("warm start of CLS", SettingError, ["warm", "'cls'"], lambda w: run("demo", "cls", start="warm")),
    ("setting without a value", SettingError, ["KEY=VALUE", "'epochs'"], lambda w: parse_changes(["epochs"])),
    # results
    ("half a row", DataError, ["line 2", "not a row", "remove"], lambda w: read_rows(w.file("r.jsonl", '{"a": 1}\n{"a":'))),
    ("junk among rows", DataError, ["line 1", "not a row"], lambda w: read_rows(w.file("r.jsonl", b"\xff\xfe\n{}"))),
    ("a row that is a number", DataError, ["line 1", "3"], lambda w: read_rows(w.file("r.jsonl", "3\n"))),
    ("rows of nothing", DataError, ["rows with results", "masks"], lambda w: results_table([dict(objective="re", start="paper", config=dict(backbone="x", num_layers=None))])),
    ("no rows", DataError, ["rows with results", "none"], lambda w: results_table([])),
    # data sets
    ("unknown data set", SettingError, ["'imbd'", "'imdb'"], lambda w: load_rows("imbd")),
    ("None for a data set", SettingError, ["data set", "None"], lambda w: load_rows(None)),
    ("hub that cannot be reached", MissingError, ["'imdb'", "REKD_DATA", "network"], lambda w: load_rows("imdb")),
    ("starter set that is not there", MissingError, ["starter set", "REKD_ARTIFACTS"], lambda w: load_rows("cifar10", starter=True)),
    ("folder without train.parquet", MissingError, ["train.parquet is missing"], lambda w: load_rows(str(w.top))),
    ("Parquet of 0 bytes", DataError, ["train.parquet", "Parquet"], lambda w: load_rows(w.parquet(lambda b: b""))),
    ("truncated Parquet", DataError, ["train.parquet", "Parquet"], lambda w: load_rows(w.parquet(lambda b: b[:-30]))),
    ("CSV by the name of Parquet", DataError, ["train.parquet", "Parquet"], lambda w: load_rows(w.parquet(lambda b: b"text,label\nka,0\n" * 9))),
    ("Parquet with broken pages", DataError, ["train.parquet", "Parquet"], lambda w: load_rows(w.parquet(lambda b: b[:30] + b"\xff" * 30 + b[60:]))),
    ("misspelt text column", DataError, ["no column 'text'", "'txt'"], lambda w: load_rows(w.rows(text=None, txt=TEXTS))),
    ("misspelt label column", DataError, ["no column 'label'", "did you mean 'lable'"], lambda w: load_rows(w.rows(label=None, lable=LABELS))),
    ("test without a label column", DataError, ["test", "no column 'label'"], lambda w: load_rows(w.rows(test=dict(text=TEXTS)))),
    ("empty train part", DataError, ["train.parquet", "no rows"], lambda w: load_rows(w.rows(train=EMPTY))),
    ("empty test part", DataError, ["test.parquet", "no rows"], lambda w: load_rows(w.rows(test=EMPTY))),
    ("text that is null", DataError, ["no text", "10 rows"], lambda w: load_rows(w.rows(text=["ka", None, "le", "good"]))),
    ("text that is blank", DataError, ["20 rows", "empty text", "train.parquet, row 2"], lambda w: load_rows(w.rows(text=["ka", " ", "", "good"]))),
    ("numbers as texts", DataError, ["strings", "int64"], lambda w: load_rows(w.rows(text=[1, 2, 3, 4]))),
    ("bytes as texts", DataError, ["strings", "binary"], lambda w: load_rows(w.rows(text=[b"ka"] * 4))),
    ("label that is null", DataError, ["10 rows", "no label"], lambda w: load_rows(w.rows(label=[0, None, 1, 0]))),
    ("label of half", DataError, ["whole numbers", "0.5"], lambda w: load_rows(w.rows(label=[0.5, 1.0, 0.5, 1.0]))),
    ("label of NaN", DataError, ["whole numbers", "nan"], lambda w: load_rows(w.rows(label=[0.0, NAN, 0.0, NAN]))),
    ("label that is a list", DataError, ["whole numbers", "list"], lambda w: load_rows(w.rows(label=[[0], [1], [0], [1]]))),
    ("label that is a date", DataError, ["whole numbers", "date"], lambda w: load_rows(w.rows(label=[datetime.date(2026, 1, 1)] * 4))),
    ("label out of range", DataError, ["unknown label '2'", "2 classes"], lambda w: load_rows(w.rows(label=[0, 1, 2, 1], names='["a", "b"]'))),
    ("label that training never saw", DataError, ["test", "unknown label 'goood'", "'good'"], lambda w: load_rows(w.rows(dict(text=TEXTS, label=["good", "bad"] * 2), dict(text=TEXTS, label=["goood"] * 4)))),
    ("single class", DataError, ["one class", "'1'"], lambda w: load_rows(w.rows(label=[1] * 4))),
    ("label names that are not JSON", DataError, ["label_names.json", "JSON"], lambda w: load_rows(w.rows(names="[a, b]"))),
    ("label names that are a number", DataError, ["label_names.json", "3"], lambda w: load_rows(w.rows(names="3"))),
    ("label names that repeat", DataError, ["label_names.json", "different"], lambda w: load_rows(w.rows(names='["a", "a"]'))),
    ("label names of another column", DataError, ["label_names.json", "'label'", "fine"], lambda w: load_rows(w.rows(names='{"fine": ["a", "b"]}'))),
    ("numbers as images", DataError, ["encoded bytes", "int64"], lambda w: load_rows(w.rows(dict(image=LABELS, label=LABELS)))),
    ("image of 0 bytes in a data set", DataError, ["train.parquet, row 1"], lambda w: seen(w, w.rows(image_rows(b"")))),
    ("truncated image in a data set", DataError, ["train.parquet, row 1"], lambda w: seen(w, w.rows(image_rows(PNG[:200])))),
    ("images for a text model", DataError, ["images", "texts"], lambda w: load_data(w.rows(image_rows(PNG)), w.text.processor)),
    ("None for a processor", SettingError, ["processor", "None"], lambda w: load_data(w.good, None)),
    ("fewer rows than classes", DataError, ["n_train=1 leaves no row of"], lambda w: load_data(w.good, w.text.processor, n_train=1)),
    ("negative number of rows", SettingError, ["n_test", "-3"], lambda w: load_data(w.good, w.text.processor, n_test=-3)),
    ("validation share of 1", SettingError, ["val_share", "1"], lambda w: load_data(w.good, w.text.processor, val_share=1)),
    ("validation share too small", DataError, ["cannot be split", "0.01"], lambda w: load_data(w.good, w.text.processor, val_share=0.01)),
    ("split seed in words", SettingError, ["seed", "'x'"], lambda w: load_data(w.good, w.text.processor, split_seed="x")),
    ("class of one row", DataError, ["has one row", "val.parquet"], lambda w: stratified_split(load_rows(w.rows(dict(text=TEXTS, label=[0, 0, 0, 1])))[0]["train"], 0, test_size=0.5)),
    ("negative batch size", SettingError, ["batch_size", "-2"], lambda w: make_batches([1, 2, 3], -2)),
    ("order seed of half", SettingError, ["seed", "1.5"], lambda w: make_batches([1, 2, 3], 2, seed=1.5)),
    ("negative number of workers", SettingError, ["num_workers", "-1"], lambda w: loader(w.data.train, [[0]], num_workers=-1)),
    ("example that is not there", SettingError, ["no example 99"], lambda w: loader(w.data.train, [[99]])),
    ("empty batch", SettingError, ["empty"], lambda w: loader(w.data.train, [[]])),
    ("vocabulary of 0", SettingError, ["size", "0"], lambda w: trim_vocabulary(w.top / "bert", TEXTS, 0, w.top / "x")),
    # settings.ini
    ("unknown key", SettingError, ["'wheights'", "'weights'"], lambda w: w.ini("[paths]\nwheights = x\n")),
    ("unknown section", SettingError, ["'datasetz'", "'datasets'"], lambda w: w.ini("[paths]\n[datasetz]\n")),
    ("unknown data set in the settings", SettingError, ["'imbd'", "'imdb'"], lambda w: w.ini("[paths]\n[datasets]\nimbd = x/y\n")),
    ("settings without a section", SettingError, ["settings.ini", "not a settings file"], lambda w: w.ini("data = x\n")),
    ("settings that are not text", SettingError, ["not a settings file"], lambda w: w.ini(b"[paths]\ndata = \xff\n")),
    ("key given twice", SettingError, ["not a settings file", "data"], lambda w: w.ini("[paths]\ndata = x\ndata = y\n")),
    # writing
    ("full disk for a model", WriteError, ["cannot write", "No space left", "Make room"], lambda w: while_(full_disk, lambda: w.text.save_pretrained(w.top / "full"))),
    ("full disk for a row", WriteError, ["cannot write", "No space left"], lambda w: while_(full_disk, lambda: append_row(w.top / "rows.jsonl", {}))),
    ("read-only folder for a model", WriteError, ["cannot write", "Permission denied"], lambda w: while_(read_only, lambda: w.text.save_pretrained(w.top / "ro"))),
    ("model over other files", WriteError, ["thesis.txt", "would be deleted", "choose another folder"], lambda w: w.text.save_pretrained(w.file("thesis.txt", "x").parent)),
    ("model over a file", WriteError, ["cannot write", "Not a directory"], lambda w: w.text.save_pretrained(w.file("a", "x"))),
    ("file where a folder should be", WriteError, ["cannot write"], lambda w: w.text.save_pretrained(w.file("a", "x") / "model")),
    ("file where the results' folder should be", WriteError, ["cannot write"], lambda w: append_row(w.file("a", "x") / "rows.jsonl", {})),
]


@pytest.fixture(scope="module")
def w(tmp_path_factory):
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture(autouse=True)
def nothing_from_outside(monkeypatch):
    for key in ("SETTINGS", "DATA", "WEIGHTS", "RUNS", "ARTIFACTS"): monkeypatch.delenv(f"REKD_{key}", raising=False)


@pytest.mark.parametrize("kind, words, f", [pytest.param(*row[1:], id=row[0]) for row in BAD])
def test_refused_by_name(kind, words, f, w):
    with pytest.raises(Exception) as e: f(w)
    assert type(e.value) is kind, f"{type(e.value).__name__}: {e.value}"
    message = str(e.value)
    assert "\n" not in message and 20 < len(message) < 900, message
    for word in words: assert word in message, message


def test_there_are_many_and_of_every_kind():
    count = Counter(kind.__name__ for _, kind, _, _ in BAD)
    print(f"\n{len(BAD)} bad inputs:", ", ".join(f"{n} {kind}" for kind, n in count.most_common()))
    assert len(BAD) >= 70 and set(count) == {k.__name__ for k in RekdError.__subclasses__()} & set(count) and min(count.values()) >= 4
    assert len({name for name, *_ in BAD}) == len(BAD)


# --- what is odd, but works ---

def bits16(): return Image.fromarray((np.asarray(PICTURE.convert("L")).astype("uint16") << 8))
def on_its_side(): return opened(encoded(PICTURE.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=95, exif=(lambda e: (e.__setitem__(0x0112, 6), e)[1])(Image.Exif())))
def animation(): return opened(encoded(PICTURE, "GIF", save_all=True, append_images=[Image.new("RGB", PICTURE.size)]))
def near(w, a, b): return (w.image.processor([a])["inputs"] - w.image.processor([b])["inputs"]).abs().mean() < 0.15
def explained(w, text):
    e = w.text.explain(text)
    assert "".join(e.features) and sum(e.mask) >= 1 and json.loads(json.dumps(e.to_dict())) and e._repr_html_().encode()
    return [e.source[a:b] for a, b in e.spans] == e.features
def labels_of(folder): return load_rows(folder)[1]


GOOD = [
    ("nothing to explain", lambda w: w.text.explain([]) == [] == w.image.explain(())),
    ("a text of 100,000 words", lambda w: len(w.text.explain("ka " * 100_000).features) == 38),
    ("one word of 100,000 letters", lambda w: explained(w, "ka" + "x" * 100_000)),
    ("half of a surrogate pair", lambda w: explained(w, "ka \ud83d le") and w.text.explain("ka \ud83d").source == "ka \ufffd"),
    ("NUL in a text", lambda w: explained(w, "ka\0 le")),
    ("right-to-left, emoji, zero-width, combining", lambda w: explained(w, "\u202eabc \u05e9\u05dc\u05d5\u05dd \U0001f469\u200d\U0001f52c e\u0301 ka")),
    ("HTML in a text", lambda w: "<script>" not in w.text.explain("ka <script>alert(1)</script>")._repr_html_()),
    ("a tuple of texts", lambda w: len(w.text.explain(("ka", "le"))) == 2),
    ("NumPy numbers as settings", lambda w: sum(w.text.explain("ka le good ka", sparsity=np.float32(0.5)).mask) == 2),
    ("grey", lambda w: near(w, PICTURE.convert("L"), PICTURE.convert("L").convert("RGB"))),
    ("transparent", lambda w: near(w, PICTURE.convert("RGBA"), PICTURE)),
    ("grey and transparent", lambda w: near(w, PICTURE.convert("LA"), PICTURE.convert("L"))),
    ("palette", lambda w: near(w, PICTURE.quantize(256), PICTURE)),
    ("for print (CMYK)", lambda w: near(w, opened(encoded(PICTURE.convert("CMYK"), "JPEG", quality=95)), PICTURE)),
    ("16 bits", lambda w: near(w, opened(encoded(bits16())), PICTURE.convert("L"))),
    ("32 bits", lambda w: near(w, Image.fromarray(np.asarray(bits16()).astype("int32")), PICTURE.convert("L"))),
    ("black and white", lambda w: near(w, PICTURE.convert("1"), PICTURE.convert("1").convert("RGB"))),
    ("animated", lambda w: near(w, animation(), PICTURE)),
    ("on its side, with a note", lambda w: near(w, on_its_side(), PICTURE) and not near(w, PICTURE.transpose(Image.Transpose.ROTATE_90), PICTURE)),
    ("drawn upright", lambda w: w.image.explain(on_its_side()).source.getexif().get(0x0112) is None),
    ("1 x 1", lambda w: w.image.explain(Image.new("RGB", (1, 1))).label in tiny.LABELS),
    ("1 x 3000", lambda w: w.image.explain(Image.new("RGB", (1, 3000)))._repr_html_().startswith("<div")),
    ("a 16-bit image drawn", lambda w: w.image.explain(bits16())._repr_html_().startswith("<div")),
    ("words as labels", lambda w: labels_of(w.rows(label=["no", "yes", "no", "yes"])) == ["no", "yes"]),
    ("whole numbers stored as decimals", lambda w: labels_of(w.rows(label=[0.0, 1.0, 0.0, 1.0])) == ["0", "1"]),
    ("labels of True and False", lambda w: labels_of(w.rows(label=[True, False] * 2)) == ["False", "True"]),
    ("categories of pandas", lambda w: labels_of(w.rows(label=pa.array(["x", "y"] * 20).dictionary_encode())) == ["x", "y"]),
    ("texts of polars", lambda w: labels_of(w.rows(text=pa.array(TEXTS * 10, pa.large_string()))) == ["0", "1"]),
    ("labels from -1", lambda w: set(labels_of(w.rows(label=[-1, 1, -1, 1]))) == {"-1", "1"}),
    ("a class without rows", lambda w: labels_of(w.rows(names='["a", "b", "c"]')) == ["a", "b", "c"]),
    ("more rows than there are", lambda w: len(load_data(w.good, w.text.processor, n_train=10**6).train) == 32),
    ("texts in an array", lambda w: len(w.text.explain(np.array(["ka", "good ka"]))) == 2),
    ("an empty settings.ini", lambda w: w.ini("")["paths"]["runs"]),
    ("no results yet", lambda w: read_rows(w.top / "none.jsonl") == []),
    ("a class name that is a path", lambda w: w.config(labels=["../../etc", "C:\\x"]).explain("ka").label in ("../../etc", "C:\\x")),
]


@pytest.mark.parametrize("f", [pytest.param(f, id=name) for name, f in GOOD])
def test_odd_but_works(f, w): assert f(w)


# --- the command line ---

CLI = [
    ("unknown preset", ["presets", "demmo"], ["'demmo'", "'demo'"]),
    ("unknown setting", ["train", "demo", "--set", "epoch=3"], ["'epoch'", "'epochs'"]),
    ("setting out of range", ["train", "demo", "--set", "sparsity=2"], ["sparsity", "(0, 1)"]),
    ("setting of NaN", ["train", "demo", "--set", "lr=NaN"], ["lr", "nan"]),
    ("setting without a value", ["study", "demo", "--set", "epochs"], ["KEY=VALUE"]),
    ("missing teacher", ["train", "demo", "--teacher", "imdb-techer"], ["'imdb-techer'"]),
    ("negative seed", ["train", "demo", "--seed", "-1"], ["seed", "-1"]),
    ("unknown model", ["explain", "nothing", "--text", "ka"], ["'nothing'"]),
    ("unknown model on the hub", ["explain", "nobody/nothing", "--text", "ka"], ["nobody/nothing", "HF_HUB_OFFLINE"]),
    ("no input", ["explain", "TEXT"], ["--text"]),
    ("empty text", ["explain", "TEXT", "--text", " "], ["empty"]),
    ("sparsity of NaN", ["explain", "TEXT", "--text", "ka", "--sparsity", "nan"], ["sparsity", "nan"]),
    ("image for a text model", ["explain", "TEXT", "--image", "PNG"], ["reads texts"]),
    ("text for an image model", ["explain", "IMAGE", "--text", "ka"], ["reads images"]),
    ("missing image", ["explain", "IMAGE", "--image", "none.png"], ["none.png"]),
    ("image of 0 bytes", ["explain", "IMAGE", "--image", "ZERO"], ["picture"]),
    ("truncated image", ["explain", "IMAGE", "--image", "CUT"], ["picture"]),
    ("page where a folder is", ["explain", "TEXT", "--text", "ka", "--html", "."], ["folder"]),
    ("page inside a file", ["explain", "TEXT", "--text", "ka", "--html", "ZERO/page.html"], ["cannot write"]),
    ("unknown data set", ["evaluate", "TEXT", "--dataset", "imbd"], ["'imbd'", "'imdb'"]),
    ("data set of another kind", ["evaluate", "TEXT", "--dataset", "PICTURES"], ["images", "texts"]),
    ("no rows at all", ["evaluate", "TEXT", "--dataset", "ROWS", "--n-test", "0"], ["n_test", "0"]),
    ("a setting of another start", ["train", "demo", "--objective", "re", "--set", "start.warm.train.sparsity_start=none"], ["start.warm.train.sparsity_start", "--start warm"]),
    ("negative number of rows", ["evaluate", "TEXT", "--dataset", "ROWS", "--n-test", "-1"], ["n_test", "-1"]),
    ("no study yet", ["table", "demo"], ["no rows"]),
]


@pytest.fixture(scope="module")
def words(w):
    "What the capital letters above stand for."
    return dict(TEXT=w.top / "text", IMAGE=w.top / "image", PNG=w.file("a.png", PNG), ZERO=w.file("b.png", b""), CUT=w.file("c.png", PNG[:300]), ROWS=w.good, PICTURES=w.rows(image_rows(PNG)))


def spelt(args, words):
    for word, path in words.items(): args = [a.replace(word, str(path)) for a in args]
    return args


@pytest.mark.parametrize("args, said", [pytest.param(*row[1:], id=row[0]) for row in CLI])
def test_the_command_says_it_in_one_line(args, said, words, capsys):
    with pytest.raises(SystemExit) as e: main(spelt(args, words))
    line = e.value.code # a string: Python prints it to stderr, and exits with 1
    assert isinstance(line, str) and line.startswith("rekd: ") and "\n" not in line and "Traceback" not in line
    for word in said: assert word in line, line
    assert "Traceback" not in capsys.readouterr().err


def test_the_command_in_a_shell():
    "Two exit codes: 1 for a wrong input, 2 for an option that does not exist."
    ran = lambda *args: subprocess.run([sys.executable, "-m", "rekd.cli", *args], capture_output=True, text=True)
    wrong, unknown = ran("explain", "nothing", "--text", "ka"), ran("explain", "--colour", "red")
    assert wrong.returncode == 1 and len(wrong.stderr.splitlines()) == 1 and wrong.stderr.startswith("rekd: no model 'nothing'") and not wrong.stdout
    assert unknown.returncode == 2 and "Traceback" not in unknown.stderr


def test_a_bug_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr("rekd.preset.preset_text", lambda name: 1 / 0)
    with pytest.raises(ZeroDivisionError): main(["presets", "demo"])


def test_an_interrupt_ends_quietly(monkeypatch):
    def interrupted(name): raise KeyboardInterrupt
    monkeypatch.setattr("rekd.preset.preset_text", interrupted)
    with pytest.raises(SystemExit) as e: main(["presets", "demo"])
    assert e.value.code == 130


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_is_named_from_a_worker_too(workers, w):
    rows = load_rows(w.rows(image_rows(PNG)))[0]["train"]
    rows = rows.remove_columns("input").add_column("input", [dict(bytes=b"x", path=None)] * 8).cast_column("input", datasets.Image()) # since it was read
    with pytest.raises(DataError) as e: next(iter(loader(Examples(rows, ImageProcessor(16, 4)), [[3]], num_workers=workers)))
    assert str(e.value).startswith("the image in row 4 cannot be used") and "Traceback" not in str(e.value)


# --- fuzzing: whatever comes, a result or one of our errors ---

def only_ours(f, *args, **kw):
    try: return f(*args, **kw)
    except RekdError as e: assert "\n" not in str(e)


values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.lists(st.integers(), max_size=3) | st.dictionaries(st.text(max_size=5), st.integers(), max_size=3)
top_fields = ["format", "labels", "pool", "dropout", "sparsity", "select_special", "freeze_embeddings", "norm", "backbone", "processor", "colour"]
net_fields = ["model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act", "vocab_size", "max_position_embeddings", "layer_norm_eps",
              "architecture", "auto_map", "_attn_implementation", "attn_implementation", "dtype", "torch_dtype", "quantization_config", "pad_token_id"]


@given(st.dictionaries(st.sampled_from(top_fields), values, max_size=3))
@settings(max_examples=40)
def test_fuzzed_configs(w, changes): only_ours(w.config, **changes)


@given(st.dictionaries(st.sampled_from(net_fields), values.filter(lambda v: not isinstance(v, int) or abs(v) < 10**4), min_size=1, max_size=2))
@settings(max_examples=40)
def test_fuzzed_networks(w, changes): only_ours(w.network, **changes)


@given(st.binary(max_size=300) | st.builds(lambda n, tail: n.to_bytes(8, "little") + tail, st.integers(0, 2**64 - 1), st.binary(max_size=100)))
def test_fuzzed_weights(w, content): only_ours(w.load, junk("model.safetensors", content))


@given(st.text(st.characters(), max_size=80) | st.binary(max_size=9) | st.none() | st.integers() | st.lists(st.text(max_size=5), max_size=3))
@settings(max_examples=150)
def test_fuzzed_texts(w, text):
    for e in (lambda told: told if isinstance(told, list) else [told] if told else [])(only_ours(w.text.explain, text)):
        assert [e.source[a:b] for a, b in e.spans] == e.features and sum(e.mask) >= 1
        assert json.loads(json.dumps(e.to_dict()))["label"] in tiny.LABELS and e._repr_html_().encode()


@given(st.data(), st.sampled_from([PNG, JPEG, encoded(PICTURE, "GIF"), encoded(PICTURE, "TIFF"), encoded(PICTURE, "WEBP"), encoded(bits16())]))
@settings(max_examples=60)
def test_fuzzed_images(w, data, content):
    broken = bytearray(content[:data.draw(st.integers(1, len(content)))])
    for at in data.draw(st.lists(st.integers(0, len(broken) - 1), max_size=4)): broken[at] ^= 0xFF
    try: image = opened(bytes(broken))
    except Exception: return # Pillow itself refuses it before we see it
    only_ours(w.image.explain, image)


rows = st.dictionaries(st.sampled_from(["objective", "start", "seed", "config", "masks", "seconds", "epochs", "variant", "made_from", "differs"]), values, max_size=10)


@given(st.lists(rows.map(json.dumps) | st.text(max_size=30), max_size=3))
def test_fuzzed_results(w, lines):
    folder = w.top / "fuzz" / "results"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "demo.jsonl").write_text("\n".join(lines), encoding="utf-8", errors="replace")
    only_ours(read_rows, folder / "demo.jsonl")
    only_ours(lambda: results_table(read_rows(folder / "demo.jsonl")))
    with mock.patch.dict(os.environ, REKD_ARTIFACTS=str(w.top / "fuzz")): only_ours(study, "demo", [], [])


@given(st.text(max_size=60) | st.lists(st.sampled_from(["[paths]", "[backbones]", "[x]", "data = a", "data", "= b", "[paths", "%(x)s = 1", "\0"]), max_size=5).map("\n".join))
def test_fuzzed_settings(w, text): only_ours(w.ini, text.encode(errors="replace"))


@given(st.lists(st.text(max_size=20), max_size=3))
def test_fuzzed_changes(pairs):
    changes = only_ours(parse_changes, pairs)
    if changes is not None: only_ours(resolve, "demo", "rekd", overrides=changes)
