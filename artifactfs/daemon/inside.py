"""What a process does at this moment: its tasks and where each waits, its threads and where each is.

Rules of this file: places in the code only, no values: neither arguments nor local variables, which may hold content or
a token. What changes meanwhile (threads) may be told a moment late.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from types import CodeType, FrameType

import trio

from artifactfs import observe

# Where a task waits is in its last few frames; a deep one is a bug of its own, and told by that.
MAX_FRAMES = 40
MAX_TASKS = 2000
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
    return [_place(frame.f_code, line) for frame, line in task.iter_await_frames()][-MAX_FRAMES:]


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


def _place(code: CodeType, line: int) -> str:
    path = Path(code.co_filename)
    shown = path.relative_to(_ROOT.parent) if path.is_relative_to(_ROOT) else path.name
    return f"{shown}:{line} {code.co_name}"
