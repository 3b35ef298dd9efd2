"""Nothing that is loaded can run, reach out of its folder, or write into a page: hostile files, and a check of the source itself."""

import ast
import json
import pickle
import re
import shutil
import struct
from html.parser import HTMLParser
from pathlib import Path

import pytest
import rekd
import tiny
import torch
import yaml
from huggingface_hub import ModelCard
from rekd.pretrained import load_backbone
from rekd.processor import load_processor
from rekd.errors import ModelError, RekdError
from rekd.draw import Explanation
from rekd.model import RationaleModel
from rekd.show import rationale_page, to_terminal, verdict
from rekd.checkpoint import load_checkpoint, save_checkpoint

HTML = "<script>alert('x')</script><img src=x onerror=alert(1)>\" onclick=\"x"


class Malicious:
    "Unpickling it runs a command: it makes the file `marker`."
    def __init__(self, marker): self.marker = marker
    def __reduce__(self): return (open, (self.marker, "w"))


@pytest.fixture
def marker(tmp_path, monkeypatch):
    "A file that exists if foreign code ran; and nobody may be asked to agree to that."
    def asked(*args): raise AssertionError("somebody was asked to run foreign code")
    monkeypatch.setattr("builtins.input", asked)
    yield tmp_path / "code-ran"
    assert not (tmp_path / "code-ran").exists()


@pytest.fixture(scope="module")
def top(tmp_path_factory):
    top, model = tmp_path_factory.mktemp("saved"), tiny.make_model("bert")
    model.save_pretrained(top / "model")
    tiny.make_model("timm").save_pretrained(top / "timm")
    model.generator.backbone.net.save_pretrained(top / "bert")
    model.processor.tokenizer.save_pretrained(top / "bert")
    return top


@pytest.fixture
def model(top, tmp_path): return shutil.copytree(top / "model", tmp_path / "model")


@pytest.fixture
def bert(top, tmp_path): return shutil.copytree(top / "bert", tmp_path / "bert")


def edit(file, **changes): file.write_text(json.dumps(json.loads(file.read_text()) | changes))
def load_bert(folder): return load_processor(str(folder), load_backbone(str(folder)))


def refused_or_inert(load, *args):
    try: return load(*args)
    except RekdError: return None


# --- pickles ---

def test_the_planted_pickle_would_work(tmp_path):
    "Else the tests below would prove nothing."
    (tmp_path / "x").write_bytes(pickle.dumps(Malicious(str(tmp_path / "code-ran"))))
    pickle.load(open(tmp_path / "x", "rb"))
    assert (tmp_path / "code-ran").exists()


def pickled(marker): return pickle.dumps(Malicious(str(marker)))


def torch_pickled(marker, file):
    torch.save(Malicious(str(marker)), file)
    return file.read_bytes()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "optimizer.pt", "training_args.bin", "model.pkl", "__init__.py", "model.safetensors", "config.json", "tokenizer.json",
                                  "tokenizer_config.json", "metrics.json", "rationale.png", "vocab.txt", "added_tokens.json", "special_tokens_map.json", "README.md"])
@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_a_pickle_in_a_model_folder_never_runs(name, how, model, bert, marker, tmp_path):
    content = pickled(marker) if how == "pickle" else torch_pickled(marker, tmp_path / "p")
    for folder, load in ((model, RationaleModel.from_pretrained), (bert, load_bert)):
        (folder / name).write_bytes(content)
        refused_or_inert(load, folder)


def test_pickled_weights_are_not_read_even_alone(bert, marker, tmp_path):
    (bert / "model.safetensors").unlink()
    torch_pickled(marker, bert / "pytorch_model.bin")
    with pytest.raises(ModelError, match="safetensors"): load_bert(bert)
    torch.save(tiny.make_model("bert").generator.backbone.net.state_dict(), bert / "pytorch_model.bin") # not even harmless ones
    with pytest.raises(ModelError, match="safetensors"): load_bert(bert)


