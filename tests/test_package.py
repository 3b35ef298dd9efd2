"""A wheel that stands alone: what is in it, and what it does in an environment without the repo."""

import ast
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from email.parser import Parser
from importlib.util import find_spec
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import rekd
from rekd.run import IN_REPOSITORY

TOP = Path(__file__).resolve().parents[1]
LARGE = ("artifacts/models/imdb-teacher/", "artifacts/models/cifar10-rekd/", "artifacts/models/minilm-l2-imdb/", "artifacts/data/cifar10/")
FULL = os.environ.get("REKD_FULL_PACKAGE") # "1": install the dependencies too, gigabytes, instead of borrowing this environment's


def run(*command, **kw):
    "What a command prints; it must succeed, and it sees neither the repo nor our settings."
    env = {k: v for k, v in os.environ.items() if not k.startswith(("REKD_", "PYTHON"))}
    done = subprocess.run([str(c) for c in command], env=env, capture_output=True, text=True, timeout=1500, **kw)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    "The wheel, built from what is checked in or about to be: a copy of the repo without its build leftovers."
    out, copy = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("source") / "repo"
    files = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=TOP, capture_output=True, text=True, check=True).stdout.splitlines()
    for name in files:
        if name.startswith(LARGE) or not (TOP / name).exists(): continue
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(TOP / name, copy / name, follow_symlinks=False)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, copy) # the source distribution, and the wheel from it
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def sdist(wheel):
    return next(wheel.parent.glob("*.tar.gz"))


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """The Python of a new environment in which only the wheel is installed. Its dependencies are borrowed from the running environment through a .pth file; the repo, which that
    environment knows as an editable install, is not: .pth files in a folder that a .pth file names are not read."""
    folder = tmp_path_factory.mktemp("venv")
    run(sys.executable, "-m", "venv", folder)
    bin = folder / ("Scripts" if os.name == "nt" else "bin")
    if not FULL:
        site = Path(run(bin / "python", "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])").strip())
        (site / "borrowed.pth").write_text("\n".join({sysconfig.get_paths()[k] for k in ("purelib", "platlib")}) + "\n")
    run(bin / "python", "-m", "pip", "install", "--quiet", *([] if FULL else ["--no-deps", "--no-index"]), wheel)
    return bin / "python"


def test_what_is_in_the_wheel(wheel):
    archive = zipfile.ZipFile(wheel)
    names, sizes = archive.namelist(), {i.filename: i.file_size for i in archive.infolist()}
    info = f"{'-'.join(wheel.name.split('-')[:2])}.dist-info/"
    assert all(n.startswith(("rekd/", info)) for n in names), names
    code = {n for n in names if n.startswith("rekd/") and not n.startswith("rekd/shipped/")}
    assert code == {str(p.relative_to(TOP)) for p in (TOP / "rekd").rglob("*") if p.suffix in (".py", ".html", ".toml")}
    assert info + "licenses/LICENSE" in names and sum(sizes[n] for n in code) < 1e6
    data = {n: size for n, size in sizes.items() if n.startswith("rekd/shipped/")}
    assert {"/".join(n.split("/")[2:4]) for n in data} == {"models/imdb-small", "models/minilm-l2-imdb", "data/imdb"}
    assert 5e6 < sum(data.values()) <= 10e6 and wheel.stat().st_size < 9e6
    assert "rekd/py.typed" not in names # patched methods are invisible to type checkers, so we do not promise types


def test_the_source_distribution_can_be_tested_and_is_not_large(sdist):
    "It holds tests, notebooks and tools, and what they read; the three large models stay in the repository."
    names = {n.partition("/")[2] for n in tarfile.open(sdist).getnames()}
    tracked = subprocess.run(["git", "ls-files", "tests", "nbs", "tools", "docs"], cwd=TOP, capture_output=True, text=True, check=True).stdout.splitlines()
    assert not [n for n in tracked if (TOP / n).is_file() and n not in names] and {"Makefile", "settings.ini", "CHANGELOG.md", "artifacts/networks.json"} <= names
    assert not [n for n in names if n.startswith(LARGE) and n.endswith(".safetensors")] and sdist.stat().st_size < 40e6


