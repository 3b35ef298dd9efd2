"""What selection costs, and what it saves: `python benchmarks/speed.py` prints examples a second and ratios, taken in alternating blocks.

(a) the paper's step, written plainly: both networks over all positions, float32; (b) ours with the same settings; (c) ours with dropped features taken
out, the score function with four draws, and a teacher that is remembered: it predicts from its own rationale (kd_mask="teacher"); (plain) transformers'
own classifier of the student's size. Tasks: CLS, RE, REKD, inference. Random weights; a student of BERT-Mini's size with a teacher of BERT-Small's at 256
tokens, of ViT-Tiny's with ViT-Small's at 224 pixels. The last column is the share of the machine's matrix products a second. `--growth FILE.png` draws the
time of an answer against length and share kept instead. `--quick` takes toy sizes and two blocks: a test that all of it runs, and no measurement.
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
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForImageClassification, AutoModelForSequenceClassification

SIZES = dict( # student, teacher: width, layers, heads
    text=dict(full=((256, 4, 4), (512, 4, 8)), quick=((32, 2, 2), (32, 2, 2))),
    image=dict(full=((192, 12, 3), (384, 12, 6)), quick=((32, 2, 2), (32, 2, 2))))


def shape_of(kind, size, length):
    "A configuration as transformers has it."
    width, layers, heads = size
    shape = dict(hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=4 * width)
    return shape | (dict(model_type="bert", vocab_size=30522, max_position_embeddings=max(512, length)) if kind == "text"
                    else dict(model_type="vit", image_size=16 * length, patch_size=16))


class BlackBox(torch.nn.Module):
    "The classifier that everybody would take: it reads everything and says no reason."
    def __init__(self, kind, size, length):
        super().__init__()
        config, auto = AutoConfig.for_model(**shape_of(kind, size, length)), AutoModelForSequenceClassification if kind == "text" else AutoModelForImageClassification
        self.net = auto.from_config(config)
    def forward(self, batch): return self.net(batch["inputs"]).logits


class Pair(torch.nn.Module):
    "Generator and predictor with what an objective asks of a model, and without a tokenizer."
    def __init__(self, kind, size, length, dropped="zero"):
        super().__init__()
        shape = shape_of(kind, size, length)
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


def answer(pair, batch, paper, share=0.1):
    "Class logits from the best features."
    pair.eval()
    with torch.inference_mode():
        logits = paper_logits(pair, batch) if paper else pair.select(batch)
        mask = topk_mask(logits[..., 1] - logits[..., 0], pair.selectable(batch), share)
        return paper_classes(pair, batch, mask + batch["special"]) if paper else pair.predict(batch, mask)


def plain_answer(box, batch):
    "Class logits from everything."
    box.eval()
    with torch.inference_mode(): return box(batch)


def ways(task, pairs, box, teacher, batch):
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
        return dict(a=lambda: answer(plain, batch, True), b=lambda: answer(same, batch, False), c=lambda: answer(slim, batch, False),
                    plain=lambda: plain_answer(box, batch))
    out = dict(a=trains(plain, lambda: paper_loss(task, plain, teacher, batch)))
    if task == "CLS": return out | dict(b=ours(same, CLS()), plain=trains(box, lambda: F.cross_entropy(box(batch), batch["labels"])))
    if task == "RE": return out | dict(b=ours(same, RE()), c=ours(slim, RE(estimator="score:draws=4")))
    cached = REKD(teacher, kd_mask="teacher", estimator="score:draws=4")
    return out | dict(b=ours(same, REKD(teacher)), c=ours(slim, cached.remember([batch], sparsity=0.1)))


def flops(step):
    "Multiplications and additions in the matrix products of a step."
    with FlopCounterMode(display=False) as counter: step()
    return counter.get_total_flops()


def measure(steps, blocks, n):
    "Examples a second of each way, and their ratio to (a): medians over blocks that take turns; and operations an example."
    seen, work = {name: [] for name in steps}, {name: flops(step) / n for name, step in steps.items()} # and warm
    for _ in range(blocks):
        for name, step in steps.items():
            clock = time.perf_counter()
            step()
            seen[name].append(n / (time.perf_counter() - clock))
    ratios = {name: statistics.median(x / a for x, a in zip(found, seen["a"])) for name, found in seen.items()}
    return {name: (statistics.median(found), ratios[name], work[name]) for name, found in seen.items()}


def growth(size, blocks, n, lengths, shares, file):
    "Draw the time of an answer against the length of a text and against the share that is kept."
    from matplotlib import pyplot as plt
    fig, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    names = dict(plain="plain classifier", a="select-predict, dropped = zero", c="select-predict, dropped = remove")
    def times(length, share):
        box, pairs = BlackBox("text", size, length), [Pair("text", size, length, dropped) for dropped in ("zero", "remove")]
        batch = make_batch("text", n, length)
        steps = dict(a=lambda: answer(pairs[0], batch, True, share), c=lambda: answer(pairs[1], batch, False, share), plain=lambda: plain_answer(box, batch))
        return {name: 1000 / speed for name, (speed, *_) in measure(steps, blocks, n).items()}
    long, kept = [times(length, 0.1) for length in lengths], [times(lengths[-2], share) for share in shares]
    for ax, x, found, label in ((axes[0], lengths, long, "tokens a text, a tenth is kept"), (axes[1], shares, kept, f"share kept of {lengths[-2]} tokens")):
        for name, label_of in names.items(): ax.plot(x, [t[name] for t in found], marker="o", label=label_of)
        ax.set(xlabel=label, ylabel="milliseconds a text", ylim=(0, None))
    axes[0].legend(frameon=False)
    fig.suptitle(f"Generator and predictor of {size[1]} layers; {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}")
    fig.savefig(file, dpi=150)
    for x, t in [*zip(lengths, long), *zip(shares, kept)]: print(f"{x:>6} " + "  ".join(f"{name} {ms:8.2f} ms" for name, ms in t.items()))


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
    parser.add_argument("--growth", help="draw this figure instead of the table")
    parser.add_argument("--json", help="also write the rows to this file")
    options = parser.parse_args(args)
    size, blocks, n = ("quick", 2, 4) if options.quick else ("full", options.blocks, options.batch)
    torch.manual_seed(0)
    rate = matmul_rate(256 if options.quick else 2048)
    print(f"{platform.machine()} {' '.join(bf16_units()) or 'without bf16 units'}, {torch.backends.cpu.get_cpu_capability()}, "
          f"{torch.get_num_threads()} threads, torch {torch.__version__}; matmul in float32: {rate:.0f} GFLOP/s")
    if options.growth:
        return growth(SIZES["text"][size][0], blocks, n, *(((12, 24, 48), (0.1, 0.5, 1.0)) if options.quick else ((64, 128, 256, 512), (0.05, 0.1, 0.2, 0.4, 0.7, 1.0))), options.growth)
    rows = []
    for kind in options.kinds:
        student, guide = SIZES[kind][size]
        length = dict(text=dict(full=256, quick=24), image=dict(full=14, quick=4))[kind][size]
        teacher, batch = Pair(kind, guide, length).eval(), make_batch(kind, n, length)
        for task in ("CLS", "RE", "REKD", "inference"):
            pairs = [Pair(kind, student, length, dropped) for dropped in ("zero", "zero", "remove")]
            found = measure(ways(task, pairs, BlackBox(kind, student, length), teacher, batch), blocks, n)
            for way, (speed, ratio, work) in found.items():
                share = speed * work / rate / 1e9
                rows.append(dict(kind=kind, task=task, way=way, examples_per_second=speed, ratio=ratio, share_of_limit=share))
                print(f"{kind:6} {task:10} {f'({way})':7} {speed:8.1f} examples/s   {ratio:5.2f} x (a)   {share:4.0%} of the limit", flush=True)
    if options.json:
        with open(options.json, "w") as file: json.dump(dict(matmul_gflops=rate, blocks=blocks, quick=options.quick, rows=rows), file, indent=1)
    return rows


if __name__ == "__main__": main()
