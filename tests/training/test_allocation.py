"""Freed memory is kept: asking for it again touches no new page."""

import subprocess
import sys

import pytest

PAGES = 16_384  # of 4 KiB: 64 MiB

ASK_TWICE = f"""
import resource, sys
import torch
from cm3leon.training.allocation import keep_freed_memory, return_unused_memory

if sys.argv[1] == "keep" and not keep_freed_memory():
    print("other")
    sys.exit()
for pages in ({PAGES}, {PAGES} * 15 // 16):  # a little may be gone to something small
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(pages * 1024)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    if sys.argv[2:]:
        return_unused_memory()
print(faults)
"""


def faults(*how: str) -> int:
    """Pages that a process is given for a tensor after it freed a larger one."""
    command = [sys.executable, "-c", ASK_TWICE, *how]
    said = subprocess.check_output(command, text=True).strip()
    if said == "other":
        pytest.skip("this C library is not glibc")
    return int(said)


def test_what_is_freed_is_there_when_it_is_asked_for_again():
    assert faults("keep") < PAGES / 100 < faults("give back")


def test_what_is_kept_can_be_given_back():
    assert faults("keep", "return") > PAGES / 2
