"""What the process of a mount frees goes back to the system: one heap for all threads, large buffers beside it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from artifactfs.content.extents import BLOCK
from artifactfs.daemon.allocator import KEPT_BYTES, MAPPED_BYTES, tune_allocator

MIB = 1 << 20
GLIBC = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other libraries have nothing to tune")
# In a process of its own: what is tuned stays so. Prints mappings that a large buffer makes, and heaps of threads.
PROGRAM = """
import ctypes, threading
from artifactfs.daemon.allocator import tune_allocator

class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in
                "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Info
tune_allocator()
large = bytearray(8 << 20)  # after this has gone, an untuned library takes such buffers out of its heaps
del large
before = libc.mallinfo2().hblks
large = bytearray(1 << 20)
mapped = libc.mallinfo2().hblks - before

together = threading.Barrier(8)

def use():
    held = [bytearray(100_000) for _ in range(10)]
    together.wait()

threads = [threading.Thread(target=use) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
areas = [line.split() for line in open("/proc/self/maps")]
print(mapped, sum(area[1].startswith("rw") and int(area[0].split("-")[0], 16) % (64 << 20) == 0 for area in areas))
"""


def measured(program: str, **more: str) -> list[int]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environ | more, capture_output=True, text=True, check=True
    )  # fmt: skip
    return list(map(int, done.stdout.split()))


@GLIBC
def test_threads_share_one_heap_and_large_buffers_lie_beside_it() -> None:
    assert measured(PROGRAM) == [1, 0]
    mapped, heaps = measured(PROGRAM, MALLOC_PERTURB_="0")  # nothing is tuned then
    assert mapped == 0, "glibc maps large buffers by itself now"
    assert heaps > 0, "glibc has one heap by itself now"


# Every second buffer goes: what is free lies between what is kept.
HOLES = """
import os, trio
from artifactfs.daemon import allocator

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

allocator.tune_allocator()
allocator.TRIM_S = 0.01
held = [bytearray(b"x" * 100_000) for _ in range(1000)]
held = held[::2]
before = resident()

async def trim():
    with trio.move_on_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(allocator.keep_trimmed)
            while resident() > before - (30 << 20):
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()

trio.run(trim)
print(before - resident())
"""


@GLIBC
def test_what_is_free_between_what_is_kept_goes_back_to_the_system() -> None:
    (given,) = measured(HOLES)
    assert given > 30 << 20  # of 50 MB


def test_what_somebody_has_set_is_left_alone() -> None:
    assert not tune_allocator({"MALLOC_ARENA_MAX": "4"})
    assert not tune_allocator({"GLIBC_TUNABLES": "glibc.malloc.arena_max=4"})


def test_a_block_is_not_mapped_anew_each_time_it_is_read() -> None:
    assert BLOCK < MAPPED_BYTES <= MIB <= KEPT_BYTES
