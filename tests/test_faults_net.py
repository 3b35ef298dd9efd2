"""A network is asked before it is trusted, fed as it was trained, saved so that it loads, and found by its name."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from torch import nn
from transformers import Dinov2Config, Dinov2Model, LongformerConfig, LongformerModel, T5Config, T5EncoderModel, T5Model, ViTConfig, ViTModel

from rekd import pretrained, processor
from rekd.backbone import Backbone, TextBackbone
from rekd.processor import ImageProcessor, load_processor, open_picture
from rekd.pretrained import backbone_from_config, load_backbone, scratch_name
from rekd.check import check_backbone, is_known_backbone
from rekd.errors import DataError, MissingError, ModelError, SettingError
from rekd.run import build
from rekd.preset import resolve
from rekd.model import ModelConfig, RationaleModel, build_model
from rekd.train import TrainConfig, TrainingDiverged, fit
from rekd.objective import RE
from rekd.registry import BACKBONES, register_backbone

sys.path.append(str(Path(__file__).resolve().parents[1] / "tools"))
import networks  # noqa: E402

V = len(tiny.VOCAB)
_small = dict(vocab_size=V, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, max_position_embeddings=64,
              pad_token_id=0, bos_token_id=2, eos_token_id=3, sep_token_id=3)
_vit = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=4)


@pytest.fixture
def registered():
    "A registry as it was before the test."
    before = dict(BACKBONES)
    yield
    BACKBONES.clear(); BACKBONES.update(before)


def text(kind, pool="cls", **options): return backbone_from_config(dict(model_type=kind, **_small) | options, pool)


def model_of(backbone, **options): return RationaleModel(ModelConfig(backbone, tiny.LABELS, **options), tiny.text_processor())


# --- the table of networks ---

TABLE = json.loads((Path(__file__).resolve().parents[1] / "artifacts" / "networks.json").read_text())


def test_the_table_has_every_network_that_is_tried():
    assert [r["network"] for r in TABLE] == list(networks.described()) and len(TABLE) >= 40
    assert all(r["works"] or len(r["why"]) > 20 for r in TABLE)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("row", TABLE, ids=lambda r: r["network"])
def test_a_row_of_the_table_of_networks(row):
    "It works as it stands there, after a trip through a file too, or is refused by name; about a minute for all of them."
    found = networks.tried(row["network"], networks.described()[row["network"]])
    assert {k: found.get(k) for k in ("works", "pool", "kind")} == {k: row.get(k) for k in ("works", "pool", "kind")}
    if row["works"]: assert max(v for k, v in found["numbers"].items() if k != "reach") < 1e-5 and found["numbers"]["reach"] == 1


def test_what_is_not_asked_is_what_the_table_knows():
    works = {r["network"] for r in TABLE if r["works"]}
    assert works >= {*pretrained.TEXT_TYPES, *pretrained.IMAGE_TYPES, "bigru"}
    assert {r["kind"] for r in TABLE if r["works"]} >= {f"timm/{k}" for k in pretrained.TIMM_TYPES}
    assert not works & set(pretrained.REFUSED)
    alone = {r["network"] for r in TABLE if r["works"] and r["pool"] == "mean" and r["network"] in pretrained.TEXT_TYPES}
    assert all(pretrained.reads_forwards(k) for k in alone) # these are refused with "cls" without being asked


# --- padding leaks, memory, reach (faults 8 to 10) ---

class Net(Backbone):
    "A small network that keeps the contract; tests break it in one place each."
    def __init__(self, pool="mean"):
        super().__init__(dict(model_type="net"), 8, pool)
        self.words, self.mix = nn.Embedding(V, 8), nn.Linear(8, 8)
    def features(self, inputs): return self.words(inputs)
    def encode(self, features, valid):
        real = valid.unsqueeze(-1).to(features.dtype)
        return features + self.mix((features * real).sum(1, keepdim=True) / real.sum(1, keepdim=True))


class Padding(Net):
    def encode(self, features, valid): return super().encode(features, torch.ones_like(valid))


class Neighbours(Net):
    "Features that hold a part of the word beside them."
    def features(self, inputs): return self.words(inputs) + 1e-3 * self.words(inputs).roll(1, 1)


class Length(Net):
    "States that depend on how wide the batch is."
    def encode(self, features, valid): return super().encode(features, valid) * features.shape[1]


class Memory(Net):
    seen = 99
    def encode(self, features, valid):
        self.seen = min(self.seen, features.shape[1]) # BigBird's fault: after a short text it is another network
        return super().encode(features, valid) * (1 if self.seen > 5 else 2)


class Running(Net):
    "A memory that is a number: the mean of what it has read."
    def __init__(self, pool="mean"): super().__init__(pool); self.register_buffer("mean", torch.zeros(8))
    def encode(self, features, valid):
        self.mean = 0.9 * self.mean + 0.1 * features.mean((0, 1)).detach()
        return super().encode(features, valid) - self.mean


class Dice(Net):
    def encode(self, features, valid): return super().encode(features, valid) + 0.01 * torch.randn(8)


class NumpyDice(Net):
    def encode(self, features, valid): return super().encode(features, valid) + 100 * float(np.random.rand())


class Window(Net):
    "The first state sees three words."
    def encode(self, features, valid): return features + sum(nn.functional.pad(features * valid[..., None], (0, 0, 0, n))[:, n:] for n in (1, 2))


class Unsaved(Net):
    "A weight that no file holds."
    def __init__(self, pool="mean"): super().__init__(pool); self.register_buffer("turn", torch.randn(8, 8), persistent=False)
    def encode(self, features, valid): return super().encode(features, valid) @ self.turn


class Otherwise(Net):
    "The network's own way in scales its words."
    def plain(self, inputs, valid): return self.encode(2 * self.words(inputs), valid)


class Shape(Net):
    def encode(self, features, valid): return super().encode(features, valid)[:, 1:]


class Breaks(Net):
    def encode(self, features, valid): raise KeyError("no such\nthing")


class Nan(Net):
    def encode(self, features, valid): return super().encode(features, valid) / 0


class ZeroStart(Padding):
    "Its fault is asleep until it is trained: the branch that leaks starts at zero."
    def __init__(self, pool="mean"):
        super().__init__(pool)
        nn.init.zeros_(self.mix.weight); nn.init.zeros_(self.mix.bias)


@pytest.mark.parametrize("fault, pool, says", [
    (Padding, "mean", "beside a longer one"), (Neighbours, "mean", "dropped places"), (Length, "mean", "beside a longer one"), (ZeroStart, "mean", "beside a longer one"),
    (Memory, "mean", "after another input"), (Running, "mean", "asked twice"), (Dice, "mean", "asked twice"), (NumpyDice, "mean", "asked twice"),
    (Window, "cls", "pool='mean'"), (Unsaved, "mean", "saved and loaded"), (Otherwise, "mean", "plain network"),
    (Shape, "mean", "hidden states of shape"), (Breaks, "mean", "KeyError"), (Nan, "mean", "nan")])
def test_a_network_that_breaks_the_contract_is_refused_by_name_and_number(fault, pool, says, registered):
    register_backbone("net")(fault)
    with pytest.raises(SettingError, match="'net'") as e: check_backbone(fault(pool), tiny.text_processor())
    assert says in str(e.value) and "\n" not in str(e.value)
    with pytest.raises(SettingError, match="'net'"): model_of(dict(model_type="net"), pool=pool) # and no model is built of it


def test_a_network_that_keeps_the_contract_is_left_as_it_was(registered):
    register_backbone("net")(Net)
    for pool in ("mean", "cls"):
        net = Net(pool).train()
        net.mix.eval()
        weights, before = {k: v.clone() for k, v in net.state_dict().items()}, (torch.get_rng_state(), np.random.get_state()[1].copy())
        numbers = check_backbone(net, tiny.text_processor())
        assert numbers["dropped"] == 0 and numbers["reach"] == 1 and max(numbers[k] for k in ("padding", "again", "after", "loaded")) < 1e-5
        assert net.training and not net.mix.training and all(torch.equal(v, weights[k]) for k, v in net.state_dict().items())
        assert torch.equal(before[0], torch.get_rng_state()) and (before[1] == np.random.get_state()[1]).all()


def test_an_unregistered_network_is_refused_before_it_is_trained():
    with pytest.raises(SettingError, match="'net'.*plugin"):
        RationaleModel(ModelConfig(dict(model_type="net"), tiny.LABELS, pool="mean"), tiny.text_processor(), Net(), Net())


def test_a_subclass_that_would_come_back_as_its_parent_is_refused():
    class Mine(TextBackbone): pass
    net = Mine(text("bert").net)
    assert not is_known_backbone(net)
    with pytest.raises(SettingError, match="saved and loaded"): check_backbone(net, tiny.text_processor())


def test_a_decoder_in_an_encoders_clothes():
    with pytest.raises(SettingError, match="never sees the others"): text("bert", is_decoder=True)
    assert not is_known_backbone(text("roberta", "mean", is_decoder=True))


@torch.no_grad()
@pytest.mark.parametrize("kind, size, options", [
    ("big_bird", 60, dict(block_size=2, num_random_blocks=1)), ("longformer", 60, dict(attention_window=4)), ("led", 60, dict(attention_window=4, encoder_layers=2))])
def test_a_texts_answer_depends_on_the_text_alone(kind, size, options):
    "BigBird after a short text; a far word in a Longformer; each alone and beside a longer one."
    config = {k: v for k, v in _small.items() if kind != "led" or k not in ("num_hidden_layers", "num_attention_heads")} | options
    if kind == "led": config |= dict(decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2, max_encoder_position_embeddings=64)
    net = backbone_from_config(dict(model_type=kind, **config)).eval()
    ids = torch.randint(5, V, (2, size), generator=torch.Generator().manual_seed(0))
    state = lambda x: net.encode(net.features(x), torch.ones_like(x).bool())
    first = state(ids[:1])
    state(ids[:1, :4])
    assert torch.equal(first, state(ids[:1]))
    ids[1, -1] = (ids[0, -1] - 4) % 20 + 5
    ids[1, :-1] = ids[0, :-1]
    assert (state(ids)[0, 0] - state(ids)[1, 0]).abs().max() > 1e-7 # the last word reaches the first state
    valid = torch.ones(2, size).bool()
    valid[1, 9:] = False
    assert torch.allclose(net.encode(net.features(ids), valid)[1, :9], state(ids[1:, :9])[0], atol=1e-5)


# --- builds, or is refused by name (fault 18) ---

@torch.no_grad()
def test_an_encoder_decoder_reads_with_its_encoder(tmp_path):
    config = T5Config(vocab_size=V, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2)
    ids, valid = torch.randint(5, V, (2, 9)), torch.ones(2, 9).bool()
    for name, whole in (("whole", T5Model(config)), ("half", T5EncoderModel(config))):
        whole.eval().save_pretrained(tmp_path / name)
        tiny.text_processor().tokenizer.save_pretrained(tmp_path / name)
        net = load_backbone(str(tmp_path / name), num_layers=2).eval()
        theirs = whole.get_encoder()(input_ids=ids, attention_mask=valid.long()).last_hidden_state
        assert torch.allclose(net.encode(net.features(ids), valid), theirs, atol=1e-6)
        model = build_model(str(tmp_path / name), tiny.LABELS, num_layers=1, max_length=40).eval()
        model.save_pretrained(tmp_path / "model")
        assert RationaleModel.from_pretrained(tmp_path / "model").explain("ka good").to_dict() == model.explain("ka good").to_dict()


@pytest.mark.parametrize("architecture", ["resnet18", "convnext_atto", "efficientnet_b0"])
def test_a_convolutional_network_selects_patches_of_pixels(architecture, tmp_path):
    model = build_model(f"timm/{architecture}", tiny.LABELS, pretrained=False, image_size=32, sparsity=0.25).eval()
    assert model.processor.patch == 4 and model.generator.backbone.prefix == 1
    picture = tiny.images(1, 0, 32)[0]
    explained = model.explain(picture)
    assert len(explained.mask) == 64 and sum(explained.mask) == 16
    batch = model.processor([picture])
    mask = torch.zeros(1, 64); mask[0, 7] = 1
    painted = batch | dict(inputs=batch["inputs"].clone())
    painted["inputs"][:, :, 4:] = 3.0 # everything below the first row of patches
    with torch.no_grad(): assert torch.equal(model.predict(batch, mask), model.predict(painted, mask))
    model.train()
    model.predict(model.processor(tiny.images(4, 1, 32)), torch.ones(4, 64)) # BatchNorm counts: buffers that are no parameters
    model.eval().save_pretrained(tmp_path / "m")
    again = RationaleModel.from_pretrained(tmp_path / "m")
    assert again.explain(picture).to_dict() == model.explain(picture).to_dict()
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("name, options, says", [
    ("timm/resnet18", dict(num_layers=2), "leave num_layers out"), ("timm/mixer_s32_224", {}, "no adapter"), ("timm/eva02_tiny_patch14_224", {}, "no adapter"),
    ("timm/swin_tiny_patch4_window7_224", {}, "no adapter"), ("timm/resnet18", dict(image_size=31), "31 is not a multiple")])
def test_a_network_of_timm_that_has_no_adapter_is_named(name, options, says):
    with pytest.raises(SettingError, match=says): build_model(name, tiny.LABELS, pretrained=False, **dict(image_size=32) | options)


@pytest.mark.parametrize("config, says", [
    (dict(model_type="vit", num_channels=1, **_vit), "1 channels"), (dict(model_type="dinov2", num_channels=4, **_vit), "4 channels"),
    (dict(model_type="timm", architecture="vit_tiny_patch16_224", options=dict(in_chans=1, depth=1, img_size=16, patch_size=4)), "1 channels"),
    (dict(model_type="timm", architecture="resnet18", options=dict(in_chans=1, patch_size=4)), "1 channels"),
    (dict(model_type="clip"), "several networks"), (dict(model_type="siglip"), "several networks"), (dict(model_type="encoder-decoder"), "encoder-decoder"),
    (dict(model_type="clip_vision_model"), "no adapter"), (dict(model_type="bros", **_small), "bros"), (dict(model_type="whisper"), "whisper"),
    (dict(model_type="timm", architecture="resnet18", options=dict(patch_size=0)), "patch_size"), (dict(model_type="vit", patch_size=[4, 8]), "vit"),
    (dict(model_type="longformer", attention_window=[4, 4, 4], **_small), "longformer"), (dict(model_type="longformer", attention_window=2, **_small), "4 or more")])
def test_what_cannot_be_used_is_refused_in_one_line_when_it_is_built(config, says):
    processor = ImageProcessor(16, 4) if config["model_type"] in ("vit", "dinov2", "timm", "clip_vision_model") else tiny.text_processor()
    with pytest.raises(SettingError, match=says): RationaleModel(ModelConfig(config, tiny.LABELS), processor)


def test_a_network_whose_pooler_was_taken_away_still_reads(tmp_path):
    model = model_of(dict(model_type="layoutlm", **_small)).eval()
    model.save_pretrained(tmp_path / "m")
    assert RationaleModel.from_pretrained(tmp_path / "m").explain("ka good bad").to_dict() == model.explain("ka good bad").to_dict()


def test_the_first_layers_of_a_network_that_says_things_layer_by_layer(tmp_path):
    config = LongformerConfig(attention_window=[4, 6], **_small)
    LongformerModel(config).save_pretrained(tmp_path / "l")
    tiny.text_processor().tokenizer.save_pretrained(tmp_path / "l")
    assert load_backbone(str(tmp_path / "l"), num_layers=1).net.config.attention_window == [4]


# --- hidden colours, huge pictures (faults 11 and 23) ---

def seen(image): return ImageProcessor(8, 4)([image])["inputs"]


WHITE = Image.new("RGB", (8, 8), "white")


def transparent(mode):
    "Two pictures of one mode that are all transparent, and differ in what nobody sees."
    if mode == "P": return [palette(i) for i in (0, 1)]
    if mode == "RGB": return [keyed(Image.new("RGB", (8, 8), c), c) for c in ((1, 2, 3), (250, 0, 0))]
    if mode == "L": return [keyed(Image.new("L", (8, 8), c), c) for c in (0, 200)]
    if mode == "I;16": return [keyed(Image.fromarray(np.full((8, 8), c, "uint16")), c) for c in (300, 60000)]
    if mode in ("La", "RGBa"): return [Image.new({"La": "LA", "RGBa": "RGBA"}[mode], (8, 8), c).convert(mode) for c in ({"La": (0, 0), "RGBa": (0, 0, 0, 0)}[mode],) * 2]
    return [Image.new(mode, (8, 8), c) for c in dict(RGBA=[(0, 0, 0, 0), (255, 0, 9, 0)], LA=[(0, 0), (200, 0)])[mode]]


def palette(index):
    image = Image.new("P", (8, 8), index)
    image.putpalette([0, 0, 0, 255, 0, 0] + [0] * 762)
    image.info["transparency"] = bytes([0, 0]) + bytes([255] * 254)
    return through_png(image)


def keyed(image, colour): return through_png(image, transparency=colour)


def through_png(image, **options):
    image.save(file := io.BytesIO(), "PNG", **options)
    return Image.open(io.BytesIO(file.getvalue()))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "L", "I;16", "La", "RGBa"])
def test_what_is_transparent_is_white_whatever_colour_it_hides(mode):
    for image in transparent(mode): assert torch.equal(seen(image), seen(WHITE))


def test_half_transparent_and_opaque_pixels():
    half = Image.new("RGBA", (8, 8), (0, 0, 0, 128))
    assert (seen(half) - seen(Image.new("RGB", (8, 8), (127, 127, 127)))).abs().max() < 1e-6
    for colour in ((9, 80, 250), (0, 0, 0)): # opaque ones are as they were
        assert torch.equal(seen(Image.new("RGBA", (8, 8), (*colour, 255))), seen(Image.new("RGB", (8, 8), colour)))
    noise = tiny.images(1, 0, 8)[0]
    assert torch.equal(seen(noise.convert("RGBA")), seen(noise))


def test_an_explanation_shows_the_picture_that_was_read():
    model = tiny.make_model("vit")
    e = model.explain(Image.new("RGBA", (16, 16), (255, 0, 0, 0)))
    assert e.source.mode == "RGB" and e.source.getpixel((0, 0)) == (255, 255, 255)


def test_a_huge_picture_is_read_or_called_huge(tmp_path, monkeypatch):
    Image.new("1", (14_000, 14_000)).save(tmp_path / "huge.png") # Pillow itself refuses it as a "decompression bomb"
    limit = Image.MAX_IMAGE_PIXELS
    assert open_picture(tmp_path / "huge.png").size == (14_000, 14_000) and Image.MAX_IMAGE_PIXELS == limit
    monkeypatch.setattr(processor, "MOST_PIXELS", 10**6)
    with pytest.raises(DataError, match="14,000 x 14,000") as e: open_picture(tmp_path / "huge.png")
    assert "damaged" not in str(e.value)
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(DataError, match="not a picture"): open_picture(tmp_path / "text.png")
    with pytest.raises(MissingError, match="none.png"): open_picture(tmp_path / "none.png")


# --- fed as it was trained (fault 12) ---

@pytest.fixture
def vit(tmp_path):
    "A folder with a tiny ViT, and what writes its preprocessor_config.json."
    ViTModel(ViTConfig(intermediate_size=64, **_vit)).save_pretrained(tmp_path / "vit")
    def say(**said):
        (tmp_path / "vit" / "preprocessor_config.json").write_text(json.dumps(said))
        return str(tmp_path / "vit")
    return say


IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize("said, mean, std", [
    (dict(image_mean=[0.5] * 3, image_std=[0.5] * 3), (0.5,) * 3, (0.5,) * 3), (dict(image_mean=0.5, image_std=0.25), (0.5,) * 3, (0.25,) * 3),
    (dict(do_normalize=False, image_mean=[0.5] * 3), (0,) * 3, (1,) * 3), (dict(do_rescale=False, image_mean=[127.5] * 3, image_std=[51] * 3), (0.5,) * 3, (0.2,) * 3),
    (dict(rescale_factor=1 / 127.5, image_mean=[1, 1, 1], image_std=[2, 2, 2]), (0.5,) * 3, (1.0,) * 3), (dict(do_resize=True), *IMAGENET),
    (dict(rescale_factor=0.00392156862745098, image_mean=list(IMAGENET[0]), image_std=list(IMAGENET[1])), *IMAGENET)])
def test_pixels_are_scaled_as_the_weights_were_trained(vit, said, mean, std):
    processor = build_model(vit(**said), tiny.LABELS, image_size=16).processor
    assert (processor.mean, processor.std) == (pytest.approx(mean), pytest.approx(std))


def test_what_is_given_comes_first_and_imagenet_last(vit, tmp_path):
    folder = vit(image_mean=[0.5] * 3, image_std=[0.5] * 3)
    model = build_model(folder, tiny.LABELS, image_size=16, mean=IMAGENET[0], std=IMAGENET[1])
    assert (model.processor.mean, model.processor.std) == IMAGENET
    half = load_processor(folder, model.generator.backbone, size=16, std=(1.0, 1.0, 1.0))
    assert half.mean == (0.5,) * 3 and half.std == (1.0,) * 3
    (tmp_path / "vit" / "preprocessor_config.json").unlink()
    assert build_model(folder, tiny.LABELS, image_size=16).processor.mean == IMAGENET[0]
    model.save_pretrained(tmp_path / "m")
    assert RationaleModel.from_pretrained(tmp_path / "m").processor.to_dict() == model.processor.to_dict()


@pytest.mark.parametrize("name, mean", [("vit_tiny_patch16_224", (0.5,) * 3), ("vit_base_patch16_clip_224", (0.48145466, 0.4578275, 0.40821073)), ("resnet10t", IMAGENET[0])])
def test_timm_says_how_its_networks_were_trained(name, mean):
    layers = 1 if "vit" in name else None
    assert build_model(f"timm/{name}", tiny.LABELS, layers, pretrained=False, image_size=32).processor.mean == mean


@pytest.mark.parametrize("said", [b"{", b"[]", b'{"image_mean": "grey", "image_std": [1, 1, 1]}', b'{"image_mean": [0.5, 0.5, 0.5]}', b'{"image_mean": [1, 1], "image_std": [1, 1]}',
                                  b'{"image_mean": [0, 0, 0], "image_std": [0, 0, 0]}', b'{"rescale_factor": 0, "image_mean": 1, "image_std": 1}', b'{"rescale_factor": "x", "image_mean": 1, "image_std": 1}'])
def test_a_preparation_that_makes_no_sense_is_refused(vit, said, tmp_path):
    folder = vit()
    (tmp_path / "vit" / "preprocessor_config.json").write_bytes(said)
    with pytest.raises((ModelError, SettingError)): build_model(folder, tiny.LABELS, image_size=16)


# --- the generator reads the ViT after its final norm (fault 14) ---

@torch.no_grad()
@pytest.mark.parametrize("kind", ["vit", "dinov2"])
def test_the_generator_may_read_the_networks_last_hidden_state(kind, tmp_path):
    whole = (ViTModel(ViTConfig(intermediate_size=64, attn_implementation="eager", **_vit), add_pooling_layer=False) if kind == "vit" else
             Dinov2Model(Dinov2Config(attn_implementation="eager", **_vit))).eval()
    for p in whole.parameters(): p.add_(0.1 * torch.randn_like(p))
    whole.save_pretrained(tmp_path / kind)
    pixels = torch.randn(2, 3, 16, 16)
    batch = dict(inputs=pixels, valid=torch.ones(2, 16).bool(), special=torch.zeros(2, 16).bool())
    theirs = whole(pixels).last_hidden_state
    paper, old = (build_model(str(tmp_path / kind), tiny.LABELS, image_size=16, **o).eval() for o in (dict(final_norm="generator"), {}))
    assert torch.allclose(paper.select(batch), paper.generator.head(theirs[:, 1:]), atol=1e-5)
    assert not torch.allclose(old.select(batch), old.generator.head(theirs[:, 1:]), atol=1e-2)
    before = paper.predictor.backbone.encode(paper.predictor.backbone.features(pixels), batch["valid"])
    assert torch.allclose(whole.layernorm(before), theirs, atol=1e-5) and not torch.allclose(before, theirs, atol=1e-2) # the predictor reads before it
    for model in (paper, old):
        model.save_pretrained(tmp_path / "m")
        again = RationaleModel.from_pretrained(tmp_path / "m")
        assert again.config == model.config and torch.equal(again.select(batch), model.select(batch))
    assert {k for k in paper.state_dict()} - {k for k in old.state_dict()} == {"generator.norm.weight", "generator.norm.bias"}


def test_a_model_of_before_has_no_final_norm(tmp_path):
    model = tiny.make_model("vit")
    model.save_pretrained(tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    del config["final_norm"]
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    again = RationaleModel.from_pretrained(tmp_path / "m")
    assert again.config.final_norm == "none" and again.explain(tiny.images(1, 0)[0]).to_dict() == model.explain(tiny.images(1, 0)[0]).to_dict()


def test_a_network_without_a_final_norm_to_put_back_is_named():
    for kind in ("bert", "bigru"):
        with pytest.raises(SettingError, match="final_norm='none'"): tiny.make_model(kind, final_norm="generator")
    with pytest.raises(SettingError, match="final_norm.*'both'"): tiny.make_model("vit", final_norm="both")


def test_the_papers_image_presets_follow_the_paper_and_old_ones_stay():
    for name, norm, pixels in (("paper-cifar10-base", "generator", "imagenet"), ("paper-cifar100-20-tiny", "generator", "imagenet"),
                               ("cpu-cifar10", "none", "network"), ("gpu-cifar10", "none", "network"), ("paper-imdb-base", "none", "network")):
        model = resolve(name, "re").model
        assert (model.final_norm, model.pixels) == (norm, pixels), name


def test_a_paper_preset_builds_with_its_norm_and_imagenets_pixels(vit):
    changes = dict(backbone=str(vit(image_mean=[0.5] * 3, image_std=[0.5] * 3)), image_size=16)
    model = build(resolve("paper-cifar10-tiny", "re", overrides=changes).model, tiny.LABELS, 1)
    assert model.config.final_norm == "generator" and model.processor.mean == IMAGENET[0]
    free = build(resolve("paper-cifar10-tiny", "re", overrides=changes | dict(pixels="network")).model, tiny.LABELS, 1)
    assert free.processor.mean == (0.5,) * 3


# --- what is trained can be saved, what is saved can be loaded (faults 16, 17, 19) ---

def saved_and_loaded(model, tmp_path, kind):
    model.save_pretrained(tmp_path / "saved")
    again, batch = RationaleModel.from_pretrained(tmp_path / "saved"), tiny.make_batch(kind)
    with torch.no_grad():
        assert torch.equal(again.select(batch), model.select(batch))
        assert torch.equal(again.predict(batch, torch.ones(batch["valid"].shape)), model.predict(batch, torch.ones(batch["valid"].shape)))
    return again


def test_weights_that_are_views_of_one_storage(tmp_path):
    whole = Dinov2Model(Dinov2Config(use_swiglu_ffn=True, **_vit))
    whole.save_pretrained(tmp_path / "dinov2") # its file holds two matrices of the SwiGLU in one piece
    saved_and_loaded(build_model(str(tmp_path / "dinov2"), tiny.LABELS, image_size=16).eval(), tmp_path, "dinov2")
    model = tiny.make_model("dinov2", backbone=dict(use_swiglu_ffn=True))
    for m in [m for m in model.modules() if type(m).__name__ == "Dinov2Attention"]:
        whole = torch.cat([m.q_proj.weight, m.k_proj.weight, m.v_proj.weight]).detach()
        for part, w in zip((m.q_proj, m.k_proj, m.v_proj), whole.chunk(3)): part.weight = nn.Parameter(w)
    assert sum(p.untyped_storage().nbytes() > p.nbytes for p in model.parameters()) == 12
    saved_and_loaded(model, tmp_path, "dinov2")


@pytest.mark.parametrize("view", [lambda w: w.t().contiguous().t(), lambda w: torch.cat([w, w])[:len(w)], lambda w: torch.stack([w, w], -1)[..., 0]])
def test_weights_that_lie_otherwise_in_memory(view, tmp_path):
    model = tiny.make_model("bert")
    layer = model.predictor.backbone.net.encoder.layer[0].output.dense
    layer.weight = nn.Parameter(view(layer.weight.detach()))
    saved_and_loaded(model, tmp_path, "bert")


def test_a_weight_that_two_places_share_is_saved_once_and_with_its_twin(tmp_path):
    model = tiny.make_model("bert", freeze_embeddings="both")
    again = saved_and_loaded(model, tmp_path, "bert")
    assert again.generator.backbone.embeddings()[0].weight is again.predictor.backbone.embeddings()[0].weight


@pytest.mark.parametrize("place", ["generator", "predictor", "generator.backbone.net", "predictor.head", "predictor.backbone.net.encoder.layer.0"])
def test_a_compiled_part_is_saved_under_the_plain_names(place, tmp_path):
    model = tiny.make_model("bert")
    parent, _, name = place.rpartition(".")
    owner = model.get_submodule(parent)
    setattr(owner, name, torch.compile(getattr(owner, name), backend="eager"))
    assert any("_orig_mod" in k for k in model.state_dict())
    model.save_pretrained(tmp_path / "m")
    again, plain = RationaleModel.from_pretrained(tmp_path / "m").state_dict(), tiny.make_model("bert").state_dict() # of the same seed
    assert again.keys() == plain.keys() and all(torch.equal(again[k], plain[k]) for k in plain)


def test_what_could_not_be_loaded_again_is_not_saved(tmp_path):
    model = tiny.make_model("bert")
    torch.nn.utils.parametrizations.weight_norm(model.predictor.head)
    with pytest.raises(ModelError, match="not saved.*predictor.head"): model.save_pretrained(tmp_path / "m")
    assert not (tmp_path / "m").exists()
    model = tiny.make_model("bert")
    model.predictor.head = nn.Linear(32, 5)
    with pytest.raises(ModelError, match=r"predictor.head.weight: of shape \(5, 32\), where a new model has it of shape \(2, 32\)"): model.save_pretrained(tmp_path / "m")


def test_halved_and_damaged_buffers(tmp_path):
    model = build_model("timm/resnet10t", tiny.LABELS, pretrained=False, image_size=16).eval()
    model.bfloat16().save_pretrained(tmp_path / "half")
    assert next(RationaleModel.from_pretrained(tmp_path / "half").parameters()).dtype == torch.float32
    next(b for n, b in model.named_buffers() if n.endswith("running_var")).fill_(float("nan"))
    model.float().save_pretrained(tmp_path / "nan")
    with pytest.raises(ModelError, match="running_var"): RationaleModel.from_pretrained(tmp_path / "nan")


# --- from scratch, the generator learns its words (fault 28) ---

def learns(model): return [t.weight.requires_grad for n in (model.generator, model.predictor) for t in n.backbone.embeddings()]


def test_a_random_word_table_is_not_frozen_unless_asked(tmp_path):
    model = tiny.make_model("bert")
    model.generator.backbone.net.save_pretrained(tmp_path / "bert")
    model.processor.tokenizer.save_pretrained(tmp_path / "bert")
    build = lambda name="bert", **o: build_model(name if "/" in name else str(tmp_path / name), tiny.LABELS, max_length=40, **o)
    assert learns(build()) == [False, True] and learns(build(pretrained=False)) == [True, True]
    assert learns(build(f"bigru-16/{tmp_path / 'bert'}", pool="mean")) == [True, True]
    for freeze, right in dict(generator=[False, True], both=[False, False], none=[True, True]).items():
        for weights in (True, False): assert learns(build(pretrained=weights, freeze_embeddings=freeze)) == right
    build(freeze_embeddings="none").save_pretrained(tmp_path / "m")
    assert learns(RationaleModel.from_pretrained(tmp_path / "m")) == [True, True]


def test_presets_keep_what_their_rows_were_made_with():
    frozen = lambda name, **changes: resolve(name, "re", overrides=changes).model.freeze_embeddings
    assert frozen("cpu-imdb-gru") == "generator"
    assert frozen("paper-imdb-tiny", pretrained=False) == "none"
    assert frozen("demo", backbone="bigru-16/minilm-l2-imdb") == "none"
    assert frozen("demo", backbone="bigru-16/minilm-l2-imdb", freeze_embeddings="both") == "both"
    assert frozen("demo", epochs=1) == frozen("demo") == "both"


# --- a network of one's own, by name ---

PLUGIN = '''
import torch
from torch import nn
from rekd.backbone import Backbone
from rekd.registry import register_backbone

@register_backbone("wordcnn")
class WordCNN(Backbone):
    def __init__(self, vocab_size, hidden_size=32, num_layers=2, pool="mean"):
        super().__init__(dict(model_type="wordcnn", vocab_size=vocab_size, hidden_size=hidden_size, num_layers=num_layers), hidden_size, pool)
        self.words = nn.Embedding(vocab_size, hidden_size)
        self.convs = nn.ModuleList([nn.Conv1d(hidden_size, hidden_size, 3, padding=1) for _ in range(num_layers)])
    def features(self, inputs): return self.words(inputs)
    def encode(self, features, valid):
        x = features
        for conv in self.convs:
            x = x * valid.unsqueeze(-1)
            x = x + conv(x.transpose(1, 2)).transpose(1, 2).relu()
        return x
    def embeddings(self): return [self.words]
'''
RUN = '''
import json, sys
from rekd.model import RationaleModel
from rekd.registry import load_plugins
if len(sys.argv) > 1: load_plugins(sys.argv[1])
try: print(json.dumps(RationaleModel.from_pretrained("model").explain("ka good bad").to_dict()))
except Exception as e: print(type(e).__name__, e)
'''


def test_a_network_from_a_plugin_is_trained_saved_and_loaded(tmp_path, registered):
    from rekd.objective import RE
    from rekd.registry import load_plugins
    from rekd.train import TrainConfig, fit
    (tmp_path / "my_cnn.py").write_text(PLUGIN)
    tiny.make_model("bert").generator.backbone.net.save_pretrained(tmp_path / "bert")
    tiny.text_processor().tokenizer.save_pretrained(tmp_path / "bert")
    try:
        load_plugins("my_cnn")
        model = build_model(f"wordcnn-16/{tmp_path / 'bert'}", tiny.LABELS, num_layers=1, max_length=40, pool="mean")
        assert learns(model) == [True, True] and model.config.backbone["hidden_size"] == 16 and not is_known_backbone(model.generator.backbone)
        with pytest.raises(SettingError, match="pool='mean'"): build_model(f"wordcnn/{tmp_path / 'bert'}", tiny.LABELS, max_length=40)
        fit(model, tiny.text_data(), RE(0.1), TrainConfig(epochs=1, batch_size=8))
        model.eval().save_pretrained(tmp_path / "model")
    finally: sys.modules.pop("my_cnn", None)
    assert json.loads((tmp_path / "model" / "config.json").read_text())["plugin"] == "my_cnn"
    run = lambda *args: subprocess.run([sys.executable, "-c", RUN, *args], capture_output=True, text=True, check=True).stdout.strip().splitlines()[-1]
    assert json.loads(run("my_cnn")) == json.loads(json.dumps(model.explain("ka good bad").to_dict()))
    without = run()
    assert without.startswith("ModelError") and "'wordcnn'" in without and "'my_cnn'" in without


def test_a_name_registered_before_the_librarys_own_is_a_network_from_scratch(tmp_path):
    (tmp_path / "my_cnn.py").write_text(PLUGIN)
    code = f"import sys; sys.path.append({str(tmp_path)!r})\nimport my_cnn\nfrom rekd.pretrained import scratch_name\nprint(scratch_name('wordcnn-16/a'), scratch_name('bert-16/a'))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "('wordcnn', 16, 'a') None"


def test_a_file_never_brings_its_plugin_in(tmp_path):
    model = tiny.make_model("bert")
    model.save_pretrained(tmp_path / "m")
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    file = tmp_path / "m" / "config.json"
    config = json.loads(file.read_text())
    for kind, plugin in (("bert", "evil"), ("evilnet", "evil"), ("evilnet", "__main__"), ("evilnet", ["evil"]), ("evilnet", "a\nb")):
        file.write_text(json.dumps(config | dict(plugin=plugin, backbone=config["backbone"] | dict(model_type=kind))))
        if kind == "bert": RationaleModel.from_pretrained(tmp_path / "m"); continue
        with pytest.raises(ModelError, match="evilnet") as e: RationaleModel.from_pretrained(tmp_path / "m")
        assert "\n" not in str(e.value)


def test_names_of_networks_from_scratch(registered, tmp_path, monkeypatch):
    register_backbone("my-net-2")(Net)
    assert scratch_name("bigru-64/minilm-l6") == ("bigru", 64, "minilm-l6") and scratch_name("bigru/a/b") == ("bigru", None, "a/b")
    assert scratch_name("my-net-2")[:2] == ("my-net-2", None) and scratch_name("my-net-2-8/x") == ("my-net-2", 8, "x")
    for name in ("bert", "vit", "timm/resnet18", "bigru-x/minilm-l6", "bigrus", "prajjwal1/bert-tiny", "-64", "bigru-"): assert scratch_name(name) is None or name == "bigru-"
    (tmp_path / "bigru").mkdir(); (tmp_path / "bigru" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingError, match="a folder"): scratch_name("bigru")


def test_what_a_network_of_ones_own_does_not_take_is_named(registered, tmp_path):
    register_backbone("net")(Net)
    with pytest.raises(SettingError, match="no hidden_size, got 64"): load_backbone("net-64/x", pool="mean")
    with pytest.raises(SettingError, match="no num_layers"): load_backbone("net/x", num_layers=1, pool="mean")
    class Fails(Net):
        def __init__(self, pool): raise RuntimeError("out of\nideas")
    BACKBONES["net"] = Fails
    with pytest.raises(SettingError, match="'net' cannot be built"): load_backbone("net", pool="mean")
    class Picky(Net):
        def __init__(self, colour, pool="mean"): super().__init__(pool)
    BACKBONES["net"] = Picky
    with pytest.raises(SettingError, match="colour"): load_backbone("net", pool="mean")


# --- a known kind is trusted for the networks that were tried, not for whatever its configuration says ---

@pytest.mark.parametrize("kind, pool, options, says", [
    ("xlm", "cls", dict(emb_dim=32, causal=True), "depends on"),
    ("flaubert", "cls", dict(emb_dim=32, causal=True), "depends on"),
    ("modernbert", "cls", dict(local_attention=2, layer_types=["sliding_attention"] * 2), "depends on"),
    ("opt", "mean", dict(ffn_dim=64, word_embed_proj_dim=16), "'opt'"),
    ("xmod", "cls", dict(languages=["en_XX", "de_DE"]), "'xmod'"),
    ("bert", "cls", dict(type_vocab_size=0), "'bert'"),
])
def test_a_known_kind_of_unusual_build_is_asked(kind, pool, options, says):
    with pytest.raises(SettingError, match=says): model_of(text(kind, pool, **options).config, pool=pool)


def test_a_usual_network_is_not_asked_and_costs_nothing(monkeypatch):
    from rekd import model
    monkeypatch.setattr(model, "check_backbone", lambda *_: pytest.fail("asked"))
    for kind in ("bert", "roberta", "distilbert", "electra", "modernbert"): model_of(text(kind).config)
    unusual = text("xlm", emb_dim=32, causal=True).config
    RationaleModel(ModelConfig(unusual, tiny.LABELS), tiny.text_processor(), saved=True) # a file of ours was asked when it was built


# --- what means two things ---

def test_a_backbone_that_is_a_folder_here_too_is_refused_by_both_names(tmp_path, monkeypatch):
    for folder in ("artifacts/models/shipped", "shipped", "bert-tiny", "mine"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "config.json").write_text("{}")
    monkeypatch.setenv("REKD_ARTIFACTS", str(tmp_path / "artifacts"))
    monkeypatch.chdir(tmp_path)
    for name, other in (("shipped", "artifacts/models/shipped"), ("bert-tiny", "prajjwal1/bert-tiny")):
        with pytest.raises(SettingError, match=rf"{other}\), and a folder here: name the folder ./{name}"): pretrained.weights_source(name)
        assert pretrained.weights_source(f"./{name}") == f"./{name}"
    assert pretrained.weights_source("mine") == "mine"
    monkeypatch.chdir(tmp_path / "artifacts" / "models") # the folder here is the shipped one
    assert pretrained.weights_source("shipped") == "shipped"


# --- pictures of 16 bits ---

@pytest.mark.parametrize("dtype", ["uint16", ">u2", "int32"])
def test_sixteen_bits_are_scaled_alike_in_dark_and_light_pictures(dtype):
    for most in (200, 256, 60_000):
        deep = np.linspace(0, most, 64).reshape(8, 8).astype("int64")
        assert np.array_equal(np.asarray(processor.to_rgb(Image.fromarray(deep.astype(dtype))))[..., 0], deep >> 8)


@pytest.mark.parametrize("values", [(-1, 5), (0, 65_536)])
def test_what_is_no_number_of_sixteen_bits_is_refused(values):
    with pytest.raises(DataError, match=f"got {values[0]} to {values[1]}"): processor.to_rgb(Image.fromarray(np.array([values] * 2, "int32")))


# --- numpy's numbers and texts, and generators ---

def test_numpys_numbers_and_a_generator_are_taken(tmp_path):
    from rekd.objective import CLS
    from rekd.train import TrainConfig, fit
    def trained(seed):
        model = tiny.make_model()
        fit(model, tiny.text_data(), CLS(), TrainConfig(epochs=1), seed=seed, out=tmp_path / type(seed).__name__)
        return model.predictor.head.weight
    assert torch.equal(trained(3), trained(np.int64(3)))
    model = tiny.make_model()
    assert model.explain(np.array("good film")).mask == model.explain("good film").mask
    assert [e.label for e in model.explain(t for t in ["good film", "bad film"])] == [e.label for e in model.explain(["good film", "bad film"])]
    with pytest.raises(DataError): model.explain(torch.tensor(3.))


# --- a model's two networks are what its description says ---

def test_networks_of_other_settings_than_the_configurations_are_refused():
    "Only one description is saved: with equal shapes the loaded model would be another one, in silence."
    few, many = text("bert", num_attention_heads=2), text("bert", num_attention_heads=4)
    for both, says in (((few, many), "generator's network has num_attention_heads=2"), ((many, few), "predictor's network has num_attention_heads=2"),
                           ((text("bert", num_attention_heads=4, hidden_act="relu"), many), "hidden_act='relu'"), ((text("bert", num_attention_heads=4, num_hidden_layers=1), many), "num_hidden_layers=1")):
        with pytest.raises(SettingError, match=says): RationaleModel(ModelConfig(many.config, tiny.LABELS), tiny.text_processor(), *both)
    short = ModelConfig(many.config, tiny.LABELS, generator_layers=1)
    with pytest.raises(SettingError, match="num_hidden_layers"): RationaleModel(short, tiny.text_processor(), many, many)
    for kind in ("bert", "modernbert", "distilbert"): # the same network cut, and what a description leaves to defaults
        whole = text(kind)
        cut = pretrained.first_layers(whole.config, 1)
        RationaleModel(ModelConfig(dict(model_type=kind, **_small), tiny.LABELS, generator_layers=1), tiny.text_processor(), cut, whole)


def test_a_generator_that_breaks_the_contract_is_refused_too(registered):
    class Loud(Net):
        loud = False
        def encode(self, features, valid): return super().encode(features, valid) + self.loud * torch.randn(1)
    register_backbone("net")(Loud)
    good, bad = Loud(), Loud()
    bad.loud = True
    with pytest.raises(SettingError, match="asked twice"):
        RationaleModel(ModelConfig(good.config, tiny.LABELS, pool="mean"), tiny.text_processor(), bad, good)


def test_what_was_changed_beside_the_configuration_is_not_trained(tmp_path):
    data = tiny.text_data()
    for change, says in ((lambda m: m.generator.head.__setitem__(1, nn.GELU()), "generator's logits"), (lambda m: m.predictor.head.register_forward_hook(lambda *a: -a[-1]), "predictor's classes")):
        change(model := tiny.make_model())
        with pytest.raises(ModelError, match=says): fit(model, data, RE(), TrainConfig(epochs=1), out=tmp_path / "run", quiet=True)
        assert not list(tmp_path.rglob("metrics.jsonl"))


@pytest.mark.parametrize("pool", ["cls", "mean"])
@pytest.mark.parametrize("name", ["inputs", "valid"])
def test_a_network_that_writes_into_what_it_reads_is_refused(name, pool, registered):
    "The model reads `valid` again to find what may be dropped; also a write that changes nothing on trial inputs counts."
    class Writes(Net):
        def features(self, inputs):
            out = super().features(inputs)
            if name == "inputs": inputs.clamp_(max=10_000)
            return out
        def encode(self, features, valid):
            out = super().encode(features, valid)
            if name == "valid": valid[:, 0] = True
            return out + out[:, :1] * 0
    register_backbone("net")(Writes)
    with pytest.raises(SettingError, match=f"'net' cannot be used: it writes into `{name}`"): check_backbone(Writes(pool), tiny.text_processor())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_a_network_of_another_dtype_than_its_head_is_refused(dtype, registered):
    class Cast(Net):
        def encode(self, features, valid): return super().encode(features, valid).to(dtype)
    register_backbone("net")(Cast)
    with pytest.raises(SettingError, match=rf"'net' cannot be used: .*{dtype}: end it with .to\(torch.float32\)"): check_backbone(Cast(), tiny.text_processor())
    whole, other = text("bert"), text("bert").to(dtype)
    for both, name in (((other, whole), "generator"), ((whole, other), "predictor")):
        with pytest.raises(SettingError, match=f"the {name}'s network has weights of {dtype}"):
            RationaleModel(ModelConfig(whole.config, tiny.LABELS), tiny.text_processor(), *both)


def test_a_network_without_weights_is_refused():
    with torch.device("meta"): empty = text("bert")
    with pytest.raises(SettingError, match="predictor's network has no weights"):
        RationaleModel(ModelConfig(empty.config, tiny.LABELS), tiny.text_processor(), text("bert"), empty)


# --- what a mask and an objective may be ---

def test_a_soft_mask_is_refused_where_dropped_features_are_taken_out():
    model, batch = tiny.make_model(dropped="remove"), tiny.make_batch()
    with pytest.raises(SettingError, match="0 and 1 only .* got 0.5"): model.predict(batch, 0.5 * model.selectable(batch))
    def soft(logits, selectable, context, loss_of_each):
        mask = logits.softmax(-1)[..., 1].detach() * selectable
        return loss_of_each(mask).mean() + 0 * logits.sum(), mask
    soft.needs_dropped = False
    with pytest.raises(SettingError, match="the estimator 'soft' of .*0 and 1 only"):
        fit(model, tiny.text_data(), RE(estimator=soft), TrainConfig(epochs=1), quiet=True)


@pytest.mark.parametrize("answer, says", [
    (lambda loss: (loss.detach(), {}), "a loss with a gradient"),
    (lambda loss: (loss, {1: loss}), "name its parts by texts, such as 'ce', got 1"),
    (lambda loss: (loss, dict(odd=loss * float("nan"))), "finite parts, got odd=nan"),
    (lambda loss: (loss, dict(step=loss)), "cannot name a part 'step'"),
])
def test_what_an_objective_may_not_answer_is_named(answer, says):
    class Mine:
        selects = True
        def __call__(self, model, batch, context): return answer(RE()(model, batch, context)[0])
    with pytest.raises(SettingError, match=f"the objective 'Mine' of .*test_faults_net.py .*{says}"):
        fit(tiny.make_model(), tiny.text_data(), Mine(), TrainConfig(epochs=1), quiet=True)


def test_a_loss_that_is_not_finite_is_still_a_divergence():
    class Mine:
        selects = True
        def __call__(self, model, batch, context): return RE()(model, batch, context)[0] * float("nan"), dict(odd=torch.tensor(float("nan")))
    with pytest.raises(TrainingDiverged, match="loss is nan"): fit(tiny.make_model(), tiny.text_data(), Mine(), TrainConfig(epochs=1), quiet=True)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_a_model_of_another_precision_can_be_saved_and_its_answers_compared(dtype, tmp_path):
    from rekd.guard import check_saving
    model, data = tiny.make_model("bert", 1).to(dtype), tiny.text_data()
    check_saving(model, tmp_path, data.val)
    assert not list(tmp_path.iterdir())
