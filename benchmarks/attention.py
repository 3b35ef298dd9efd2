"""Training speed of a small BERT on this machine: plain (eager) attention against the fused one (sdpa), and bf16 against float32.

Rounds alternate between the four, so that a noisy neighbour hits all of them; printed are medians of ratios taken within a round.
"""
import itertools
import statistics
import time

import torch
from transformers import BertConfig, BertModel


def examples_per_second(attention: str, bf16: bool, layers: int = 2, B: int = 32, L: int = 128, steps: int = 6) -> float:
    "Training speed of a small BERT with one way of computing attention."
    torch.manual_seed(0)
    net = BertModel(BertConfig(vocab_size=8000, hidden_size=384, num_hidden_layers=layers, num_attention_heads=12, intermediate_size=1536, attn_implementation=attention), add_pooling_layer=False)
    opt = torch.optim.AdamW(net.parameters(), lr=1e-5)
    ids, valid = torch.randint(5, 8000, (B, L)), torch.ones(B, L).long()
    valid[0, -10:] = 0
    for i in range(steps + 2): # the first two warm up
        if i == 2: began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16): hidden = net(input_ids=ids, attention_mask=valid).last_hidden_state
        hidden.float().mean().backward()
        opt.step()
        opt.zero_grad()
    return steps * B / (time.perf_counter() - began)


ways = list(itertools.product(("sdpa", "eager"), (False, True)))
rounds = [{way: examples_per_second(*way) for way in ways} for _ in range(5)]
for way in ways:
    ratios = [r[way] / r[ways[0]] for r in rounds]
    print(f"{way[0]:6} {'bf16' if way[1] else 'fp32'}  {statistics.median(ratios):.2f} x  ({min(ratios):.2f} to {max(ratios):.2f})")
