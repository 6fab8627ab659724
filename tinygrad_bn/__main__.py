"""``python -m tinygrad_bn`` is the command ``tinygrad-bn``."""

import sys

from tinygrad_bn.cli.main import main

sys.exit(main())
