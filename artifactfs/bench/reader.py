"""Reads 4 KiB at random places of a file and prints the seconds that took.

Run as ``python -m artifactfs.bench.reader FILE COUNT SEED [forget]``. ``forget`` has the kernel drop the file's pages
first, so that each read is asked of the file system; what that caches itself stays.
"""

from __future__ import annotations

import os
import random
import sys
import time

PAGE = 4096


def main() -> None:
    """Read and print."""
    path, count, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    fd = os.open(path, os.O_RDONLY)
    size = os.fstat(fd).st_size
    if sys.argv[4:] == ["forget"]:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    # Places are read, not what lies between: the kernel's own readahead would fetch more than was asked for.
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    dice = random.Random(seed)  # noqa: S311 - no secret: the seed makes each contender read the same places
    places = [dice.randrange(max(1, size // PAGE)) * PAGE for _ in range(count)]
    begin = time.perf_counter()
    for at in places:
        os.pread(fd, PAGE, at)
    sys.stdout.write(f"{time.perf_counter() - begin:.6f}\n")


if __name__ == "__main__":
    main()
