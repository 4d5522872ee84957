"""Makes `python -m lowered_cnn.cli` do what `lowered-cnn` does."""

import sys

from lowered_cnn.cli import main

sys.exit(main())
