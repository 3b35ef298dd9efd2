"""Every loss and one whole training step against references written from the paper, in float64, without rekd or transformers code."""

import math
import numpy as np
import pytest
import torch
from torch.testing import assert_close
import tiny
from rekd.objective import RE, REKD
from rekd.loss import annealed_alpha, prediction_kd_loss, rationale_kd_loss, rekd_loss, sparsity_loss
from rekd.select import gumbel_noise, gumbel_softmax, temperature
from rekd.train import TrainConfig, fit

B, L, C = 3, 5, 4
rng = np.random.default_rng(0)


def log_softmax(x):
    "By the log-sum-exp trick, in numpy."
    top = x.max(-1, keepdims=True)
    return x - top - np.log(np.exp(x - top).sum(-1, keepdims=True))


def softmax(x): return np.exp(log_softmax(x))


def leaf(x): return torch.tensor(x, dtype=torch.float64, requires_grad=True)


def close(mine, reference): assert_close(torch.as_tensor(mine).detach(), torch.as_tensor(reference), atol=1e-6, rtol=0, check_dtype=False)


# --- selection ---

@pytest.mark.parametrize("K", [2, 5])
@pytest.mark.parametrize("T", [5.0, 1.0, 0.1])
def test_gumbel_softmax(K, T):
    logits, noise, w = rng.normal(size=(B, L, K)), rng.gumbel(size=(B, L, K)), rng.normal(size=(B, L, K))
    z = leaf(logits)
    hard, log_probs = gumbel_softmax(z, T, torch.tensor(noise))
    y = softmax((logits + noise) / T)
    assert hard.dtype == log_probs.dtype == torch.float64
    assert np.array_equal(hard.detach().numpy(), np.eye(K)[(logits + noise).argmax(-1)]) # exactly one-hot, wherever T is
    close(log_probs, log_softmax((logits + noise) / T))
    (hard * torch.tensor(w)).sum().backward() # straight-through: the gradient of y, whose Jacobian is (diag(y) - y y') / T
    close(z.grad, y * (w - (y * w).sum(-1, keepdims=True)) / T)


def test_gumbel_softmax_gradient_of_the_relaxed_log_probs():
    logits, noise, w = rng.normal(size=(B, L, 2)), rng.gumbel(size=(B, L, 2)), rng.normal(size=(B, L, 2))
    z = leaf(logits)
    (gumbel_softmax(z, 0.7, torch.tensor(noise))[1] * torch.tensor(w)).sum().backward()
    close(z.grad, (w - softmax((logits + noise) / 0.7) * w.sum(-1, keepdims=True)) / 0.7)


@pytest.mark.parametrize("T", [5.0, 0.1])
def test_samples_follow_the_softmax_of_the_logits_at_any_temperature(T):
    logits, n = torch.tensor([0.3, -1.2, 1.0], dtype=torch.float64), 40_000
    share = gumbel_softmax(logits.expand(n, 3), T)[0].mean(0)
    p = softmax(logits.numpy())
    assert (np.abs(share.numpy() - p) < 4 * np.sqrt(p * (1 - p) / n)).all()


def test_gumbel_noise_has_the_moments_of_gumbel():
    g = gumbel_noise(torch.zeros(200_000, dtype=torch.float64))
    assert abs(g.mean() - np.euler_gamma) < 0.02 and abs(g.var() - math.pi**2 / 6) < 0.04


def test_gumbel_noise_repeats_with_its_generator():
    draw = lambda: gumbel_noise(torch.zeros(4), torch.Generator().manual_seed(7))
    assert torch.equal(draw(), draw()) and not torch.equal(draw(), gumbel_noise(torch.zeros(4)))


@pytest.mark.parametrize("T", [0.0, -1.0, float("nan")])
def test_a_temperature_that_is_not_positive_is_refused(T):
    with pytest.raises(ValueError, match="temperature"): gumbel_softmax(torch.zeros(1, 2), T)
    with pytest.raises(ValueError, match="temperature"): prediction_kd_loss(torch.zeros(1, 2), torch.zeros(1, 2), T)


@pytest.mark.parametrize("every", [1, 100])
def test_temperature(every):
    total = 1234
    for step in (0, 1, 99, 100, 617, 1233, 1234, 5000):
        at = step - step % every
        assert temperature(step, total, every=every) == pytest.approx(max(5.0 * (0.1 / 5.0) ** (at / total), 0.1), rel=1e-12)
    assert temperature(0, total) == 5.0 and temperature(total, total) == pytest.approx(0.1)


