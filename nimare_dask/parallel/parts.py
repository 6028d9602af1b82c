"""Results that are written block by block, and gone on with after the run was lost.

A result that is being written is a hidden folder beside its place, ``.NAME.MARK.UNIQUE.part``. Its
mark says what is written, so a later run of the same finds it; a list in it says which blocks are
there. Whoever writes it holds a lock on the list, which ends with the process, so that a part of a
run that still lives is never taken.
"""

from __future__ import annotations

import errno
import glob
import os
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from nimare_dask.errors import CorpusWarning, WorkerError
from nimare_dask.parallel.places import AnyPath

#: The list in a part: how many blocks there will be, then a line for each that is written.
_LIST = "blocks.txt"


class Part:
    """A result that is being written.

    Attributes
    ----------
    path
        The folder.
    done
        Blocks that were written before.
    """

    def __init__(self, path: Path, file: IO[str] | None = None, done: frozenset[str] | None = None):
        self.path, self._file = path, file
        self.done = frozenset() if done is None else done

    @property
    def begun(self) -> bool:
        """Whether all but the blocks is there."""
        return self._file is not None

    def begin(self, n_blocks: int) -> None:
        """Note that all but the blocks is there; they may come now."""
        # Until here another run would find nothing to go on with.
        file = (self.path / _LIST).open("a", encoding="utf-8")
        if not _lock(file):
            # A file system without locks: nobody could tell whether this run still lives.
            file.close()
            (self.path / _LIST).unlink()
            return
        self._file = file
        self._write(f"{n_blocks} blocks")

    def note(self, block: str) -> None:
        """Note that a block is written."""
        self._write(block)

    def _write(self, line: str) -> None:
        if self._file is not None:
            self._file.write(line + "\n")
            self._file.flush()

    def is_of_use_after(self, error: BaseException) -> bool:
        """Whether a later run should go on with it: unless the error would come again."""
        return self.begun and isinstance(error, WorkerError | OSError | KeyboardInterrupt)

    def end(self) -> None:
        """Take the list away, when all blocks are written."""
        if os.name == "nt":  # there a file that is open cannot be taken away
            self.close()
        (self.path / _LIST).unlink(missing_ok=True)

    def close(self) -> None:
        """Leave it to others."""
        if self._file is not None:
            with suppress(OSError):  # what could not be written on a full disk
                self._file.close()


def is_full(error: BaseException) -> bool:
    """Whether an error says that a disk is full, or the share of it that one may use."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def part_of(path: AnyPath, mark: str) -> Iterator[Part | None]:
    """What an earlier run has left of the result `path`, when nobody works on it; or a new part.

    None for an object store, which has no locks: there a result is written anew.

    Parameters
    ----------
    path
        Where the result will be.
    mark
        What is written; some letters that another result would not have.
    """
    if not isinstance(path, Path):
        yield None
        return
    path = path.absolute()
    beginning = f".{path.name}.{mark}."
    for there in sorted(path.parent.glob(f"{glob.escape(beginning)}*.part")):
        found = _taken(there)
        if found is not None:
            break
    else:
        _say_what_is_left(path, beginning)
        found = Part(path.with_name(f"{beginning}{uuid.uuid4().hex[:8]}.part"))
    try:
        yield found
    finally:
        found.close()


def _say_what_is_left(path: Path, beginning: str) -> None:
    """Warn of a part of the same result that is not gone on with."""
    left = left_of(path)
    if left is not None:
        folder, n_done, n_blocks = left
        mine = folder.name.startswith(beginning)
        why = "another run is at work on it" if mine else "its settings, data or version differ"
        warnings.warn(
            f"{folder} keeps {n_done:,} of {n_blocks:,} blocks, and is not gone on with: {why}. "
            "Delete it when nobody needs it.",
            CorpusWarning,
            stacklevel=2,
        )


def _taken(path: Path) -> Part | None:
    """A part that was begun and that nobody works on, which is ours from now on."""
    try:
        file = (path / _LIST).open("a+", encoding="utf-8")
    except OSError:
        return None
    if _lock(file):
        file.seek(0)
        # The last line may have been cut off, and another would be joined to it.
        *whole, _ = file.read().split("\n")
        if whole:
            file.truncate(sum(len(line) + 1 for line in whole))
            return Part(path, file, frozenset(whole[1:]))
    file.close()
    return None


def _lock(file: IO[str]) -> bool:
    """Hold a file until it is closed; False when another process does, or there are no locks."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):
        return False
    return True


def left_of(path: AnyPath) -> tuple[Path, int, int] | None:
    """The newest part of a result: where it is, blocks that are written, and blocks of all."""
    if not isinstance(path, Path):
        return None
    found = []
    for there in path.absolute().parent.glob(f".{glob.escape(path.name)}.*.part/{_LIST}"):
        with suppress(OSError, ValueError, IndexError):
            first, *done = there.read_text(encoding="utf-8").split("\n")[:-1]
            found.append((there.stat().st_mtime, there.parent, len(done), int(first.split()[0])))
    return max(found)[1:] if found else None
