"""What can be answered without waiting for anything: the warm path.

Rules of this file: synchronous, and no I/O; None or False says that the ordinary way has to be taken, which then also
finds what is wrong. Opening and closing are what remains of a warm ``grep -r``: the kernel has names, attributes and
pages, but pyfuse3 cannot spare it these two.
"""

from __future__ import annotations

import os

from artifactfs.model.content import Content, Exact, Inline, Pointer
from artifactfs.tree.nodes import Kind
from artifactfs.vfs.control_dir import is_control
from artifactfs.vfs.filesystem import FileSystem, Opened
from artifactfs.vfs.handles import ReadHandle

WRITING = os.O_WRONLY | os.O_RDWR | os.O_TRUNC
EMPTY = Inline(b"")


def open_file(fs: FileSystem, ino: int, flags: int) -> Opened | None:
    """Open a file for reading whose bytes are settled and which nobody edits."""
    node = fs.inodes.get(ino)
    if node is None or flags & WRITING or node.kind is not Kind.FILE or is_control(node):
        return None
    writer = fs.writer
    if ino in writer.overlay.edits:
        return None
    if isinstance(node.content, Pointer):
        found = fs.pointers.open_at_once(node, node.content)
        if found is None:
            return None
        content: Content
        content, size = found
    elif isinstance(node.size, Exact) and not fs.content.revision(node.content):
        content, size = node.content or EMPTY, node.size.value
    else:
        return None
    fs.prefetch.opened(node)
    return Opened(fs.handles.add(ReadHandle(node, content, size)), writer.overlay.keeps_pages(ino))


def is_reading(fs: FileSystem, handle: int) -> bool:
    """Tell whether a handle was opened for reading: it has nothing to flush."""
    return isinstance(fs.handles.peek(handle), ReadHandle)


def release(fs: FileSystem, handle: int) -> bool:
    """Close a file that was opened for reading; return whether that was it."""
    if not is_reading(fs, handle):
        return False
    opened = fs.handles.drop(handle)
    if opened is not None:
        fs.closed(opened.node)
    return True
