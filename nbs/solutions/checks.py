"""Checks for the exercises of the book: each says whether an answer is right and, where it is wrong, in which respect.

A check prints its finding and returns True or False. Chapters take it with `from solutions import checks`, solutions with `import checks`."""

import functools
import itertools
import math

import torch
import torch.nn.functional as F

CHECKS = {} # by name


class Wrong(Exception):
    "An answer that is not right; the message says in which respect."


def exercise(check):
    "A check that prints what it found, instead of raising it."
    @functools.wraps(check)
    def ask(answer) -> bool:
        try:
            if answer is None or answer is ...: raise Wrong("there is no answer yet.")
            check(answer)
        except Wrong as e: print("Not yet:", e)
        except Exception as e: print(f"Not yet: your code raised {type(e).__name__}: {e}")
        else:
            print("Right.")
            return True
        return False
    CHECKS[check.__name__] = ask
    return ask


def need(condition, what: str):
    "Wrong, unless the condition holds."
    if not condition: raise Wrong(what)


def got(f, *args):
    "What a function answers; Wrong if it is nothing."
    found = f(*args)
    need(found is not None and found is not ..., "your function returns nothing yet.")
    return found


def near(found, right, eps=1e-4) -> bool:
    "Numbers of the same shape that are equal but for rounding; Wrong for another shape."
    found, right = torch.as_tensor(found, dtype=torch.float), torch.as_tensor(right, dtype=torch.float)
    need(found.shape == right.shape, f"the shape is {tuple(found.shape)}, expected {tuple(right.shape)}.")
    need(found.isfinite().all(), "there is a number that is not finite.")
    return torch.allclose(found, right, atol=eps)


def noise(*shape, seed=0):
    "Normal numbers, the same every time."
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# 00 tour

@functools.cache
def _small():
    "The model that the package brings."
    from rekd.model import RationaleModel
    from rekd.run import find_model
    return RationaleModel.from_pretrained(find_model("imdb-small"))

@exercise
def of_two_minds(text):
    need(isinstance(text, str), "answer with a text.")
    for share, name, label in ((0.1, "a tenth", "positive"), (0.5, "half", "negative")):
        said = _small().explain(text, sparsity=share)
        words = " ".join(word for word, m in zip(said.features, said.mask) if m)
        need(said.label == label, f"from {name} of it the model says {said.label}, by: {words}.")

@exercise
def blind_accuracy(answer):
    need(abs(answer - 0.2) > 1e-3, "0.2 is how often it sees the opinion: a guess between two classes is right every second time.")
    need(abs(answer - 0.5) > 1e-3, "0.5 is a guess alone: once in five times it sees the opinion.")
    need(abs(answer - 0.7) > 1e-3, "where it sees the opinion it need not guess: guesses are right in half of the *other* reviews.")
    need(abs(answer - 0.6) < 1e-3, "count the reviews in which it sees the opinion, and half of the others.")

@exercise
def carrier(f):
    worth, mask = [0.1, 1.5, 0.4, 2.0, -0.9], [1, 0, 1, 0, 1]
    def ask(kept): return 1 / (1 + math.exp(-sum(w * k for w, k in zip(worth, kept))))
    found = got(f, ask, mask)
    need(isinstance(found, int), f"answer with a place in the list, a whole number, got {found!r}.")
    need(mask == [1, 0, 1, 0, 1], "your function changes the mask that it is given: work on a copy.")
    need(found in range(5) and mask[found], f"place {found} is not kept: ask about the kept ones, 0, 2 and 4.")
    need(found != 4, "without place 4 the probability *rises*: find the one without which it falls.")
    need(found == 2, f"without place {found} it falls, but not most.")


# 01 select

@exercise
def keep_probability(f):
    logits = noise(3, 4, 2)
    found, lead = got(f, logits), logits[..., 1] - logits[..., 0]
    need(not near(found, torch.sigmoid(-lead)), "this is the probability of *drop*: keep is column 1.")
    need(not near(found, torch.sigmoid(logits[..., 1])), "the logit of *drop* has no effect: the sigmoid is of a difference.")
    need(near(found, torch.sigmoid(lead)), "the numbers differ from the softmax of both logits.")

