"""`cm3leon plan`: what a pretraining costs, before it runs."""

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from cm3leon.planning.plan import Plan, Published


def plan(
    *words: str,
    gpus: int = 1,
    gpu: str = "a100-80gb",
    mfu: float = 0.4,
    replicate: int | None = None,
    checkpointing: Literal["off", "selective", "full"] | None = None,
    documents: int = 340_000_000,
    codes: int = 1024,
    versions: int = 1,
    fit: Annotated[
        list[Path] | None, Parameter(consume_multiple=True, negative="")
    ] = None,
    loss: str = "validation/image",
    plot: Path = Path("scaling-law.png"),
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Show what a pretraining costs: FLOPs, days, memory of each GPU, disk.

    With --fit, show instead how the loss of finished runs falls with their compute.

    For example:

    ```
    cm3leon plan configs/pretrain/7b.toml --gpus 512 --gpu a100-80gb
    cm3leon plan configs/pretrain/7b.toml stream.rows=64 loop.accumulate=32 --gpus 64
    cm3leon plan --fit runs/* --plot scaling-law.png
    ```

    Parameters
    ----------
    words
        A TOML file of `train pretrain`, then key=value words. The vocabulary is the
        preset's, and every row counts as full.
    gpus
        How many.
    gpu
        Which: a100-40gb, a100-80gb, h100 or h200.
    mfu
        Share of the peak that goes into the model's own FLOPs.
    replicate
        Groups of GPUs that each hold the whole model, sharded within; by default what
        the config's [distributed] asks for.
    checkpointing
        Which activations are made again; by default the fewest with which it fits.
    documents
        Captioned pictures in the shards and the memory bank; by default the paper's.
    codes
        Codes of each picture.
    versions
        How often each picture lies in the shards: as it is, mirrored (unless they are
        made with --no-mirror), and as often as data shards --versions adds.
    fit
        Folders of runs; the ends of those count that made all their steps, began from
        no other model's weights, and are beaten by no cheaper one.
    loss
        Which loss of `metrics.jsonl`.
    plot
        Where the picture of the fit goes (extra [evaluation]).
    json
        Print one JSON table.
    """
    from cm3leon.errors import RequestError

    if bool(words) == bool(fit):
        raise RequestError(
            "give a config, such as configs/pretrain/7b.toml, or --fit runs/*"
        )
    if fit:
        _fit(fit, loss, plot, json)
        return

    from dataclasses import asdict

    from cm3leon.config import load_settings
    from cm3leon.model.presets import preset
    from cm3leon.planning.cluster import Cluster
    from cm3leon.planning.memory import Job
    from cm3leon.planning.plan import TABLE_3, Plan
    from cm3leon.planning.storage import Corpus
    from cm3leon.training.pretrain import Pretrain

    file = None if "=" in words[0] else Path(words[0])
    settings = load_settings(Pretrain, file, words[file is not None :])
    cluster = Cluster(
        gpu=gpu,
        gpus=gpus,
        replicate=settings.distributed.mesh(gpus)[0]
        if replicate is None
        else replicate,
    )
    settings.stream.check_ranks(gpus)
    job = Job(
        shape=preset(settings.model.preset, context=settings.model.context),
        rows=settings.stream.batch_rows() // gpus,
        accumulate=settings.loop.accumulate,
        steps=settings.loop.steps,
        optimizer=settings.optimizer.kind,
    )
    made = Plan(job=job, cluster=cluster, mfu=mfu)
    corpus = Corpus(documents=documents, codes=codes, versions=versions)
    bank, index = corpus.bank()
    if json:
        disk = {"shards": corpus.shards, "memory_bank": bank, "index": index}
        print(json_module.dumps(asdict(made) | made.table() | disk, indent=1))
    else:
        _show(made, TABLE_3.get(settings.model.preset))
        print(
            f"\nOn disk, of {documents:,} captioned pictures: shards "
            f"{corpus.shards / 1e9:,.1f} GB,\n"
            f"memory bank {bank / 1e9:,.1f} GB (index {index})"
        )
    mode = made.choose(checkpointing)
    if not json:
        print(f"It fits with checkpointing {mode}.")


def _show(plan: "Plan", paper: "Published | None") -> None:
    from rich.console import Console
    from rich.table import Table

    found, job, cluster = plan.table(), plan.job, plan.cluster
    rows = {
        "parameters": f"{found['parameters']:,}",
        "ids a step": f"{plan.ids_per_step:,} = {cluster.gpus} GPUs x accumulate "
        f"{job.accumulate} x rows {job.rows} x context {job.shape.context}",
        "ids": f"{plan.ids:.3e} in {job.steps:,} steps",
        "FLOPs": f"{plan.flops:.3e}",
        "tokens/s": f"{found['tokens_per_second']:,.0f} at {plan.mfu:.0%} of the peak",
        "time": f"{found['days']:.3g} days, {found['gpu_hours']:,.0f} GPU hours",
    }
    if paper:
        rows["in Table 3"] = (
            f"{paper.gpus} GPUs, {paper.ids_per_step:.0e} ids a step, {paper.ids:.1e}"
        )
        batches = plan.accumulate_for(paper.ids_per_step)
        if batches != job.accumulate:
            rows[""] = f"loop.accumulate={batches} comes nearest to its step"
    console = Console(soft_wrap=True)
    table = Table(show_header=False, box=None, pad_edge=False)
    for row in rows.items():
        table.add_row(*row)
    console.print(table)

    modes = found["memory"]
    table = Table(box=None, pad_edge=False)
    usable = f"{found['usable'] / 1e9:.0f} can be filled"
    table.add_column(f"\nGB on each {cluster.gpu}, {usable}")
    for mode in modes:
        table.add_column(mode, justify="right")
    for name in modes["off"]:
        cells = [_cell(name, mode[name]) for mode in modes.values()]
        table.add_row(name.replace("_", " "), *cells)
    console.print(table)


def _cell(name: str, value: float | int) -> str:
    if name == "fits":
        return "yes" if value else "no"
    return f"{value:.1%}" if name == "flops_again" else f"{value / 1e9:,.2f}"


def _fit(runs: list[Path], loss: str, picture: Path, json: bool) -> None:
    from dataclasses import asdict

    from cm3leon.planning import scaling_law

    found: list[scaling_law.Point] = []
    left_out: dict[str, str] = {}
    for run in runs:
        match scaling_law.read_point(run, loss):
            case str(reason):
                left_out[str(run)] = reason
            case point:
                found.append(point)
    if left_out and not json:
        reasons = (f"{run} ({reason})" for run, reason in left_out.items())
        print("left out:", ", ".join(reasons))
    points = scaling_law.frontier(found)
    law = scaling_law.fit(points)
    if json:
        used = {"points": [asdict(point) for point in points], "left_out": left_out}
        print(json_module.dumps(asdict(law) | used, indent=1))
    else:
        for point in points:
            print(f"{point.run}: {point.flops:.3e} FLOPs, {point.loss:.4f} nats")
        print(
            f"L(C) = {law.floor:.4g} + {law.scale:.4g} C^-{law.exponent:.4g}, off by "
            f"{law.error:.4f}; {len(found) - len(points)} of {len(found)} runs are "
            "beaten by a cheaper one"
        )
    scaling_law.plot(points, law, loss, picture)
    if not json:
        print(picture)
