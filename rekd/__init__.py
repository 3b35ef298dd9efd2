__version__ = "0.1.0"

import warnings

# the libraries that are imported next would say so, and a plain bar is as good
warnings.filterwarnings("ignore", message="IProgress not found")
