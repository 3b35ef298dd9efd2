"""A wheel that stands alone: what is in it, and what it does in an environment without the repo."""

import ast
import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from email.parser import Parser
from importlib.util import find_spec
from pathlib import Path
import pytest

TOP = Path(__file__).resolve().parents[1]
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
        if name.startswith("artifacts/") or not (TOP / name).is_file(): continue
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((TOP / name).read_bytes())
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, copy)
    return next(out.glob("*.whl"))


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
    names = zipfile.ZipFile(wheel).namelist()
    info = f"{'-'.join(wheel.name.split('-')[:2])}.dist-info/"
    assert all(n.startswith(("rekd/", info)) for n in names), names
    assert {n for n in names if n.startswith("rekd/")} == {str(p.relative_to(TOP)) for p in (TOP / "rekd").rglob("*") if p.suffix in (".py", ".html", ".toml")}
    assert info + "licenses/LICENSE" in names and sum(i.file_size for i in zipfile.ZipFile(wheel).infolist()) < 1e6
    assert "rekd/py.typed" not in names # patched methods are invisible to type checkers, so we do not promise types


def test_the_metadata(wheel):
    z = zipfile.ZipFile(wheel)
    said = Parser().parsestr(z.read(next(n for n in z.namelist() if n.endswith("METADATA"))).decode())
    assert (said["Name"], said["License-Expression"], said["Description-Content-Type"]) == ("rekd", "Apache-2.0", "text/markdown")
    assert said["Version"] and said["Summary"] and said["Requires-Python"] == ">=3.11"
    assert said.get_payload().strip() == (TOP / "README.md").read_text().strip()
    scripts = z.read(next(n for n in z.namelist() if n.endswith("entry_points.txt"))).decode()
    assert "rekd = rekd.cli:main" in scripts


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
    assert foreign == declared, (foreign - declared, declared - foreign)


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


def test_the_installed_package_explains(python, tmp_path, text_model):
    text_model.save_pretrained(tmp_path / "m")
    text = "the good and the dull"
    said = run(python.with_name("rekd"), "explain", tmp_path / "m", "--text", text, "--json", cwd=tmp_path)
    assert json.loads(said.splitlines()[-1]) == json.loads(json.dumps(text_model.explain(text).to_dict()))


def test_the_command_line_starts_without_torch():
    "Help and wrong arguments must not wait for what only training needs; benchmarks/startup.py measures it."
    heavy = "{'torch', 'transformers', 'datasets', 'timm', 'matplotlib', 'pandas'}"
    run(sys.executable, "-c", f"import sys; sys.path.insert(0, {str(TOP)!r}); import rekd.cli; loaded = {heavy} & set(sys.modules); assert not loaded, loaded")


def test_the_package_has_no_heavy_import_of_its_own():
    "Whatever is slow beside torch and transformers is imported where it is used."
    late = "{'datasets', 'timm', 'matplotlib', 'pandas', 'captum', 'torchvision', 'sklearn'}"
    code = f"import sys; sys.path.insert(0, {str(TOP)!r}); import torch, transformers; before = set(sys.modules); import rekd.model; print({late} & (set(sys.modules) - before))"
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
