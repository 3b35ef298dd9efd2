"""Random-weight models and toy data, small enough to train in seconds and built without a download."""

import itertools
import datasets
import numpy as np
import torch
from PIL import Image
from transformers import BertTokenizerFast
from rekd.processor import ImageProcessor, TextProcessor
from rekd.data import Data, Examples
from rekd.model import ModelConfig, RationaleModel

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
GOOD, BAD = ["good", "great", "superb"], ["bad", "awful", "dull"]
FILLER = ["".join(p) for p in itertools.product("klmn", "aeiou")]
VOCAB = SPECIAL + GOOD + BAD + FILLER
LABELS = ["negative", "positive"]
SIZE, PATCH = 16, 4 # images: 4 x 4 patches

_vit = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=SIZE, patch_size=PATCH)
BACKBONES = {
    "bert": dict(model_type="bert", hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, vocab_size=len(VOCAB), max_position_embeddings=64),
    "bigru": dict(model_type="bigru", vocab_size=len(VOCAB), hidden_size=32, num_layers=1),
    "vit": dict(model_type="vit", **_vit),
    "dinov2": dict(model_type="dinov2", **{k: v for k, v in _vit.items() if k != "intermediate_size"}, mlp_ratio=2),
    "timm": dict(model_type="timm", architecture="vit_tiny_patch16_224", options=dict(img_size=SIZE, patch_size=PATCH, embed_dim=32, num_heads=2, depth=2)),
}
TEXTS, IMAGES = ("bert", "bigru"), ("vit", "dinov2", "timm")
NO_DROPOUT = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


def text_processor(max_length=40):
    return TextProcessor(BertTokenizerFast(vocab={w: i for i, w in enumerate(VOCAB)}, do_lower_case=True), max_length)


def make_model(kind="bert", seed=0, backbone=None, **options):
    "A model with random weights that differ from zero everywhere: biases and norms too, or a test could miss them."
    torch.manual_seed(seed)
    processor = text_processor() if kind in TEXTS else ImageProcessor(SIZE, PATCH)
    options = dict(pool="mean" if kind == "bigru" else "cls", sparsity=0.25) | options
    model = RationaleModel(ModelConfig(BACKBONES[kind] | (backbone or {}), LABELS, **options), processor)
    with torch.no_grad():
        for p in model.parameters(): p.add_(torch.randn_like(p) * 0.05)
    return model.eval()


def make_batch(kind="bert", seed=0, lengths=(9, 5, 12)):
    "A batch as `Examples.collate` gives it; `lengths` count real tokens, [CLS] and [SEP] included."
    g, B, L = torch.Generator().manual_seed(seed), len(lengths), max(lengths)
    labels, index = torch.randint(2, (B,), generator=g), torch.arange(B)
    if kind in IMAGES:
        L = (SIZE // PATCH) ** 2
        return dict(inputs=torch.randn(B, 3, SIZE, SIZE, generator=g), valid=torch.ones(B, L).bool(), special=torch.zeros(B, L).bool(), labels=labels, index=index)
    at, n = torch.arange(L).expand(B, L), torch.tensor(lengths)[:, None]
    ids = torch.randint(len(SPECIAL), len(VOCAB), (B, L), generator=g)
    ids = torch.where(at == 0, VOCAB.index("[CLS]"), torch.where(at == n - 1, VOCAB.index("[SEP]"), torch.where(at < n, ids, 0)))
    return dict(inputs=ids, valid=at < n, special=(at == 0) | (at == n - 1), labels=labels, index=index)


def planted_texts(n, seed, words=10):
    "Filler with one telling word: (texts, labels, position of the telling word)."
    rng = np.random.default_rng(seed)
    texts, labels, places = [], rng.integers(0, 2, n).tolist(), rng.integers(0, words, n).tolist()
    for label, place in zip(labels, places):
        text = rng.choice(FILLER, words).tolist()
        text[place] = str(rng.choice((BAD, GOOD)[label]))
        texts.append(" ".join(text))
    return texts, labels, places


def text_examples(texts, labels, processor=None):
    features = datasets.Features(input=datasets.Value("string"), label=datasets.ClassLabel(names=LABELS))
    return Examples(datasets.Dataset.from_dict(dict(input=texts, label=labels), features=features), processor or text_processor())


def text_data(n=24, seed=0):
    "Texts of different lengths, so that batches differ in shape."
    def part(n, seed):
        texts, labels, _ = planted_texts(n, seed)
        return text_examples([" ".join(t.split()[i % 4:]) for i, t in enumerate(texts)], labels)
    return Data(part(n, seed), part(8, seed + 1), part(8, seed + 2), LABELS)


def images(n, seed, size=SIZE):
    rng = np.random.default_rng(seed)
    return [Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8)) for _ in range(n)]


def image_examples(n, seed, augment=None, mirror=False):
    features = datasets.Features(input=datasets.Image(), label=datasets.ClassLabel(names=LABELS))
    rows = datasets.Dataset.from_dict(dict(input=images(n, seed), label=[i % 2 for i in range(n)]), features=features)
    return Examples(rows, ImageProcessor(SIZE, PATCH), augment, mirror)


def image_data(n=12, seed=0, augment=None):
    return Data(image_examples(n, seed, augment), image_examples(4, seed + 1), image_examples(4, seed + 2), LABELS)
