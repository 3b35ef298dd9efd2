"""No file that rekd reads can run code: checked on the source itself."""

import ast
from pathlib import Path
import pytest
import rekd

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
        if isinstance(node, ast.keyword) and node.arg == "trust_remote_code": found.append("trust_remote_code")
        if isinstance(node, ast.Constant) and node.value == "trust_remote_code": found.append("trust_remote_code")
    for _ in range(found.count("allowed torch.load")): # each is also counted as a torch.load above
        found.remove("torch.load"); found.remove("allowed torch.load")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.name)
def test_nothing_that_is_read_can_run(path):
    assert offences(path.read_text()) == []


def test_torch_load_is_used_once():
    assert [p.name for p in SOURCES if "torch.load(" in p.read_text()] == ["train.py"]
    assert len(SOURCES) >= 8


@pytest.mark.parametrize("bad", [
    "import pickle", "from pickle import load", "import torch, pickle as p", "def f(x): eval(x)", "exec('1')", "x = eval", "import torch\ntorch.load('x')",
    "import torch\ntorch.load('x', weights_only=True)", "def load_checkpoint(f): return torch.load(f)", "def load_checkpoint(f): return torch.load(f, weights_only=False)",
    "from torch import load", "def load_checkpoint(f): g = torch.load; return g(f)", "AutoModel.from_pretrained(x, trust_remote_code=True)", "kw = {'trust_remote_code': True}",
    "import importlib\nimportlib.import_module(name)", "from importlib import import_module", "np.load(f, allow_pickle=True)", "torch.serialization.load(f)", "__import__(name)"])
def test_the_check_finds_what_it_looks_for(bad): assert offences(bad)


def test_the_check_lets_the_good_pass():
    assert offences("def load_checkpoint(f): return torch.load(f / 'optimizer.pt', weights_only=True)\nmodel.eval()\njson.loads(x)\nre.compile('x')") == []