def test_the_metadata(wheel):
    z = zipfile.ZipFile(wheel)
    said = Parser().parsestr(z.read(next(n for n in z.namelist() if n.endswith("METADATA"))).decode())
    assert (said["Name"], said["License-Expression"], said["Description-Content-Type"]) == ("rekd-xai", "Apache-2.0", "text/markdown")
    assert said["Version"] and said["Summary"] and said["Requires-Python"] == ">=3.11"
    assert {f"Programming Language :: Python :: 3.{v}" for v in (11, 12, 13, 14)} <= set(said.get_all("Classifier"))
    assert {"notebooks", "export", "serve", "docs", "dev"} == set(said.get_all("Provides-Extra"))
    assert {u.split(",")[0] for u in said.get_all("Project-URL")} == {"Repository", "Docs", "Issues", "Changelog"}
    assert said.get_payload().strip() == (TOP / "README.md").read_text().strip()
    scripts = z.read(next(n for n in z.namelist() if n.endswith("entry_points.txt"))).decode()
    assert "rekd = rekd.cli:main" in scripts


def test_a_release_has_no_placeholder_and_no_link_without_a_file(tmp_path):
    for name in ("pyproject.toml", "README.md", "CHANGELOG.md", "rekd/__init__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(TOP / name, tmp_path / name)
    release = runpy.run_path(str(TOP / "tools" / "release.py"))["release"]
    tag = f"v{rekd.__version__}"
    for bad in (("https://github.com/OWNER/rekd", tag), ("github.com/me/rekd", tag), ("https://github.com/me/rekd", "v99.0.0")):
        with pytest.raises(ValueError, match="form|tag"): release(tmp_path, *bad)
    release(tmp_path, "https://github.com/me/rekd", tag)
    readme, project = (tmp_path / "README.md").read_text(), (tmp_path / "pyproject.toml").read_text()
    urls = project[project.index("[project.urls]"):].split("\n\n")[0]
    assert "OWNER" not in urls and "https://me.github.io/rekd" in urls
    prose = re.sub(r"^```.*?^```$", "", readme, flags=re.S | re.M)
    targets = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]+`(?!\])", "", prose))
    assert len(targets) > 5 and all(t.startswith(("https://", "#")) for t in targets), targets
    here = [t.split(f"/{tag}/")[1].partition("#")[0] for t in targets if f"me/rekd/blob/{tag}/" in t]
    assert here and all((TOP / h).exists() for h in here)


def test_every_import_is_a_declared_dependency(wheel):
    "Imports anywhere in the package, inside functions too, against the wheel's requirements."
    z, names = zipfile.ZipFile(wheel), {"PIL": "pillow", "sklearn": "scikit_learn"}
    said = Parser().parsestr(z.read(next(n for n in z.namelist() if n.endswith("METADATA"))).decode())
    declared = {r.split(";")[0].split(">")[0].split("=")[0].strip().replace("-", "_").lower() for r in said.get_all("Requires-Dist") if "extra ==" not in r}
    used = set()
    for n in z.namelist():
        if not n.endswith(".py"): continue
        for node in ast.walk(ast.parse(z.read(n))):
            if isinstance(node, ast.Import): used |= {a.name.split(".")[0] for a in node.names}
            if isinstance(node, ast.ImportFrom) and not node.level: used.add(node.module.split(".")[0])
    foreign = {names.get(m, m).lower() for m in used - set(sys.stdlib_module_names) - {"rekd"}}
    extras = {"gradio", "ipywidgets", "onnx", "onnxruntime"} # of `serve`, `explore` and `export`, which say so where they are missing
    assert foreign - extras == declared - {"jinja2"}, (foreign - declared, declared - foreign) # huggingface_hub fills the model card with jinja2


def test_the_installed_package_is_the_wheels(python, tmp_path):
    where = run(python, "-c", "import rekd; print(rekd.__file__)", cwd=tmp_path).strip()
    assert Path(where).is_relative_to(python.parents[1]), where


def test_the_commands_of_the_installed_package(python, tmp_path):
    rekd = python.with_name("rekd")
    said = run(rekd, "--help", cwd=tmp_path)
    assert "explain" in said and "presets" in said
    assert "paper-imdb-base" in run(rekd, "presets", cwd=tmp_path)
    (tmp_path / "my.toml").write_text(run(rekd, "presets", "demo", cwd=tmp_path))
    assert run(rekd, "presets", "my.toml", cwd=tmp_path) == (tmp_path / "my.toml").read_text()
    assert "0 of 12 runs are done" in run(rekd, "study", "my.toml", "--dry-run", cwd=tmp_path)


def test_the_version(python, tmp_path):
    assert run(python.with_name("rekd"), "--version", cwd=tmp_path) == f"rekd {rekd.__version__}\n"


def test_the_small_model_explains_in_an_empty_folder(python, tmp_path):
    "Offline, and with nothing but the answer on stdout and stderr."
    command = [python.with_name("rekd"), "explain", "imdb-small", "--text", "The plot is dull, and the ending is a mess.", "--json"]
    env = {k: v for k, v in os.environ.items() if not k.startswith(("REKD_", "PYTHON"))} | dict(HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "none"))
    done = subprocess.run(list(map(str, command)), cwd=tmp_path, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0 and not done.stderr, done.stderr
    answer = json.loads(done.stdout)
    assert answer["label"] == "negative" and sum(answer["mask"]) == 1


def test_what_the_guide_says_of_the_bare_package_runs(python, tmp_path):
    "The Python of *Install*, in an empty folder; its commands have tests of their own here."
    guide = json.loads((TOP / "nbs" / "guide.ipynb").read_text())
    section = "".join(guide["cells"][0]["source"]).partition("## Install")[2].partition("\n## ")[0]
    (code,) = re.findall(r"^```python\n(.*?)^```$", section, flags=re.S | re.M)
    assert "'label': 'negative'" in run(python, "-c", code, cwd=tmp_path)
    assert {"rekd explain", "rekd train", "rekd demo"} <= {" ".join(line.split()[:2]) for line in section.splitlines()}


def test_a_model_of_the_repository_is_named_as_such(python, tmp_path):
    done = subprocess.run([str(python.with_name("rekd")), "explain", "imdb-teacher", "--text", "x"], cwd=tmp_path, capture_output=True, text=True, timeout=600,
                          env={k: v for k, v in os.environ.items() if not k.startswith(("REKD_", "PYTHON"))})
    assert done.returncode == 1 and "comes with the repository" in done.stderr and "imdb-small" in done.stderr and done.stderr.count("\n") == 1


def test_the_list_of_the_repositorys_models_is_whole():
    assert set(IN_REPOSITORY) == {f.parent.name for f in (TOP / "artifacts" / "models").glob("*/model.safetensors")} - {"minilm-l2-imdb"}


def test_training_on_a_csv_in_an_empty_folder(python, tmp_path):
    "From the package's small backbone; a few steps, which are enough to see that nothing is missing."
    (tmp_path / "mine").mkdir()
    for part, n in (("train", 40), ("test", 10)):
        (tmp_path / "mine" / f"{part}.csv").write_text("text,label\n" + "".join(f'"a {w} film, number {i}",{w}\n' for i in range(n // 2) for w in ("good", "dull")))
    rekd = python.with_name("rekd")
    run(rekd, "train", "demo", "--objective", "re", "--set", "dataset=mine", "epochs=1", "precision=no", cwd=tmp_path)
    assert json.loads(run(rekd, "explain", "demo/re-paper-2025", "--text", "a good film", "--json", cwd=tmp_path).splitlines()[-1])["label"] in ("good", "dull")


def test_the_demo_outside_a_clone_takes_the_small_teacher(python, tmp_path):
    "The whole command, on a few reviews."
    code = """import sys
from rekd import cli, starter
demo = starter.demo
starter.demo = lambda seed: demo(seed, overrides=dict(n_train=60, n_test=20, epochs=1, precision="no"))
cli.main(["demo", "--out", "shown"])"""
    said = run(python, "-c", code, cwd=tmp_path)
    assert "The teacher is imdb-small" in said and "rekd: " in said and (tmp_path / "shown" / "rationales.html").is_file()


def test_the_package_data_is_made_from_the_repositorys(tmp_path):
    "The same weights, rounded to eight bits, and the first reviews."
    from rekd.starter import build_package_data
    from safetensors.torch import load_file
    build_package_data(TOP / "artifacts", tmp_path)
    for f in (TOP / "rekd" / "shipped" / "models" / "minilm-l2-imdb").iterdir(): assert f.read_bytes() == (tmp_path / "models" / "minilm-l2-imdb" / f.name).read_bytes()
    for part in ("train", "test"):
        made, kept = (pq.read_table(root / "data" / "imdb" / f"{part}.parquet") for root in (tmp_path, TOP / "rekd" / "shipped"))
        assert made.equals(kept) and kept.num_rows == dict(train=1200, test=600)[part]
    whole, eight = (load_file(root / "models" / "minilm-l2-imdb" / "model.safetensors") for root in (TOP / "artifacts", tmp_path))
    for k, w in whole.items():
        small = eight[k].float()
        assert ((small - w[:len(small)].float()).norm() / w[:len(small)].float().norm()) < 0.04


def test_the_installed_package_explains(python, tmp_path, text_model):
    text_model.save_pretrained(tmp_path / "m")
    text = "the good and the dull"
    said = run(python.with_name("rekd"), "explain", tmp_path / "m", "--text", text, "--json", cwd=tmp_path)
    assert json.loads(said.splitlines()[-1]) == json.loads(json.dumps(text_model.explain(text).to_dict()))


def test_the_command_line_starts_without_torch():
    "Help and wrong arguments must not wait for what only training needs; benchmarks/startup.py measures it."
    heavy = "{'torch', 'transformers', 'datasets', 'timm', 'matplotlib', 'pandas'}"
    run(sys.executable, "-c", f"import sys; sys.path.insert(0, {str(TOP)!r}); sys.argv[0] = '/usr/bin/rekd'; import rekd.cli; loaded = {heavy} & set(sys.modules); assert not loaded, loaded")


def test_the_package_has_no_heavy_import_of_its_own():
    "Whatever is slow beside torch and transformers is imported where it is used."
    late = "{'datasets', 'timm', 'matplotlib', 'pandas', 'captum', 'torchvision', 'sklearn'}"
    code = f"import sys; sys.path.insert(0, {str(TOP)!r}); import torch; from transformers import AutoModelForImageClassification, PreTrainedModel; before = set(sys.modules); import rekd.model; print({late} & (set(sys.modules) - before))"
    assert run(sys.executable, "-c", code).strip() == "set()"


def test_the_type_check_finds_a_planted_error(tmp_path):
    "tools/typecheck.py sees into patched methods, and reports the line of the file itself."
    if find_spec("mypy") is None: pytest.skip("mypy is not installed")
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__init__.py").write_text("")
    (tmp_path / "pkg" / "a.py").write_text(PLANTED)
    done = subprocess.run([sys.executable, str(TOP / "tools" / "typecheck.py"), str(tmp_path / "pkg")], capture_output=True, text=True, timeout=300)
    lines = [f"pkg/a.py:{i}" for i, line in enumerate(PLANTED.splitlines(), 1) if "# wrong" in line]
    assert done.returncode == 1 and [line.split(": error")[0] for line in sorted(done.stdout.splitlines()) if "error:" in line] == lines, done.stdout + done.stderr


PLANTED = '''from fastcore.basics import patch

class A:
    "A."
    x: int = 1

class B(A): pass

@patch
def double(self: A,
    n: int, # times
) -> int:
    "Use `x`."
    return self.x * n

@patch(as_prop=True)
def name(self: A) -> str: return "a"

@patch(cls_method=True)
def make(cls: A) -> "A": return cls()

good: int = A.make().double(2)
bad: str = A().double(2) # wrong
worse: int = A().name # wrong

@patch
def triple(self: A) -> str:
    return self.x * 3 # wrong
'''
