__version__ = "0.1.0"

import sys
import warnings
from pathlib import Path

# the libraries that are imported next would say so, and a plain bar is as good
warnings.filterwarnings("ignore", message="IProgress not found")

# Saved models work in `AutoModel` and `pipeline` of transformers. The command `rekd` and nbdev's export need neither, and must not wait seconds for torch.
if Path((sys.argv or [""])[0]).stem not in ("rekd", "nbdev-export", "nbdev-clean") and "rekd.cli" not in sys.orig_argv: from . import auto as auto
