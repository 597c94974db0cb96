"""Freed memory is kept: asking for it again touches no new page."""

import subprocess
import sys

import pytest

PAGES = 16_384  # of 4 KiB: 64 MiB

ASK_TWICE = f"""
import resource, sys
import torch
from cm3leon.training.allocation import keep_freed_memory

if sys.argv[1] == "keep" and not keep_freed_memory():
    print("other")
    sys.exit()
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones({PAGES} * 1024)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults)
"""


def faults(how: str) -> int:
    """Pages that a process had to be given for a tensor it had once before."""
    command = [sys.executable, "-c", ASK_TWICE, how]
    said = subprocess.check_output(command, text=True).strip()
    if said == "other":
        pytest.skip("this C library is not glibc")
    return int(said)


def test_what_is_freed_is_there_when_it_is_asked_for_again():
    assert faults("keep") < PAGES / 100 < faults("give back")
