"""Try kinds of networks with tiny random weights: works, or is refused with a reason. Writes the table of nbs/hood/check.ipynb (about a minute).

    python tools/networks.py            # writes artifacts/networks.json
    python tools/networks.py bert fnet  # prints the rows of some kinds, and writes nothing
"""
import json
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from transformers import BertTokenizerFast
from transformers.utils import logging

TOP = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TOP))
from rekd.check import backbone_kind, check_backbone
from rekd.errors import SettingError
from rekd.model import ModelConfig, RationaleModel
from rekd.pretrained import backbone_from_config
from rekd.processor import ImageProcessor, TextProcessor

WORDS = [f"w{i}" for i in range(35)]
TEXT = TextProcessor(BertTokenizerFast(vocab={w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])}), 40)
_text = dict(vocab_size=40, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, max_position_embeddings=64,
             pad_token_id=0, bos_token_id=2, cls_token_id=2, eos_token_id=3, sep_token_id=3)
_image = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=32, patch_size=8)
_pair = dict(encoder_layers=2, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64,
             num_hidden_layers=None, num_attention_heads=None, intermediate_size=None)
_few = dict(num_key_value_heads=2, head_dim=16)

_t5 = dict(d_kv=16, d_ff=64, intermediate_size=None)
_own = dict(hidden_size=None, num_hidden_layers=None, num_attention_heads=None, intermediate_size=None, max_position_embeddings=None)
_axial = dict(axial_pos_shape=[8, 8], axial_pos_embds_dim=[16, 16])
_chunks = dict(lsh_attn_chunk_length=4, local_attn_chunk_length=4, num_buckets=4)


def usual(names: str, tiny: dict | None = None) -> dict:
    "Several kinds with the same numbers."
    return {name: tiny or {} for name in names.split()}


# kind -> what makes it tiny beside the usual numbers; None takes one of those away
TEXTS: dict[str, dict] = (
    usual("bert roberta xlm-roberta camembert distilbert electra albert mpnet deberta deberta-v2 modernbert ernie rembert roformer megatron-bert ibert "
          "bert-generation roberta-prelayernorm data2vec-text xlm-roberta-xl layoutlm bros lilt splinter nomic_bert gte esm mra yoso big_bird fnet convbert "
          "canine tapas clip_text_model clip siglip layoutlmv3 perceiver t5gemma")
    | usual("t5 mt5 umt5", _t5) | usual("bart mbart pegasus marian blenderbot m2m_100 plbart mvp", _pair)
    | usual("gpt2 gpt_neox bloom phi falcon openai-gpt") | usual("llama mistral qwen2 qwen3 gemma eurobert", _few)
    | usual("xlm flaubert", dict(emb_dim=32, hidden_size=None)) | {
        "squeezebert": dict(embedding_size=32), "mobilebert": dict(embedding_size=32, intra_bottleneck_size=32, true_hidden_size=32),
        "xmod": dict(languages=["en_XX"], default_language="en_XX"), "luke": dict(entity_vocab_size=9, entity_emb_size=16),
        "nystromformer": dict(num_landmarks=8, segment_means_seq_len=8), "longformer": dict(attention_window=4),
        "funnel": _own | dict(d_model=32, block_sizes=[1, 1], n_head=2, d_head=16, d_inner=64),
        "reformer": dict(attn_layers=["local", "lsh"], num_hidden_layers=None, intermediate_size=None) | _axial | _chunks,
        "xlnet": _own | dict(d_model=32, n_layer=2, n_head=2, d_inner=64), "visual_bert": dict(visual_embedding_dim=8),
        "roc_bert": dict(shape_vocab_size=40, pronunciation_vocab_size=40), "longt5": _t5 | dict(local_radius=3),
        "switch_transformers": _t5 | dict(num_experts=2),
        "led": _pair | dict(attention_window=4, max_encoder_position_embeddings=64), "bigbird_pegasus": _pair | dict(block_size=4),
        "fsmt": dict(src_vocab_size=40, tgt_vocab_size=40, langs=["a", "b"]), "prophetnet": dict(num_hidden_layers=None, num_encoder_layers=2),
        "gpt_neo": dict(attention_types=[[["global", "local"], 1]], window_size=4, num_layers=2, num_heads=2), "gptj": dict(rotary_dim=8),
        "opt": dict(ffn_dim=64, word_embed_proj_dim=32), "mamba": dict(state_size=4), "xglm": dict(d_model=32, ffn_dim=64),
        "rwkv": dict(attention_hidden_size=32)})
