"""zarr groups in an object store, which has no rename: whole is what has its root document.

The arrays of a group are put where they stay, and the ``zarr.json`` of its root last, by one put.
Until then there is nothing for whoever looks. A small object beside the group, ``.NAME.part``, says
that it is being written: by it the next run knows what an interrupted one left, and removes it, and
a run finds that another has begun the same group anew, and stops.
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from zarr.storage import FsspecStore, WrapperStore

from nimare_dask.errors import StoreExistsError
from nimare_dask.parallel.places import ROOT, reaching, read_root, zarr_store

if TYPE_CHECKING:
    from upath import UPath
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

Item = TypeVar("Item")
Result = TypeVar("Result")

#: Calls that are under way at a time, since each waits for round trips.
_AT_ONCE = 16


@dataclass(frozen=True)
class Unfinished:
    """A group that is being written; workers get it to write its blocks.

    Attributes
    ----------
    path
        Address of the group.
    mark
        What this run wrote beside it.
    """

    path: UPath
    mark: str

    @property
    def _note(self) -> UPath:
        return _note_beside(self.path)

    def begin(self) -> None:
        """Say that the group is being written, and remove what is there."""
        path = self.path
        path.fs.pipe_file(self._note.path, self.mark.encode())
        _remove(path)

    def is_ours(self) -> bool:
        """Whether no other run has begun the same group since."""
        with suppress(FileNotFoundError):
            return bool(self.path.fs.cat_file(self._note.path) == self.mark.encode())
        return False

    def refuse_taken(self) -> None:
        """Raise StoreExistsError when another run has begun the same group since."""
        with reaching(self.path):
            ours = self.is_ours()
        if not ours:
            raise StoreExistsError(
                f"Another run has begun to write {self.path}, or removed it, so this one stops. "
                "Give each run a path of its own."
            )

    def end(self, root: bytes) -> None:
        """Put the root document, by which the group is whole."""
        path = self.path
        self.refuse_taken()
        path.fs.pipe_file((path / ROOT).path, root)
        # The group is whole, whether or not this can be tidied up.
        with suppress(Exception):
            path.fs.rm_file(self._note.path)

    def give_up(self) -> None:
        """Remove what was written, when nobody else writes there; never an error itself."""
        with suppress(Exception):
            if self.is_ours():
                _remove(self.path)
                self.path.fs.rm_file(self._note.path)


def _note_beside(path: UPath) -> UPath:
    return path.with_name(f".{path.name}.part")


def _remove(path: UPath) -> None:
    """Remove a group; its root goes first, so that what is left looks like nothing."""
    with suppress(FileNotFoundError):
        path.fs.rm_file((path / ROOT).path)
    with suppress(FileNotFoundError):
        path.fs.rm(path.path, recursive=True)


def holds_something(path: UPath) -> bool:
    """Whether there is anything but what an interrupted run left, which counts as nothing."""
    with reaching(path):
        if read_root(path) is not None:
            return True
        return not path.fs.exists(_note_beside(path).path) and bool(path.fs.exists(path.path))


class RootLast(WrapperStore[FsspecStore]):
    """A zarr store that keeps the root document back until the group is whole."""

    def __init__(self, store: FsspecStore, unfinished: Unfinished | None = None) -> None:
        super().__init__(store)
        self.unfinished = unfinished
        self.root: Buffer | None = None

    def _with_store(self, store: FsspecStore) -> RootLast:
        made = type(self)(store, self.unfinished)
        made.root = self.root
        return made

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """As of any store; the root document from memory."""
        if key == ROOT:
            return self.root
        return await super().get(key, prototype, byte_range)

    async def exists(self, key: str) -> bool:
        """As of any store."""
        return self.root is not None if key == ROOT else await super().exists(key)

    async def is_empty(self, prefix: str) -> bool:
        """As of any store."""
        return self.root is None and await super().is_empty(prefix)

    async def set(self, key: str, value: Buffer) -> None:
        """As of any store; the root document goes to memory."""
        if key == ROOT:
            self.root = value
        else:
            await super().set(key, value)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """As of any store."""
        if key != ROOT:
            await super().set_if_not_exists(key, value)
        elif self.root is None:
            self.root = value

    async def _set_many(self, values: Iterable[tuple[str, Buffer]]) -> None:
        for key, value in values:
            await self.set(key, value)

    async def delete(self, key: str) -> None:
        """As of any store."""
        if key == ROOT:
            self.root = None
        else:
            await super().delete(key)


@contextmanager
def root_last(path: UPath) -> Iterator[RootLast]:
    """Give a zarr store to write a group to; it is there when the block ends well.

    Raises
    ------
    StoreExistsError
        When another run begins to write the same group meanwhile.
    """
    unfinished = Unfinished(path, uuid.uuid4().hex)
    with reaching(path):
        unfinished.begin()
        store: Any = RootLast(zarr_store(path), unfinished)
        try:
            yield store
            assert store.root is not None, "nothing was written"
            unfinished.end(store.root.to_bytes())
        except BaseException:
            unfinished.give_up()
            raise


def many_at_once(call: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """What a call gives for each item, in order; some are under way at a time, few are held."""
    under_way: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for item in items:
            under_way.append(pool.submit(call, item))
            if len(under_way) > _AT_ONCE:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
