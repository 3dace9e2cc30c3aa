"""`make audit`"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from tests.audit import Unavailable, audit, install

try:
    install()
except Unavailable as reason:
    sys.exit(str(reason))
with tempfile.TemporaryDirectory() as folder:
    report = asyncio.run(audit(Path(folder)))
print(report.text)
sys.exit(not report.ok)