@exercise
def cool_step(answer):
    right = math.ceil(1000 * math.log(5) / math.log(50))
    need(answer != 500, "the temperature falls exponentially, not linearly: it is far below the middle at half of the run.")
    need(abs(answer - right) > 1 or answer == right, f"close: look for the first *whole* step at which T is below 1, not {answer}.")
    need(answer == right, "5 * (0.1 / 5) ** (step / 1000) is not below 1 for the first time there.")

@exercise
def own_topk(f):
    scores, able = noise(3, 10), torch.ones(3, 10).bool()
    able[1, 6:] = able[2, 2:] = False
    found = torch.as_tensor(got(f, scores, able, 0.3), dtype=torch.float)
    need(found.shape == scores.shape, f"the shape is {tuple(found.shape)}, expected (3, 10).")
    need(((found == 0) | (found == 1)).all(), "a mask holds 0 and 1 only.")
    need((found * ~able).sum() == 0, "a feature is kept that cannot be selected.")
    need(found[2].sum() > 0, "an example of two features keeps none: keep at least one.")
    need(found[1].sum() == 2, f"of six selectable features {int(found[1].sum())} are kept, expected round(0.3 * 6) = 2: take the share of the selectable ones.")
    need(found.sum(-1).tolist() == [3, 2, 1], f"the examples keep {found.sum(-1).tolist()}, expected [3, 2, 1].")
    best = sum(s[a].topk(k).values.sum() for s, a, k in zip(scores, able, (3, 2, 1)))
    need(abs((scores * found).sum() - best) < 1e-4, "others have higher scores than those that are kept.")

@exercise
def straight_through(f):
    lead = noise(1000).requires_grad_()
    found = got(f, lead, 0.7)
    need(((found == 0) | (found == 1)).all(), "forward it is not exactly 0 or 1: add (soft - soft.detach()) in brackets to the hard choice.")
    need(torch.equal(found.detach(), (lead > 0).float()), "a feature is kept exactly where its lead is positive.")
    need(found.requires_grad, "it has no gradient: the soft copy is missing.")
    (grad,) = torch.autograd.grad(found.sum(), lead)
    y = torch.sigmoid(lead / 0.7)
    need(not near(grad, torch.sigmoid(lead) * (1 - torch.sigmoid(lead))), "the temperature has no effect on the gradient.")
    need(near(grad, y * (1 - y) / 0.7), "the gradient is not that of sigmoid(lead / T).")


# 02 backbone

@exercise
def masked_mean(f):
    hidden, mask = noise(3, 5, 4), torch.tensor([[1., 0, 1, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]])
    found = got(f, hidden, mask)
    need(found.isfinite().all(), "an example that keeps nothing gives a number that is not finite: divide by at least 1.")
    need(not near(found, (hidden * mask[..., None]).mean(1)), "it divides by all places: divide by the number of kept ones.")
    need(not near(found[0], hidden[0].mean(0)), "dropped places count as well.")
    need(near(found, (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)), "the numbers differ from the mean of the kept states.")

@exercise
def window(answer):
    need(answer != 5, "that is one layer. The second layer reads states that have read their neighbours.")
    need(answer != 10, "the place itself is in both windows: do not count it twice.")
    need(answer == 9, "a layer of width 5 reads two places to each side; two layers read four.")

@exercise
def word_cnn(kind):
    from rekd.backbone import Backbone
    from rekd.check import check_backbone
    from rekd.pretrained import weights_source
    from rekd.processor import load_processor
    need(isinstance(kind, type) and issubclass(kind, Backbone), "expected your class, a subclass of rekd.backbone.Backbone.")
    need("encode" in vars(kind), "your class has no `encode` yet.")
    torch.manual_seed(0)
    net = kind(40, 16).eval()
    words, valid = torch.randint(5, 40, (1, 12), generator=torch.Generator().manual_seed(0)), torch.ones(1, 12).bool()
    other = words.clone()
    other[0, 6] = 5 + (words[0, 6] - 4) % 35
    with torch.no_grad(): moved = (net.encode(net.features(words), valid) - net.encode(net.features(other), valid)).abs().amax(-1)[0] > 1e-6
    need(moved[6], "a word's own state does not depend on the word.")
    need(moved[5] and moved[7], "a state does not depend on the words beside it: is there a convolution?")
    need(not moved[0], "a state depends on a word that is six places away: the windows are too wide.")
    check_backbone(net, load_processor(weights_source("minilm-l2-imdb"), net, max_length=32)) # says itself what is wrong


