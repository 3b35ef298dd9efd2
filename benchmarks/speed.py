"""What selection costs, and what it saves: `python benchmarks/speed.py` prints examples a second and ratios, taken in alternating blocks.

(a) the paper's step, written plainly: both networks over all positions, float32; (b) ours with the same settings; (c) ours with dropped features taken out, the score
function with four draws, and a teacher whose rationales are remembered. Tasks: CLS, RE, REKD, inference. Random weights; a student of BERT-Mini's size with a teacher of
BERT-Small's at 256 tokens, of ViT-Tiny's with ViT-Small's at 224 pixels. `--quick` takes toy sizes and two blocks: a test that all of it runs, and no measurement.
"""
import argparse
import json
import platform
import statistics
import time
import torch
import torch.nn.functional as F
from rekd.backbone import TextBackbone
from rekd.vision import ImageBackbone
from rekd.machine import bf16_units
from rekd.model import Generator, ModelConfig, Predictor
from rekd.objective import CLS, RE, REKD, StepContext
from rekd.pretrained import backbone_from_config
from rekd.select import topk_mask

SIZES = dict( # student, teacher: width, layers, heads
    text=dict(full=((256, 4, 4), (512, 4, 8)), quick=((32, 2, 2), (32, 2, 2))),
    image=dict(full=((192, 12, 3), (384, 12, 6)), quick=((32, 2, 2), (32, 2, 2))))


class Pair(torch.nn.Module):
    "Generator and predictor with what an objective asks of a model, and without a tokenizer."
    def __init__(self, kind, size, length, dropped="zero"):
        super().__init__()
        width, layers, heads = size
        shape = dict(hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=4 * width)
        shape |= dict(model_type="bert", vocab_size=30522) if kind == "text" else dict(model_type="vit", image_size=16 * length, patch_size=16)
        make = lambda: backbone_from_config(shape, "mean")
        self.config = ModelConfig(shape, ["a", "b"], pool="mean", dropped=dropped)
        self.generator, self.predictor = Generator(make()), Predictor(make(), 2, dropped=dropped)
    device = torch.device("cpu")
    def selectable(self, batch): return batch["valid"] & ~batch["special"]
    def select(self, batch): return self.generator(batch["inputs"], batch["valid"])
    def predict(self, batch, mask): return self.predictor(batch["inputs"], batch["valid"], mask * self.selectable(batch) + batch["special"])


def make_batch(kind, n, length):
    "Inputs of one size: the paper pads to it."
    features = length if kind == "text" else length ** 2
    inputs = torch.randint(1000, 30000, (n, length)) if kind == "text" else torch.randn(n, 3, 16 * length, 16 * length)
    special = torch.zeros(n, features, dtype=torch.bool)
    if kind == "text": special[:, 0] = special[:, -1] = True
    return dict(inputs=inputs, valid=torch.ones(n, features, dtype=torch.bool), special=special, labels=torch.arange(n) % 2, index=torch.arange(n))


def states(backbone, inputs, mask):
    "The paper's network: all positions, dropped ones multiplied by 0."
    features = backbone.features(inputs) if mask is None else backbone.features(inputs) * mask.unsqueeze(-1)
    if isinstance(backbone, TextBackbone): return backbone.net(inputs_embeds=features).last_hidden_state
    assert isinstance(backbone, ImageBackbone)
    return backbone.encode(features, None)


def paper_classes(pair, batch, mask):
    "Class logits from the masked input."
    net, kept = pair.predictor, torch.ones(batch["valid"].shape) if mask is None else mask
    hidden = states(net.backbone, batch["inputs"], mask)[:, net.backbone.prefix:]
    return net.head(net.dropout((hidden * kept.unsqueeze(-1)).sum(1) / kept.sum(1, keepdim=True).clamp(min=1)))


def paper_logits(pair, batch):
    "Drop and keep logits."
    net = pair.generator
    return net.head(states(net.backbone, batch["inputs"], None)[:, net.backbone.prefix:])


def paper_loss(task, pair, teacher, batch, T=1.0, share=0.1):
    "The loss of REKD, section 3, or of its parts."
    if task == "CLS": return F.cross_entropy(paper_classes(pair, batch, None), batch["labels"])
    logits = paper_logits(pair, batch)
    mask = F.gumbel_softmax(logits, T, hard=True)[..., 1]
    classes = paper_classes(pair, batch, mask)
    loss = F.cross_entropy(classes, batch["labels"]) + 1e-4 * (mask.sum(-1) - share * mask.shape[1]).mean() ** 2
    if task == "RE": return loss
    with torch.no_grad(): theirs, their_classes = paper_logits(teacher, batch), paper_classes(teacher, batch, mask.detach())
    kl = lambda a, b: F.kl_div(F.log_softmax(a / T, -1), F.log_softmax(b / T, -1), log_target=True, reduction="none").flatten(1).sum(-1).mean()
    return 0.3 * loss + 0.7 * (0.5 * kl(logits, theirs) + T * T * kl(classes, their_classes))


