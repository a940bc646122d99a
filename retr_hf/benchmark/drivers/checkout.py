"""Toolkits that are no package: where their checkout is."""

from __future__ import annotations

import os
import subprocess
from typing import Any


def checkout(options: Any) -> tuple[str, str]:
    """The folder of ``--path``, and its commit ("checkout" where git does not tell)."""
    folder = os.path.join(options.start, os.path.expanduser(options.path or "."))
    told = subprocess.run(["git", "-C", folder, "describe", "--always"], capture_output=True, text=True)
    return folder, told.stdout.strip() or "checkout"