# 03 model

@exercise
def bound(answer):
    need(abs(answer - (6 / 256) ** 0.5) > 2e-4, "add inputs *and* outputs under the root.")
    need(abs(answer - 6 / 258) > 1e-3, "take the square root.")
    need(abs(answer - (6 / 258) ** 0.5) < 2e-4, "b = sqrt(6 / (inputs + outputs)) for 256 inputs and 2 outputs is another number.")

@exercise
def swap_dropped(f):
    words, seen = torch.randint(5, 40, (8, 20), generator=torch.Generator().manual_seed(1)), noise(8, 20) > 0
    before, found = words.clone(), got(f, words, seen, 40)
    need(torch.equal(words, before), "your function changes the inputs that it was given: work on a copy.")
    need(found.shape == words.shape, f"the shape is {tuple(found.shape)}, expected (8, 20).")
    need(torch.equal(found[seen], words[seen]), "a word that the predictor sees was changed.")
    need(found.min() >= 0 and found.max() < 40, "there is a number that is no word: they run from 0 to 39.")
    need((found != words)[~seen].all(), "some dropped words are still what they were: a test with them proves less.")

@exercise
def rationale_text(f):
    for text, mask, right in (("a b c d e", [0, 1, 1, 0, 1], "... b c ... e"), ("a", [0], "..."), ("a b", [1, 1], "a b"), ("a b c", [1, 0, 0], "a ...")):
        words = text.split()
        found = got(f, words, mask)
        need("... ..." not in found, f"{words} with {mask}: several dropped words in a row need one mark, got {found!r}.")
        need(found == right, f"{words} with {mask} should read {right!r}, got {found!r}.")

@exercise
def what_it_sees(answer):
    need(isinstance(answer, (set, list, tuple)), "expected a set of letters, such as {'a', 'b'}.")
    answer = set(answer)
    need("a" not in answer, "a: dropped words are multiplied by 0 before the network encodes them.")
    need("b" in answer, "b: a position embedding tells where a kept word stood.")
    need("c" in answer, "c: kept and dropped places differ in their states, so they can be counted.")
    need("d" in answer, "d: padding is hidden from attention and dropped words are not, so the length can be read.")
    need(answer == {"b", "c", "d"}, f"there is no {sorted(answer - set('abcd'))}.")

@exercise
def price_of_blanks(answer):
    need(isinstance(answer, dict) and set(answer) == {"times", "gradient"}, "expected a dictionary with the keys times and gradient.")
    need(... not in answer.values(), "there is no answer yet.")
    need(abs(answer["times"] - 100) > 2, "[CLS] and [SEP] are read as well, in both.")
    need(abs(answer["times"] - 202 / 22) > 0.2, "this is the ratio of places; attention looks from each place at each.")
    need(abs(answer["times"] - (202 / 22) ** 2) < 1, "compare (200 + 2) squared with (20 + 2) squared.")
    need(answer["gradient"] is False, "a word that is not there cannot say what it would have done: the straight-through gradient of a dropped word is lost.")


# 04 loss

@exercise
def sparsity_penalty(f):
    mask = torch.tensor([[1., 1, 1, 0, 0, 0], [0, 1, 0, 0, 0, 0]])
    able = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]]).bool()
    found = torch.as_tensor(got(f, mask, able, 0.5))
    need(found.ndim == 0, f"expected one number, got the shape {tuple(found.shape)}: take the mean over examples.")
    need(not near(found, 0.25), "this is the square of the mean: an example that keeps too many is forgiven by one that keeps too few.")
    need(not near(found, 2.0), "the target is a share of the *selectable* features: the second example has four.")
    need(not near(found, 1.0), "this is the sum over examples, not the mean.")
    need(near(found, 0.5), f"expected ((3 - 3) ** 2 + (1 - 2) ** 2) / 2 = 0.5, got {found:.3g}.")