def ways(kind, task, pairs, teacher, batch):
    "Name -> a function that does one step, or answers one batch."
    def trains(pair, loss):
        optimizer = torch.optim.AdamW(pair.parameters(), lr=1e-5)
        def step():
            pair.train()
            loss().backward()
            optimizer.step(); optimizer.zero_grad()
        return step
    context = StepContext(T=1.0, sparsity=0.1, seed=1)
    def ours(pair, objective): return trains(pair, lambda: objective(pair, batch, context)[0])
    plain, same, slim = pairs
    if task == "inference":
        def answer(pair, paper):
            pair.eval()
            with torch.inference_mode():
                logits = paper_logits(pair, batch) if paper else pair.select(batch)
                mask = topk_mask(logits[..., 1] - logits[..., 0], pair.selectable(batch), 0.1)
                return paper_classes(pair, batch, mask + batch["special"]) if paper else pair.predict(batch, mask)
        return dict(a=lambda: answer(plain, True), b=lambda: answer(same, False), c=lambda: answer(slim, False))
    out = dict(a=trains(plain, lambda: paper_loss(task, plain, teacher, batch)))
    if task == "CLS": return out | dict(b=ours(same, CLS()))
    if task == "RE": return out | dict(b=ours(same, RE()), c=ours(slim, RE(estimator="score:draws=4")))
    cached = REKD(teacher, kd_mask="teacher", estimator="score:draws=4")
    return out | dict(b=ours(same, REKD(teacher)), c=ours(slim, cached.remember([batch])))


def measure(steps, blocks, n):
    "Examples a second of each way: the median over blocks that take turns."
    seen = {name: [] for name in steps}
    for step in steps.values(): step() # warm
    for _ in range(blocks):
        for name, step in steps.items():
            clock = time.perf_counter()
            step()
            seen[name].append(n / (time.perf_counter() - clock))
    ratios = {name: statistics.median(x / a for x, a in zip(found, seen["a"])) for name, found in seen.items()}
    return {name: (statistics.median(found), ratios[name]) for name, found in seen.items()}


def matmul_rate(size):
    "GFLOP a second of a float32 product of two square matrices."
    a, b = torch.randn(2, size, size)
    a @ b
    clock = time.perf_counter()
    for _ in range(3): a @ b
    return 6 * size ** 3 / (time.perf_counter() - clock) / 1e9


def main(args=None):
    "Print the table."
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="toy sizes, two blocks: that it runs")
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--kinds", nargs="+", default=["text", "image"], choices=["text", "image"])
    parser.add_argument("--json", help="also write the rows to this file")
    options = parser.parse_args(args)
    size, blocks, n = ("quick", 2, 4) if options.quick else ("full", options.blocks, options.batch)
    torch.manual_seed(0)
    rate = matmul_rate(256 if options.quick else 2048)
    print(f"{platform.machine()} {' '.join(bf16_units()) or 'without bf16 units'}, {torch.backends.cpu.get_cpu_capability()}, "
          f"{torch.get_num_threads()} threads, torch {torch.__version__}; matmul in float32: {rate:.0f} GFLOP/s")
    rows = []
    for kind in options.kinds:
        student, guide = SIZES[kind][size]
        length = dict(text=dict(full=256, quick=24), image=dict(full=14, quick=4))[kind][size]
        teacher, batch = Pair(kind, guide, length).eval(), make_batch(kind, n, length)
        for task in ("CLS", "RE", "REKD", "inference"):
            pairs = [Pair(kind, student, length, dropped) for dropped in ("zero", "zero", "remove")]
            found = measure(ways(kind, task, pairs, teacher, batch), blocks, n)
            for way, (speed, ratio) in found.items():
                rows.append(dict(kind=kind, task=task, way=way, examples_per_second=speed, ratio=ratio))
                print(f"{kind:6} {task:10} ({way}) {speed:8.1f} examples/s   {ratio:5.2f} x (a)", flush=True)
    if options.json:
        with open(options.json, "w") as file: json.dump(dict(matmul_gflops=rate, blocks=blocks, quick=options.quick, rows=rows), file, indent=1)
    return rows


if __name__ == "__main__": main()