@pytest.mark.parametrize("shard", ["shard.bin", "../elsewhere/shard.bin", "shard.safetensors"])
def test_an_index_cannot_smuggle_a_pickle_in(shard, bert, marker, tmp_path):
    from safetensors import safe_open
    with safe_open(bert / "model.safetensors", "pt") as f: names = list(f.keys())
    (bert / "model.safetensors").unlink()
    (tmp_path / "elsewhere").mkdir()
    torch_pickled(marker, bert / shard)
    (bert / "model.safetensors.index.json").write_text(json.dumps(dict(metadata={}, weight_map=dict.fromkeys(names, shard))))
    with pytest.raises(ModelError): load_bert(bert)


def test_a_pickle_as_optimizer_state_never_runs(marker, tmp_path):
    model = tiny.make_model("bert")
    optimizer = torch.optim.AdamW(model.parameters())
    save_checkpoint(tmp_path, 1, model, optimizer, {})
    for content in (pickled(marker), torch_pickled(marker, tmp_path / "p")):
        (tmp_path / "checkpoint-0000001" / "optimizer.pt").write_bytes(content)
        with pytest.raises(RekdError): load_checkpoint(tmp_path / "checkpoint-0000001", model, optimizer)


# --- code and classes that a file names ---

CODE = "open({!r}, 'w')\nclass X: pass\n"


def test_code_beside_a_tokenizer_or_a_network_is_inert(model, bert, marker):
    for folder in (model, bert):
        (folder / "evil.py").write_text(CODE.format(str(marker)))
        edit(folder / "tokenizer_config.json", auto_map=dict(AutoTokenizer=["evil.X", "evil.X"]), tokenizer_class="X", trust_remote_code=True)
    auto_map = dict(AutoConfig="evil.X", AutoModel="evil.X")
    edit(bert / "config.json", auto_map=auto_map, trust_remote_code=True)
    c = json.loads((model / "config.json").read_text())
    edit(model / "config.json", backbone=c["backbone"] | dict(auto_map=auto_map, trust_remote_code=True))
    refused_or_inert(RationaleModel.from_pretrained, model)
    refused_or_inert(load_bert, bert)
    edit(bert / "config.json", model_type="evil") # a kind that only the code knows
    with pytest.raises(ModelError): load_bert(bert)


@pytest.mark.parametrize("kind", ["os.system", "evil.X", "rekd.backbone.BiGRU", "../../evil", "builtins.eval", "", None, 3, ["bert"]])
def test_classes_are_looked_up_in_our_registry_only(kind, model, marker):
    (model / "evil.py").write_text(CODE.format(str(marker)))
    c = json.loads((model / "config.json").read_text())
    edit(model / "config.json", backbone=c["backbone"] | dict(model_type=kind))
    with pytest.raises(ModelError, match="model_type must be one of"): RationaleModel.from_pretrained(model)


def test_the_kind_of_attention_is_ours_to_choose(model, bert):
    "Its name could mean code on the hub."
    c = json.loads((model / "config.json").read_text())
    for key in ("_attn_implementation", "attn_implementation"):
        edit(model / "config.json", backbone=c["backbone"] | {key: "evil/kernel"})
        assert RationaleModel.from_pretrained(model).generator.backbone.net.config._attn_implementation == "eager"
        edit(bert / "config.json", **{key: "evil/kernel"})
        assert load_backbone(str(bert)).net.config._attn_implementation == "eager"


@pytest.mark.parametrize("change", [dict(architecture="hf-hub:evil/model"), dict(architecture="local-dir:/tmp"), dict(architecture="hf_hub:evil/model"), dict(architecture="../../evil"),
                                    dict(options=dict(checkpoint_path="MARKER")), dict(options=dict(pretrained_cfg=dict(file="MARKER"))), dict(options=dict(cache_dir="/tmp"))])
def test_timm_gets_names_it_knows_and_numbers(change, top, marker, tmp_path):
    torch_pickled(marker, tmp_path / "evil.pth")
    folder = shutil.copytree(top / "timm", tmp_path / "timm")
    c = json.loads((folder / "config.json").read_text())
    edit(folder / "config.json", backbone=json.loads(json.dumps(c["backbone"] | change).replace("MARKER", str(tmp_path / "evil.pth"))))
    with pytest.raises(ModelError, match="timm"): RationaleModel.from_pretrained(folder)