@exercise
def own_kl(f):
    student, teacher = noise(2, 3, 2).log_softmax(-1), noise(2, 3, 2, seed=1).log_softmax(-1)
    right = (teacher.exp() * (teacher - student)).sum((1, 2)).mean()
    found = torch.as_tensor(got(f, student, teacher))
    need(found.ndim == 0, f"expected one number, got the shape {tuple(found.shape)}.")
    other = (student.exp() * (student - teacher)).sum((1, 2)).mean()
    need(not near(found, other), "this is KL(student || teacher): the teacher's probabilities are the weights.")
    need(not near(found, right / 3), "sum over features, then take the mean over examples: this is the mean over both.")
    need(not near(found, right * 2), "take the mean over examples, not the sum.")
    need(near(found, right), f"KL(teacher || student) is {right:.4f} here, got {found:.4f}.")

@exercise
def colder_gradient(answer):
    need(abs(answer - 2) > 0.2, "2 is the division alone. The softened distributions also come nearer to each other.")
    need(abs(answer - 0.25) > 0.05, "the other way round: how much *larger* is it at T = 10?")
    need(3.7 < answer < 4.3, "hot, the gradient shrinks like 1 / T ** 2.")

@exercise
def edges(f):
    mask = torch.tensor([[1., 1, 0, 0, 1, 0], [1, 0, 1, 1, 1, 0]])
    able = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]]).bool()
    mask.requires_grad_()
    found = got(f, mask, able)
    need(found.shape == (2,), f"the shape is {tuple(found.shape)}, expected one number an example: (2,).")
    need(found[1] != 3, "an edge counts only between two selectable features: the second example has four of them.")
    need(near(found.detach(), [3., 2.]), f"expected 3 and 2 edges, got {found.tolist()}.")
    need(found.requires_grad, "it has no gradient: use differences of the mask, no comparison.")


# 05 objective

@exercise
def who_learns(answer):
    both, one = {"generator", "predictor"}, {"predictor"}
    right = dict(CLS=(one, "the mask is all ones, so the generator is not asked."), random=(one, "the mask is noise, so the generator is not asked."),
                 RE=(both, "the mask is the generator's, and the predictor reads it."),
                 rationales=({"generator"}, "L_r compares two generators and needs no class."),
                 predictions=(both, "the predictor by its classes, and the generator through the mask, if only a little."))
    need(isinstance(answer, dict) and set(answer) == set(right), f"expected a dictionary with the keys {', '.join(right)}.")
    need(... not in answer.values(), "there is no answer yet for " + ", ".join(k for k, v in answer.items() if v is ...) + ".")
    for name, (learns, why) in right.items(): need(set(answer[name]) == learns, f"{name}: {why}")

@exercise
def own_noise(f):
    together, alone = got(f, torch.tensor([3, 7, 9]), 5, 1), got(f, torch.tensor([7]), 5, 1)
    need(together.shape == (3, 5), f"the shape is {tuple(together.shape)}, expected (3, 5).")
    need(torch.equal(together[1], alone[0]), "example 7 has other noise when it is alone: give each example a stream of its own.")
    need(not torch.equal(together[0], together[1]), "two examples have the same noise: the number of the example belongs into the seed.")
    need(not torch.equal(together, got(f, torch.tensor([3, 7, 9]), 5, 2)), "the seed of the epoch has no effect.")

@exercise
def indecision(f):
    logits, able = torch.stack([torch.zeros(2, 4), noise(2, 4) * 2], -1).requires_grad_(), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]).bool()
    p = logits.softmax(-1)
    each = -(p * p.log()).sum(-1)
    found, right = got(f, logits, able), (each * able).sum(-1) / able.sum(-1)
    need(found.shape == (2,), f"the shape is {tuple(found.shape)}, expected one number an example: (2,).")
    need(not near(found.detach(), -right.detach()), "an entropy is positive: the sign is missing.")
    need(not near(found.detach(), each.mean(-1).detach()), "padding counts as well: take the mean over selectable features.")
    need(near(found.detach(), right.detach()), "the numbers differ from the mean entropy of drop and keep, in nats.")
    need(found.requires_grad, "it has no gradient.")


# 06 estimate