# --- losses ---

@pytest.mark.parametrize("target", [1.5, np.array([1.0, 0.5, 3.0])])
def test_sparsity_loss(target):
    mask = (rng.random((B, L)) < 0.5).astype(float)
    m = leaf(mask)
    loss = sparsity_loss(m, target if isinstance(target, float) else torch.tensor(target))
    excess = (mask.sum(-1) - target).mean()
    close(loss, excess**2)
    loss.backward()
    close(m.grad, np.full((B, L), 2 * excess / B))


@pytest.mark.parametrize("with_valid", [False, True])
@pytest.mark.parametrize("hard", [False, True])
def test_rationale_kd_loss(hard, with_valid):
    student, teacher = rng.normal(size=(B, L, 2)) * 2, rng.normal(size=(B, L, 2)) * 2
    valid = np.arange(L) < np.array([[5], [2], [4]]) if with_valid else np.ones((B, L), bool)
    s = leaf(student)
    loss = rationale_kd_loss(s.log_softmax(-1), torch.tensor(log_softmax(teacher)), torch.tensor(valid) if with_valid else None, hard)
    p = np.eye(2)[teacher.argmax(-1)] if hard else softmax(teacher)
    entropy = 0 if hard else -(p * log_softmax(teacher)).sum(-1)
    close(loss, (((-p * log_softmax(student)).sum(-1) - entropy) * valid).sum() / B)
    loss.backward()
    close(s.grad, (softmax(student) - p) * valid[..., None] / B)


@pytest.mark.parametrize("T", [3.0, 0.4])
@pytest.mark.parametrize("hard", [False, True])
def test_prediction_kd_loss(hard, T):
    student, teacher = rng.normal(size=(B, C)) * 2, rng.normal(size=(B, C)) * 2
    s = leaf(student)
    loss = prediction_kd_loss(s, torch.tensor(teacher), T, hard)
    p = softmax(teacher / T) # soft in both: the hard variant's cross-entropy has the KL's gradient
    entropy = 0 if hard else -(p * log_softmax(teacher / T)).sum(-1)
    close(loss, ((-p * log_softmax(student / T)).sum(-1) - entropy).mean())
    loss.backward()
    close(s.grad, (softmax(student / T) - p) / (T * B))


@pytest.mark.parametrize("part, rationale, prediction", [("both", 1, 1), ("rationale", 1, 0), ("prediction", 0, 1)])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_rekd_loss(part, rationale, prediction, alpha):
    re, kd_r, kd_y, T, weight = 0.7, 11.0, 0.13, 2.5, 0.4
    parts = [leaf(x) for x in (re, kd_r, kd_y)]
    loss = rekd_loss(*parts, T, alpha, weight, part)
    close(loss, alpha * re + (1 - alpha) * (rationale * weight * kd_r + prediction * T * T * kd_y))
    loss.backward()
    grads = [0.0 if p.grad is None else p.grad.item() for p in parts]
    assert grads == pytest.approx([alpha, (1 - alpha) * rationale * weight, (1 - alpha) * prediction * T * T])


def test_rekd_loss_weights_the_rationale_by_half_unless_told():
    assert rekd_loss(torch.tensor(0.0), torch.tensor(1.0), torch.tensor(0.0), 1.0, 0.0).item() == 0.5


def test_rekd_loss_refuses_nonsense():
    zero = torch.tensor(0.0)
    for alpha in (-0.1, 1.1):
        with pytest.raises(ValueError, match="alpha"): rekd_loss(zero, zero, zero, 1.0, alpha)
    with pytest.raises(ValueError, match="part"): rekd_loss(zero, zero, zero, 1.0, 0.5, part="rationales")


def test_annealed_alpha():
    assert annealed_alpha(5.0) == 0.0 and annealed_alpha(0.1) == pytest.approx(1.0) and annealed_alpha(2.55) == pytest.approx(0.5)
    assert annealed_alpha(1.5, 2.0, 1.0) == pytest.approx(0.5)


# --- one whole training step ---