# --- paths that lead out ---

def test_paths_in_a_tokenizer_config_lead_nowhere(model, tmp_path):
    "Another tokenizer lies outside; naming it does not bring it in."
    (outside := tmp_path / "outside").mkdir()
    swapped = (model / "tokenizer.json").read_text().replace('"good"', '"evil"')
    (outside / "tokenizer.json").write_text(swapped)
    for key in ("tokenizer_file", "vocab_file", "name_or_path", "tokenizer_class", "special_tokens_map_file", "chat_template"):
        edit(model / "tokenizer_config.json", **{key: "../outside/tokenizer.json"})
        loaded = refused_or_inert(RationaleModel.from_pretrained, model)
        assert loaded is None or "evil" not in loaded.processor.tokenizer.get_vocab()


@pytest.mark.parametrize("options", [dict(max_length=40, tokenizer="../../x"), dict(tokenizer_file="/etc/passwd", max_length=40), dict(source="..", max_length=40)])
def test_the_processor_takes_no_paths(options, model):
    edit(model / "config.json", processor=options)
    with pytest.raises(ModelError): RationaleModel.from_pretrained(model)


def test_a_label_that_is_a_path_stays_a_word(model, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    edit(model / "config.json", labels=["../../evil", "/etc/passwd"])
    loaded = RationaleModel.from_pretrained(model)
    loaded.save_pretrained(tmp_path / "again")
    loaded.explain("ka")._repr_html_()
    assert sorted(p for p in tmp_path.rglob("*") if "again" not in p.parts) == before and not (tmp_path.parent / "evil").exists()


# --- names that want to be more than text ---

class Tags(HTMLParser):
    "Scripts, handlers and foreign addresses among the tags of a page."
    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)
    def handle_starttag(self, tag, attrs):
        if tag in ("script", "iframe", "object"): self.found.append(tag)
        self.found += [(tag, k) for k, v in attrs if k.startswith("on") or k in ("src", "href") and not v.startswith("data:")]


def unescaped(page): return Tags(page).found


def hostile(): # a model whose label, data set and text hold HTML
    model = tiny.make_model("bert")
    model.config.labels = [HTML, "good | <b>bad</b> | `x`"]
    model.metrics = dict(dataset=f"toy\n---\nlicense: evil\n{HTML}", examples=4, masks={HTML: dict(accuracy=0.5, selection_rate=0.1)})
    return model


def test_html_in_a_label_or_a_text_is_shown_and_not_obeyed(model):
    edit(model / "config.json", labels=[HTML, "good"])
    loaded = RationaleModel.from_pretrained(model)
    e = loaded.explain(f"ka {HTML} good")
    for page in (e._repr_html_(), rationale_page([{HTML: e}], [HTML], HTML, HTML)):
        assert not unescaped(page) and "&lt;script&gt;" in page


def test_the_model_card_is_inert(tmp_path):
    hostile().save_pretrained(tmp_path / "m")
    card = (tmp_path / "m" / "README.md").read_text()
    _, head, body = re.split("^---$", card, maxsplit=2, flags=re.M)
    assert "license" not in yaml.safe_load(head) and yaml.safe_load(head)["library_name"] == "rekd"
    assert ModelCard(card).data.get("license") is None and "## How to read it" in ModelCard(card).text # as the hub reads it
    assert "<script" not in body and "<b>bad" not in body and not unescaped(body)
    line = next(x for x in body.splitlines() if x.startswith("| classes"))
    assert len(re.findall(r"(?<!\\)\|", line)) == 3 # the table keeps its columns


def test_a_terminal_is_not_controlled(model):
    e = tiny.make_model("bert").explain("ka \x1b[2J\x1b]0;evil\x07 good\r le")
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", to_terminal(e, colour=False))
    for label in ("\x1b[2J", "two\nlines", " "):
        edit(model / "config.json", labels=[label, "good"])
        with pytest.raises(ModelError, match="one line of text"): RationaleModel.from_pretrained(model)
    assert verdict(Explanation("good", dict(good=1.0), [], [], [])) == "good 100%"