@exercise
def log_probability(f):
    logits, mask = noise(3, 4, 2), (noise(3, 4, seed=1) > 0).float()
    found, each = got(f, logits, mask), logits.log_softmax(-1)
    right = torch.where(mask > 0, each[..., 1], each[..., 0]).sum(-1)
    need(found.shape == (3,), f"the shape is {tuple(found.shape)}, expected one number an example: (3,).")
    need(not near(found, (each[..., 1] * mask).sum(-1)), "dropping a feature has a probability as well.")
    need(not near(found, right.exp()), "this is the probability: its logarithm is asked for.")
    need(near(found, right), "the numbers differ from the sum of the log-probabilities of what was chosen.")

@exercise
def advantages(f):
    losses = noise(4, 3)
    found = got(f, losses)
    need(found.shape == losses.shape, f"the shape is {tuple(found.shape)}, expected (4, 3).")
    need(not near(found, losses - losses.mean(0)), "a draw is in its own baseline: leave it out, or the gradient is too short.")
    need(not near(found, losses - losses.mean()), "the baseline mixes examples: take the other draws of the same example.")
    need(near(found, losses - (losses.sum(0) - losses) / 3), "expected each loss less the mean of the other draws of its example.")

@exercise
def exact_gradient(f):
    scores = noise(3)
    def cost(mask): return (mask.sum() - 1) ** 2 + mask[0] * 0.5
    s = scores.clone().requires_grad_()
    p = s.sigmoid()
    sum(torch.where(m > 0, p, 1 - p).prod() * cost(m) for m in map(torch.tensor, itertools.product([0., 1.], repeat=3))).backward()
    found = got(f, scores, cost)
    need(not near(found, torch.zeros(3)), "the gradient is zero: weigh each mask's cost with its probability, which depends on the scores.")
    need(near(found, s.grad), "the numbers differ from the gradient of the mean over all eight masks.")

@exercise
def beat_blind(f):
    g = torch.Generator().manual_seed(0)
    pictures, at, sign = torch.randn(400, 16, generator=g), torch.randint(16, (400,), generator=g), torch.randint(2, (400,), generator=g) * 2 - 1
    pictures[torch.arange(400), at] += 4.0 * sign
    found = torch.as_tensor(got(f, pictures), dtype=torch.float)
    need(found.shape == (400, 16), f"the shape is {tuple(found.shape)}, expected (400, 16).")
    need(((found == 0) | (found == 1)).all() and (found.sum(-1) == 2).all(), "keep exactly two of the 16 patches of each picture.")
    hit = found[torch.arange(400), at]
    bright, dark = hit[sign > 0].mean().item(), hit[sign < 0].mean().item()
    need(hit.mean() > 0.2, f"the patch that tells the class is kept in {hit.mean():.0%} of the pictures; a blind choice has 12%.")
    need(min(bright, dark) > 0.6, f"of bright patches {bright:.0%} are found, of dark ones {dark:.0%}: one class is given away by what is *missing*.")
    need(hit.mean() > 0.85, f"the patch that tells the class is kept in {hit.mean():.0%} of the pictures; 85% is possible.")


# 07 train

@exercise
def cosine_rate(f):
    found = [float(got(f, s, 100, 2.0, 0.1)) for s in (0, 9, 10, 55, 99)]
    need(found[0] > 0, "the first step has the rate 0 and teaches nothing: begin above it.")
    need(max(found) <= 2.0 + 1e-6, f"the rate rises to {max(found):.3g}, above the highest of 2.")
    need(abs(found[2] - 2.0) < 1e-3, f"after the warm-up (step 10) the rate should be 2, got {found[2]:.3g}.")
    need(abs(found[3] - 1.0) < 0.02, f"half way down (step 55) a cosine is at half of the highest rate, got {found[3]:.3g}.")
    need(0 <= found[4] < 0.01, f"the last step should be nearly 0, got {found[4]:.3g}.")

@exercise
def pooled_accuracy(f):
    found = float(got(f, [(9, 10), (0, 2)]))
    need(abs(found - 0.45) > 1e-6, "this is the mean of two means: the batch of two counts as much as that of ten.")
    need(abs(found - 0.75) < 1e-6, f"nine of twelve are right, got {found:.3g}.")