class HardKeep(torch.autograd.Function):
    "keep = 1 where z[keep] > z[drop]; backward as if it were y = softmax(z / T)[keep], so dy/dz[keep] = y (1 - y) / T = -dy/dz[drop]."
    @staticmethod
    def forward(ctx, z, T):
        ctx.save_for_backward(z)
        ctx.T = T
        return (z[..., 1] > z[..., 0]).to(z)
    @staticmethod
    def backward(ctx, grad):
        z, = ctx.saved_tensors
        y = 1 / (1 + ((z[..., 0] - z[..., 1]) / ctx.T).exp())
        slope = grad * y * (1 - y) / ctx.T
        return torch.stack([-slope, slope], -1), None


def t_log_softmax(x): return x - (x - x.amax(-1, keepdim=True)).exp().sum(-1, keepdim=True).log() - x.amax(-1, keepdim=True)


def norm(x, w, prefix):
    centred = x - x.mean(-1, keepdim=True)
    return centred / ((centred**2).mean(-1, keepdim=True) + 1e-12).sqrt() * w[prefix + ".weight"] + w[prefix + ".bias"]


def dense(x, w, prefix): return x @ w[prefix + ".weight"].T + w[prefix + ".bias"]


def bert(w, words, valid, heads=2):
    "BERT's hidden states (Devlin et al., 2019) from its raw weights and (masked) word embeddings."
    e, n = "embeddings.", words.shape[1]
    x = norm(words + w[e + "position_embeddings.weight"][:n] + w[e + "token_type_embeddings.weight"][0], w, e + "LayerNorm")
    split = lambda t: t.unflatten(-1, (heads, -1)).transpose(1, 2)
    for layer in sorted({k.split(".")[2] for k in w if k.startswith("encoder.layer.")}):
        p = f"encoder.layer.{layer}."
        q, k, v = (split(dense(x, w, f"{p}attention.self.{name}")) for name in ("query", "key", "value"))
        scores = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).masked_fill(~valid[:, None, None], -torch.inf)
        x = norm(x + dense((t_log_softmax(scores).exp() @ v).transpose(1, 2).flatten(2), w, p + "attention.output.dense"), w, p + "attention.output.LayerNorm")
        h = dense(x, w, p + "intermediate.dense")
        x = norm(x + dense(h * (1 + torch.erf(h / math.sqrt(2))) / 2, w, p + "output.dense"), w, p + "output.LayerNorm")
    return x


def under(weights, prefix): return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}


def generator(weights, batch):
    w = under(weights, "generator.backbone.net.")
    hidden = bert(w, w["embeddings.word_embeddings.weight"][batch["inputs"]], batch["valid"])
    return dense(torch.relu(dense(hidden, weights, "generator.head.0")), weights, "generator.head.3")


def predictor(weights, batch, kept):
    w = under(weights, "predictor.backbone.net.")
    hidden = bert(w, w["embeddings.word_embeddings.weight"][batch["inputs"]] * kept[..., None], batch["valid"])
    return dense(hidden[:, 0], weights, "predictor.head")


def re_reference(weights, batch, noise, T, sparsity, select_lambda, special):
    "Loss, keep mask (over all valid features), relaxed log-probabilities, class logits."
    free = batch["valid"] if special else batch["valid"] & ~batch["special"]
    z = generator(weights, batch) + noise
    mask = HardKeep.apply(z, T) * free
    classes = predictor(weights, batch, mask + (batch["valid"] & ~free))
    ce = -t_log_softmax(classes)[range(len(classes)), batch["labels"]].mean()
    penalty = (mask.sum(-1) - sparsity * free.sum(-1)).mean() ** 2
    return ce + select_lambda * penalty, mask, t_log_softmax(z / T), classes, free


def rekd_reference(weights, teacher, batch, noises, T, sparsity, select_lambda, special, alpha, kd_r_lambda, part):
    re, mask, log_q, classes, free = re_reference(weights, batch, noises[0], T, sparsity, select_lambda, special)
    log_p = t_log_softmax((generator(teacher, batch) + noises[1]) / T)
    kd_r = ((log_p.exp() * (log_p - log_q)).sum(-1) * free).sum() / len(classes)
    theirs = predictor(teacher, batch, mask.detach() + (batch["valid"] & ~free))
    log_a, log_b = t_log_softmax(theirs / T), t_log_softmax(classes / T)
    kd_y = (log_a.exp() * (log_a - log_b)).sum() / len(classes)
    return alpha * re + (1 - alpha) * ((kd_r_lambda * kd_r if part != "prediction" else 0) + (T * T * kd_y if part != "rationale" else 0))