# --- safetensors that lie ---

def safetensors(header, data=b"", length=None):
    h = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(h) if length is None else length) + h + data


def entry(dtype="F32", shape=(2, 2), offsets=(0, 16)): return dict(dtype=dtype, shape=list(shape), data_offsets=list(offsets))


LIES = {
    "header longer than the file": safetensors(dict(a=entry()), bytes(16), length=10**6),
    "header of 2**63 bytes": safetensors(dict(a=entry()), bytes(16), length=2**63),
    "header of 200 MB": safetensors(dict(a=entry()), bytes(16), length=2 * 10**8),
    "header shorter than it is": safetensors(dict(a=entry()), bytes(16), length=9),
    "no header": safetensors(b""),
    "header that is not JSON": safetensors(b"{'a': 1}"),
    "header that is a list": safetensors([1, 2]),
    "unknown type of number": safetensors(dict(a=entry(dtype="PICKLE")), bytes(16)),
    "type larger than its data": safetensors(dict(a=entry(dtype="F64")), bytes(16)),
    "shape larger than its data": safetensors(dict(a=entry(shape=(2, 3))), bytes(16)),
    "shape that overflows": safetensors(dict(a=entry(shape=(2**32, 2**32))), bytes(16)),
    "negative shape": safetensors(dict(a=entry(shape=(-2, -2))), bytes(16)),
    "offsets past the end": safetensors(dict(a=entry(offsets=(0, 10**9), shape=(10**9 // 4,))), bytes(16)),
    "offsets that go back": safetensors(dict(a=entry(offsets=(16, 0))), bytes(16)),
    "offsets that overlap": safetensors(dict(a=entry(), b=entry()), bytes(16)),
    "a hole": safetensors(dict(a=entry(), b=entry(offsets=(32, 48))), bytes(48)),
    "data that nobody claims": safetensors(dict(a=entry()), bytes(160)),
    "too few numbers": safetensors(dict(a=entry()), bytes(16)),
    "nothing at all": safetensors({}),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_header_that_lies_is_refused(lie, model, bert):
    (model / "model.safetensors").write_bytes(LIES[lie])
    with pytest.raises(ModelError, match="model.safetensors"): RationaleModel.from_pretrained(model)
    (bert / "model.safetensors").write_bytes(LIES[lie])
    with pytest.raises(ModelError): load_backbone(str(bert))


def test_the_right_names_with_a_wrong_shape_or_type_are_refused(model):
    from safetensors.torch import load_file, save_file
    right = load_file(model / "model.safetensors")
    name = next(k for k, v in right.items() if v.ndim == 2 and v.shape[0] != v.shape[1])
    save_file(right | {name: right[name].T.contiguous()}, model / "model.safetensors")
    with pytest.raises(ModelError, match="does not fit"): RationaleModel.from_pretrained(model)
    save_file({k: torch.full_like(v, float("nan")) if k == name else v for k, v in right.items()}, model / "model.safetensors")
    with pytest.raises(ModelError, match="not finite"): RationaleModel.from_pretrained(model)


def test_a_configuration_cannot_fill_the_memory(model):
    "A table of a billion rows is refused before it is made."
    import resource
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    c = json.loads((model / "config.json").read_text())
    edit(model / "config.json", backbone=c["backbone"] | dict(vocab_size=10**9, hidden_size=8192))
    with pytest.raises(ModelError, match="numbers"): RationaleModel.from_pretrained(model)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20 # KiB: a gigabyte, of the 65 TB it asked for


# --- the source itself ---

SOURCES = sorted(Path(rekd.__file__).parent.rglob("*.py"))
# modules that unpickle, and functions that run or import what a string says
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml"}
CALLS = {"eval", "exec", "compile", "__import__", "import_module", "unsafe_load"}


def name_of(node):
    "The last part of what is called or read: `load` of `torch.load`."
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def offences(source):
    "Everything in a source that is not allowed; `torch.load` is where it stands in `load_checkpoint`, with weights_only=True."
    tree, found = ast.parse(source), []
    home = {call: f for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for call in ast.walk(f)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import): found += [a.name for a in node.names if a.name.split(".")[0] in MODULES]
        if isinstance(node, ast.ImportFrom):
            if (node.module or "").split(".")[0] in MODULES: found.append(node.module)
            found += [f"{node.module}.{a.name}" for a in node.names if a.name in CALLS | MODULES or (node.module == "torch" and a.name == "load")]
        if isinstance(node, ast.Name) and node.id in CALLS | MODULES: found.append(node.id)
        if isinstance(node, ast.Attribute):
            if node.attr in MODULES or (node.attr in CALLS and name_of(node.value) in ("builtins", "importlib", "torch")): found.append(node.attr)
            if node.attr == "load" and name_of(node.value) in ("torch", "serialization"): found.append("torch.load")
        if isinstance(node, ast.Call):
            allowed = any(k.arg == "weights_only" and isinstance(k.value, ast.Constant) and k.value.value is True for k in node.keywords)
            inside = getattr(home.get(node), "name", None) == "load_checkpoint"
            if isinstance(node.func, ast.Attribute) and node.func.attr == "load" and name_of(node.func.value) == "torch" and allowed and inside: found.append("allowed torch.load")
            if name_of(node.func) == "load" and name_of(getattr(node.func, "value", None)) in ("np", "numpy"): found += [f"{k.arg}" for k in node.keywords if k.arg == "allow_pickle"]
            if re.match("Auto[A-Z]", name_of(getattr(node.func, "value", None))) and node.func.attr.startswith("from_") and "trust_remote_code" not in [k.arg for k in node.keywords]:
                found.append("transformers would ask whether to trust foreign code: say trust_remote_code=False")
        if isinstance(node, ast.keyword) and node.arg == "trust_remote_code" and not (isinstance(node.value, ast.Constant) and node.value.value is False): found.append("trust_remote_code")
        if isinstance(node, ast.Constant) and node.value == "trust_remote_code": found.append("trust_remote_code")
    for _ in range(found.count("allowed torch.load")): # each is also counted as a torch.load above
        found.remove("torch.load"); found.remove("allowed torch.load")
    return found


PLUGINS = {"registry.py": ["import_module"] * 2} # a module of ours that registers its parts, and what the caller names with --plugin; never what a file says


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.name)
def test_nothing_that_is_read_can_run(path):
    assert offences(path.read_text()) == PLUGINS.get(path.name, [])


def test_torch_load_is_used_once():
    assert [p.name for p in SOURCES if "torch.load(" in p.read_text()] == ["checkpoint.py"]
    assert len(SOURCES) >= 8


@pytest.mark.parametrize("bad", [
    "import pickle", "from pickle import load", "import torch, pickle as p", "def f(x): eval(x)", "exec('1')", "x = eval", "import torch\ntorch.load('x')",
    "import torch\ntorch.load('x', weights_only=True)", "def load_checkpoint(f): return torch.load(f)", "def load_checkpoint(f): return torch.load(f, weights_only=False)",
    "from torch import load", "def load_checkpoint(f): g = torch.load; return g(f)", "AutoModel.from_pretrained(x, trust_remote_code=True)", "kw = {'trust_remote_code': True}", "AutoModel.from_pretrained(x, trust_remote_code=trust)", "AutoModel.from_pretrained(x)", "AutoModel.from_config(c)",
    "import importlib\nimportlib.import_module(name)", "from importlib import import_module", "np.load(f, allow_pickle=True)", "torch.serialization.load(f)", "__import__(name)"])
def test_the_check_finds_what_it_looks_for(bad): assert offences(bad)


def test_the_check_lets_the_good_pass():
    assert offences("AutoModel.from_pretrained(x, trust_remote_code=False)") == []
    assert offences("def load_checkpoint(f): return torch.load(f / 'optimizer.pt', weights_only=True)\nmodel.eval()\njson.loads(x)\nre.compile('x')") == []
