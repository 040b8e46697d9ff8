"""Files written atomically: complete or not at all.

An unfinished file has a temporary name in the destination's folder, ``.graphnorm-tmp-…``. It is removed on
errors and on signals that Python handles; a process that is killed leaves it behind, and it may be deleted.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = ".graphnorm-tmp-"


@contextmanager
def unfinished(path: Path) -> Iterator[Path]:
    """A temporary path with the suffix of ``path`` in its folder; nothing is there when the block ends."""
    temporary = path.with_name(f"{PREFIX}{uuid.uuid4().hex}{path.suffix}")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path with the suffix of ``path`` in its folder, renamed to it once the block ends well.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing(Path(folder, "a.txt")) as temporary:
    ...         _ = temporary.write_text("whole")
    ...     Path(folder, "a.txt").read_text(), len(list(Path(folder).iterdir()))
    ('whole', 1)
    """
    with unfinished(path) as temporary:
        temporary.touch()
        usual = temporary.stat().st_mode  # some writers leave their files to the owner alone
        temporary.unlink()
        yield temporary
        temporary.chmod(usual)
        temporary.replace(path)
