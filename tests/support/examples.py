"""How many random examples are tried."""

from __future__ import annotations

import os

# More of them find more; `scripts/test` has a minute for all machines together. 0: as many as a test has by itself.
EXAMPLES = int(os.environ.get("ARTIFACTFS_TEST_EXAMPLES", "0"))
