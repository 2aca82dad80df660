"""What a process does at this moment: its tasks and where each waits, its threads and where each is.

Rules of this file: places in the code only, no values: neither arguments nor local variables, which may hold content or
a token. What changes meanwhile (threads) may be told a moment late.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import trio

from artifactfs import observe

# Where a task waits is in its last few frames; a deep one is a bug of its own, and told by that.
MAX_FRAMES = 40
MAX_TASKS = 2000
# ... in more objects than have a frame of their own.
MAX_AWAITS = 200
# Between a coroutine and the one that it awaits: of Cython's, of `__await__`, of asynchronous generators.
WRAPPERS = frozenset({"coroutine_wrapper", "async_generator_asend", "async_generator_athrow"})
# Where every task of trio waits in the end.
DULL = "_traps.py:"
_ROOT = Path(__file__).resolve().parents[1]


def task_tree() -> list[str]:
    """Return every task, a line each, indented below the one that owns its nursery, with where it waits."""
    lines: list[str] = []
    root = trio.lowlevel.current_root_task()
    todo = [(root, 0)] if root is not None else []
    while todo:
        task, depth = todo.pop()
        if len(lines) >= MAX_TASKS:
            return [*lines, f"... and more: {trio.lowlevel.current_statistics().tasks_living} tasks in all"]
        here = "runs" if task is trio.lowlevel.current_task() else " > ".join(_waits_in(task))
        work = task.context.get(observe.operation)
        lines.append(f"{'  ' * depth}{task.name}{f' [{work.id} {work}]' if work else ''}: {here}")
        todo += [(child, depth + 1) for nursery in task.child_nurseries for child in _children(nursery)]
    return lines


def _children(nursery: trio.Nursery) -> list[trio.lowlevel.Task]:
    return sorted(nursery.child_tasks, key=lambda task: task.name, reverse=True)


def _waits_in(task: trio.lowlevel.Task) -> list[str]:
    places = [_place(frame.f_code, frame.f_lineno) for frame in _frames(task.coro)]
    return [place for place in places if not place.startswith(DULL)][-MAX_FRAMES:]


def _frames(waiting: Any) -> Iterator[FrameType]:  # noqa: ANN401 - coroutines and generators of Python and of Cython
    """Return what a coroutine is in, outermost first; trio's own way ends where pyfuse3 calls us."""
    for _ in range(MAX_AWAITS):
        frame = getattr(waiting, "cr_frame", None) or getattr(waiting, "gi_frame", None)
        if frame is not None:
            yield frame
        following = getattr(waiting, "cr_await", None) or getattr(waiting, "gi_yieldfrom", None)
        if following is None and type(waiting).__name__ in WRAPPERS:
            # What these wait for has no name, but they hold it.
            found = gc.get_referents(waiting)
            following = next((one for one in found if hasattr(one, "cr_await") or hasattr(one, "ag_frame")), None)
        if following is None:
            return
        waiting = following


def thread_stacks() -> dict[str, list[str]]:
    """Return the stack of every thread, outermost first, by name and number."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    found: dict[str, list[str]] = {}
    for ident, innermost in sys._current_frames().items():  # noqa: SLF001 - documented, and the only way
        stack = list[str]()
        frame: FrameType | None = innermost
        while frame is not None and len(stack) < MAX_FRAMES:
            stack.append(_place(frame.f_code, frame.f_lineno))
            frame = frame.f_back
        found[f"{names.get(ident, '?')} ({ident})"] = stack[::-1]
    return found


def _place(code: CodeType, line: int | None) -> str:
    path = Path(code.co_filename)
    shown = path.relative_to(_ROOT.parent) if path.is_relative_to(_ROOT) else path.name
    return f"{shown}:{line or '?'} {code.co_name}"