_mlp = dict(intermediate_size=None, mlp_ratio=2)
IMAGES: dict[str, dict] = (
    usual("vit deit beit swin convnext resnet efficientnet clip_vision_model siglip_vision_model vit_mae vit_msn poolformer mobilevit data2vec-vision ijepa")
    | usual("dinov2 dinov2_with_registers", _mlp) | usual("pvt segformer", dict.fromkeys(_image)))
_vit = dict(embed_dim=32, num_heads=2, depth=2, img_size=32, patch_size=8)
TIMM: dict[str, dict] = ( # architecture -> options; convolutional networks are as small as they come
    usual("vit_tiny_patch16_224 deit_tiny_distilled_patch16_224 vit_base_patch16_clip_224 vit_base_patch16_siglip_224 vit_little_patch16_reg4_gap_256 "
          "vit_small_patch14_reg4_dinov2", _vit) | {"vit_tiny_r_s16_p8_224": dict(img_size=64, depth=1)}
    | usual("resnet18 resnet10t efficientnet_b0 convnext_atto mobilenetv3_small_050 regnetx_002 ghostnet_050 pvt_v2_b0 poolformer_s12 edgenext_xx_small "
            "swin_tiny_patch4_window7_224 eva02_tiny_patch14_224 mixer_s32_224 cait_xxs24_224 levit_128s hiera_tiny_224 coatnet_nano_rw_224",
            dict(patch_size=8)))
OTHER = {"bigru": dict(model_type="bigru", vocab_size=40, hidden_size=32)}


def described() -> dict[str, dict]:
    "Name of a row -> the description of its network."
    tiny = lambda kind, usual: dict(model_type=kind, **{k: v for k, v in usual.items() if v is not None})
    rows = OTHER | {k: tiny(k, _text | v) for k, v in TEXTS.items()} | {k: tiny(k, _image | v) for k, v in IMAGES.items()}
    return rows | {f"timm/{k}": dict(model_type="timm", architecture=k, options=v) for k, v in TIMM.items()}


def answer(model: RationaleModel, image: bool) -> torch.Tensor:
    "Everything that a model says of two random inputs."
    noise = torch.Generator().manual_seed(0)
    inputs = torch.randn(2, 3, 32, 32, generator=noise) if image else torch.randint(5, 40, (2, 9), generator=noise)
    places = torch.ones(2, 16 if image else 9)
    batch = dict(inputs=inputs, valid=places.bool(), special=torch.zeros_like(places).bool())
    return torch.cat([model.select(batch).flatten(), model.predict(batch, places).flatten()])


def saves_and_loads(model: RationaleModel, image: bool) -> bool:
    "Whether a model answers the same, bit for bit, after its trip through a folder."
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        model.save_pretrained(Path(folder) / "model")
        return torch.equal(answer(model, image), answer(RationaleModel.from_pretrained(Path(folder) / "model"), image))


def tried(name: str, config: dict) -> dict:
    "One row of the table: a network is built, asked, saved, loaded, and answers as before; or a reason why not."
    image = name.startswith("timm/") or name in IMAGES
    processor, row, why = ImageProcessor(32, 8) if image else TEXT, dict(network=name, reads="image" if image else "text"), ""
    torch.manual_seed(0)
    for pool in ("mean",) if name == "bigru" else ("cls", "mean"):
        try:
            backbone = backbone_from_config(config, pool)
            numbers = check_backbone(backbone, processor)
        except SettingError as e: why = str(e); continue
        model = RationaleModel(ModelConfig(config, ["a", "b"], pool), processor).eval()
        if not saves_and_loads(model, image): raise AssertionError(f"{name} answers otherwise once it is loaded")
        return row | dict(works=True, pool=pool, kind=backbone_kind(backbone), numbers={k: float(f"{v:.1e}") for k, v in numbers.items()})
    return row | dict(works=False, why=why)


def main(names: list[str]) -> list[dict]:
    "Rows of some networks, of all if none are named."
    logging.set_verbosity_error()
    rows = described()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [tried(name, rows[name]) for name in names or rows]


if __name__ == "__main__":
    torch.set_num_threads(1)
    table = main(sys.argv[1:])
    for r in table: print(f"{r['network']:34} {r['pool'] if r['works'] else '-':5}", r.get("why") or r["numbers"])
    if not sys.argv[1:]: (TOP / "artifacts" / "networks.json").write_text(json.dumps(table, indent=1) + "\n")
