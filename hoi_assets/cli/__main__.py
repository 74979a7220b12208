"""`python -m hoi_assets.cli` is `hoi`."""

import sys

from hoi_assets.cli.main import main

sys.exit(main())
