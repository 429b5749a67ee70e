"""``python -m netsim``."""

import sys

from netsim.cli.main import main

sys.exit(main())