@exercise
def epoch_to_keep(f):
    rows = [dict(loss=0.3, at_goal=False), dict(loss=0.6, at_goal=True), dict(loss=0.5, at_goal=True), dict(loss=0.7, at_goal=True)]
    need(got(f, rows) != 0, "epoch 0 was not yet asked for the goal: its low loss is that of an easier task.")
    need(f(rows) != 3, "the last epoch is not the best.")
    need(f(rows) == 2, f"expected epoch 2, got {f(rows)}.")
    need(f(rows[:1]) is None, "where no epoch is at the goal, none may be kept: None.")

@exercise
def cnn_student(model):
    from rekd.model import RationaleModel
    need(isinstance(model, RationaleModel), "expected a RationaleModel.")
    need(model.config.selects, "its generator did not learn: train it with REKD.")
    need(not type(model.predictor.backbone).__module__.startswith("rekd"), "its backbone is one of the library's: use the word-CNN that you registered.")
    words = ["w1 w2 lovely w3 w4 superb w5 w6 moving w7", "dull w1 w2 w3 awful w4 w5 w6 w7 boring"] * 2
    found = model(words, sparsity=0.3)
    need(found == ["good", "bad"] * 2, f"it should call planted reviews good and bad, got {found[:2]}.")
    kept = {w for e in model.explain(words, sparsity=0.3) for w, k in zip(e.features, e.mask) if k}
    need(len(kept & set("lovely superb moving dull awful boring".split())) >= 3, f"at least three of the six opinions should be kept, got {sorted(kept)}.")


# 08 evaluate

@exercise
def own_f1(f):
    found = float(got(f, [1, 1, 0, 0, 0], [1, 0, 1, 1, 0]))
    need(abs(found - 0.4) < 1e-6, f"two kept, three marked, one in common: expected 2 * 1 / (2 + 3) = 0.4, got {found:.3g}.")
    need(float(got(f, [0, 0], [1, 0])) == 0, "an empty rationale has found nothing: expected 0.")
    need(float(got(f, [1, 1], [1, 1])) == 1, "a perfect match is 1.")

@exercise
def own_sufficiency(f):
    full, only = torch.tensor([[0.9, 0.1], [0.3, 0.7]]), torch.tensor([[0.6, 0.4], [0.5, 0.5]])
    found = torch.as_tensor(got(f, full, only))
    need(found.ndim == 0, "expected one number, the mean over examples.")
    need(not near(found, -0.25), "the other way round: how far does the probability *fall* when only the rationale is left?")
    need(not near(found, 0.2), "the class is the one predicted from everything, also where the rationale says another.")
    need(near(found, 0.25), f"expected (0.3 + 0.2) / 2 = 0.25, got {found:.3g}.")

def _masks(n, cheats, seed):
    "Masks of two classes over ten places, of equal size; a cheating generator says the class by the place that it keeps."
    g = torch.Generator().manual_seed(seed)
    labels, masks = torch.randint(2, (n,), generator=g), torch.zeros(n, 10)
    order = torch.rand(n, 10, generator=g).argsort(-1)[:, :3]
    masks.scatter_(1, order, 1.0)
    if cheats: # one of three is the signal
        masks.scatter_(1, order[:, :1], 0.0)
        masks[:, :2] = F.one_hot(labels, 2).float()
    return masks, labels

@exercise
def mask_reader(f):
    (train, labels), (test, truth) = _masks(300, True, 0), _masks(200, True, 1)
    found = torch.as_tensor(got(f, train, labels, test))
    need(found.shape == (200,), f"the shape is {tuple(found.shape)}, expected a class for each of the 200 test masks.")
    right = (found == truth).float().mean().item()
    need(right > 0.2, "it reads the signal the wrong way round: classes are swapped.")
    need(right > 0.6, f"it is right on {right:.0%}: no better than a guess. How many places are kept says nothing here; *which* does.")
    need(right > 0.95, f"it is right on {right:.0%}; this generator gives its class away in every mask.")
    honest, other = (_masks(n, False, s) for n, s in ((300, 2), (200, 3)))
    blind = (torch.as_tensor(f(honest[0], honest[1], other[0])) == other[1]).float().mean().item()
    need(blind < 0.65, f"it is right on {blind:.0%} of honest masks, which say nothing: does it look at the test labels?")