def adamw(p, grad, lr, decay, eps=1e-8):
    "The first step of AdamW (Loshchilov and Hutter, 2019): both bias-corrected moments are the gradient's own."
    return p * (1 - lr * decay) - lr * grad / (grad.abs() + eps)


class Watched:
    "An objective that notes the batch and the loss."
    selects = True
    def __init__(self, objective): self.objective, self.select_lambda = objective, objective.select_lambda
    def __call__(self, model, batch, context):
        loss, parts = self.objective(model, batch, context)
        self.batch, self.loss = batch, loss.item()
        return loss, parts


STEP = dict(lr=1e-3, weight_decay=0.05, T_start=1.7, T_end=0.5)


def one_step(objective, student, monkeypatch):
    "One step of `fit` under known noise; the student's weights before and after, the batch, the loss, the noise."
    noises = [torch.tensor(np.random.default_rng(i).gumbel(size=(8, 40, 2))) for i in (1, 2)]
    def fake(logits, batch, context, purpose): return noises[dict(student=0, teacher=1)[purpose]][:logits.shape[0], :logits.shape[1]]
    monkeypatch.setattr("rekd.context._noise", fake)
    before = {k: v.clone() for k, v in student.state_dict().items()}
    watched, data = Watched(objective), tiny.text_data(6)
    fit(student, data, watched, TrainConfig(epochs=1, batch_size=8, **STEP), quiet=True)
    n, length = watched.batch["inputs"].shape
    assert (n, length) == (6, 12) and not watched.batch["valid"].all() # one batch of all, some of it padding
    return before, student.state_dict(), watched, [x[:n, :length] for x in noises]


def check(before, after, reference, watched):
    "The reference's loss and its AdamW step from `before` are what rekd has."
    w = {k: v.clone().requires_grad_(k != "generator.backbone.net.embeddings.word_embeddings.weight") for k, v in before.items()}
    loss = reference(w)
    close(watched.loss, loss.item())
    learning = {k: p for k, p in w.items() if p.requires_grad}
    grads = torch.autograd.grad(loss, learning.values(), allow_unused=True)
    moved = 0
    for (k, p), g in zip(learning.items(), grads):
        expected = p if g is None else adamw(p, g, STEP["lr"], STEP["weight_decay"])
        close(after[k], expected.detach())
        moved += not torch.allclose(after[k], before[k], atol=1e-5, rtol=0)
    assert moved > len(learning) // 2 # the test is about something
    frozen = "generator.backbone.net.embeddings.word_embeddings.weight"
    assert torch.equal(after[frozen], before[frozen])


def make(seed, **options): return tiny.make_model("bert", seed, tiny.NO_DROPOUT, dropout=0.0, **options).double()


@pytest.mark.trains
@pytest.mark.parametrize("special", [False, True])
def test_one_re_step(special, monkeypatch):
    student = make(0, select_special=special)
    before, after, watched, noises = one_step(RE(0.03), student, monkeypatch)
    check(before, after, lambda w: re_reference(w, watched.batch, noises[0], 1.7, 0.25, 0.03, special)[0], watched)


@pytest.mark.trains
@pytest.mark.parametrize("part", ["both", "rationale", "prediction"])
@pytest.mark.parametrize("special", [False, True])
def test_one_rekd_step(special, part, monkeypatch):
    student, teacher = make(0, select_special=special), make(1, select_special=special)
    theirs = {k: v.clone() for k, v in teacher.state_dict().items()}
    before, after, watched, noises = one_step(REKD(teacher, 0.03, 0.3, 0.5, part), student, monkeypatch)
    check(before, after, lambda w: rekd_reference(w, theirs, watched.batch, noises, 1.7, 0.25, 0.03, special, 0.3, 0.5, part), watched)
    assert all(torch.equal(v, theirs[k]) for k, v in teacher.state_dict().items()) # the teacher stays as it was


def test_a_float64_model_computes_in_float64():
    "Rounding logits to float32 would make every comparison above ten digits coarser than it looks."
    model, batch = make(0), tiny.make_batch()
    logits = model.select(batch)
    close(logits, generator(model.state_dict(), batch))
    assert logits.dtype == torch.float64
    classes = model.predict(batch, torch.ones(batch["valid"].shape, dtype=torch.float64))
    assert_close(classes.detach(), predictor(model.state_dict(), batch, batch["valid"].double()), atol=1e-12, rtol=0)
