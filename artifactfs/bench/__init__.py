"""The benchmark: what the mount costs, beside what others cost, measured in one run.

Rules of this package: the product is used through its commands only (``mount``, ``umount``, ``status``, ``serve``), so
that nothing is measured that a user would not get; sync code and subprocesses; whatever is started is ended by its
process id, whatever is mounted is unmounted, also after ^C.
"""