@exercise
def mask_penalty(f):
    (cheat, labels), (honest, theirs) = _masks(400, True, 4), _masks(400, False, 5)
    cheat.requires_grad_()
    bad, good = got(f, cheat, labels), torch.as_tensor(f(honest, theirs))
    need(bad.ndim == 0, "expected one number.")
    need(bad.requires_grad, "it has no gradient, so it teaches the generator nothing.")
    need(good >= -1e-6, "a penalty is not below 0: it would pay for something else.")
    need(bad > 5 * good + 0.1, f"a cheat pays {bad:.3g} and an honest generator {good:.3g}: compare where the two *classes* keep, not how much.")


# 09 show

@exercise
def marked(f):
    for words, mask, right in (("a b c d".split(), [0, 1, 1, 0], "a [b c] d"), (["a", "b"], [1, 0], "[a] b"), (["a", "b"], [1, 1], "[a b]"), (["a"], [0], "a")):
        found = got(f, words, mask)
        need("] [" not in found, f"{words} with {mask}: neighbours belong into one pair of brackets, got {found!r}.")
        need(found == right, f"{words} with {mask} should read {right!r}, got {found!r}.")

@exercise
def to_pixels(f):
    mask = torch.tensor([[1., 0, 0, 0]])
    found = torch.as_tensor(got(f, mask, 3), dtype=torch.float)
    need(found.shape == (1, 6, 6), f"four patches of 3 x 3 pixels make a picture of 6 x 6, got {tuple(found.shape)}.")
    need(found.sum() == 9, f"one patch has 9 pixels, got {found.sum():.0f}.")
    need(found[0, :3, :3].sum() == 9, "the first patch is the square at the top left: repeat rows *and* columns.")
    second = torch.as_tensor(f(torch.tensor([[0., 1, 0, 0]]), 3), dtype=torch.float)
    need(second[0, :3, 3:].sum() == 9, "patches are read row by row: the second stands to the right of the first.")

REPORT = dict(A=dict(accuracy=0.90, recall_good=0.97, recall_bad=0.41, blind=0.74, mask_alone=0.88),
              B=dict(accuracy=0.86, recall_good=0.87, recall_bad=0.85, blind=0.62, mask_alone=0.53)) # two models of one task; one label in eight is bad

@exercise
def whom_to_trust(answer):
    need(answer != "A", "A is right more often, and sees 41% of the bad ones; and its masks alone tell the class in 0.88: its words need not be the reason.")
    need(answer == "B", "answer with the name of a model, 'A' or 'B'.")


# 10 attribute

@exercise
def gradient_times_input(f):
    weights = noise(5, 3)
    def score(features): return torch.tanh((features * weights).sum(-1)).sum(-1)
    features = noise(5, 3, seed=1)
    x = features.clone().requires_grad_()
    (grad,) = torch.autograd.grad(score(x), x)
    found = got(f, score, features)
    need(found.shape == (5,), f"the shape is {tuple(found.shape)}, expected one number a feature: (5,).")
    need(not near(found, grad.norm(dim=-1)) and not near(found, grad.sum(-1)), "this is the gradient alone: multiply it by the input.")
    need(not near(found, (grad * features).sum(-1).abs()), "the sign is lost: a feature may speak against the class.")
    need(near(found, (grad * features).sum(-1)), "the numbers differ from gradient times input, summed over dimensions.")

@exercise
def own_occlusion(f):
    worth = torch.tensor([0.5, -0.2, 0.0, 0.3])
    def probability(mask): return torch.sigmoid((mask * worth).sum())
    full = probability(torch.ones(4))
    right = torch.stack([full - probability(torch.ones(4) - e) for e in torch.eye(4)])
    found = torch.as_tensor(got(f, probability, 4))
    need(not near(found, -right), "the sign: a feature matters where the probability *falls* without it.")
    need(not near(found, torch.stack([probability(e) for e in torch.eye(4)])), "this keeps one feature at a time: take one away at a time.")
    need(near(found, right), "the numbers differ from the fall of the probability without each feature.")

@exercise
def chance_f1(answer):
    need(abs(answer - 0.45) > 1e-3, "0.45 is the expected number of hits: F1 divides twice that by 3 + 3.")
    need(abs(answer - 0.5) > 1e-3, "a blind choice of three among twenty is right far less often than every second time.")
    need(abs(answer - 0.15) < 1e-3, "each of the three choices is a hit with probability 3 / 20.")
