"""Tests run offline, on one thread unless REKD_TEST_THREADS says more, and know nothing of the machine's own settings."""

import os
import tempfile

_home = tempfile.TemporaryDirectory(prefix="rekd-tests-")
_ours = ("REKD_KILLS", "REKD_FULL_PACKAGE", "REKD_TEST_THREADS")
for _key in [k for k in os.environ if k.startswith(("REKD_", "ACCELERATE_")) and k not in _ours]: del os.environ[_key]
THREADS = int(os.environ.get("REKD_TEST_THREADS", 1))
os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", HF_HOME=_home.name, HF_DATASETS_CACHE=os.path.join(_home.name, "datasets"),
                  OMP_NUM_THREADS=str(THREADS), TOKENIZERS_PARALLELISM="false", CUDA_VISIBLE_DEVICES="")

import hypothesis # noqa: E402 -- the settings above must come before the first import of torch
import pytest # noqa: E402
import tiny # noqa: E402
import torch # noqa: E402

torch.set_num_threads(THREADS)
os.fsync = lambda fd: None # it guards against a power cut, which no test can make, and takes most of the time on a busy disk
# the same examples in every run, and no database on disk
hypothesis.settings.register_profile("rekd", deadline=None, derandomize=True, max_examples=40, print_blob=False)
hypothesis.settings.load_profile("rekd")


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    "Each test works in its own empty folder, without a settings.ini above it, from the same random state."
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)


@pytest.fixture
def text_model(): return tiny.make_model("bert")


@pytest.fixture
def image_model(): return tiny.make_model("vit")


@pytest.fixture
def text_data(): return tiny.text_data()


@pytest.fixture
def image_data(): return tiny.image_data()
