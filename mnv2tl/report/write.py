"""From a run to its report: ask the checkpoint, gather every part, write one file."""

from __future__ import annotations

from pathlib import Path

from mnv2tl import __version__, store
from mnv2tl.checkpoint import Run
from mnv2tl.data.manifest import Manifest
from mnv2tl.errors import DataError
from mnv2tl.report.answers import Answers, Network, ask
from mnv2tl.report.audit import make_audit
from mnv2tl.report.charts import draw_curve
from mnv2tl.report.confusion import make_confusion
from mnv2tl.report.deployment import read_benchmark, read_bundle
from mnv2tl.report.embedding_map import make_map
from mnv2tl.report.galleries import show_doubtful, show_mistakes, show_suspects
from mnv2tl.report.page import render
from mnv2tl.report.run_info import check_info
from mnv2tl.report.summary import summarise
from mnv2tl.report.trust import judge
from mnv2tl.text import name_of

NAME = "report.html"
"""Name of the file in the run folder."""


def write_report(
    run: Run,
    *,
    data: Path | None = None,
    bundle: Path | None = None,
    benchmark: Path | None = None,
    out: Path | None = None,
) -> Path:
    """Write the report of a run as one HTML file that needs nothing else, and return its path.

    Args:
        run: A finished run.
        data: Folder of the images, if it moved since the training.
        bundle: A bundle that was exported from the run.
        benchmark: What `mnv2tl benchmark --out` wrote of that bundle.
        out: Where the file goes; None for `report.html` in the run folder.

    Raises:
        ArtifactError: Run, bundle or benchmark is refused; run.json lacks something (E412).
        DataError: There is no validation image (E301), or none can be read (E309).
        MachineError: The file cannot be written.
    """
    check_info(run)
    exported = None if bundle is None else read_bundle(bundle, run)
    timed = None if benchmark is None else read_benchmark(benchmark)
    manifest, config = run.manifest, run.info["config"]
    root, max_pixels = data or manifest.root, config["scan"]["max_pixels"]
    answers = _ask_all(run, manifest, root)
    val = answers["val"]
    best_epoch = run.info["best_epoch"]
    page = render(
        "report.html.j2",
        kind="report",
        version=__version__,
        title=name_of(run.folder.resolve()),
        summary=summarise(run, manifest, answers),
        audit=make_audit(manifest, root, image_px=config["image_px"], max_pixels=max_pixels),
        curves=[draw_curve(run.history, name, best_epoch=best_epoch) for name in _CURVES],
        confusion=make_confusion(val),
        mistakes=show_mistakes(val),
        doubtful=show_doubtful(val),
        suspects=show_suspects(val),
        trust=judge(answers),
        map=make_map(val),
        bundle=exported,
        benchmark=timed,
    )
    path = out or run.folder / NAME
    store.write_bytes(path, page.encode("utf-8"))
    return path


_CURVES = ("accuracy", "loss")


def _ask_all(run: Run, manifest: Manifest, root: Path) -> dict[str, Answers]:
    """Return what the checkpoint answers on the validation split, and on test if there is one."""
    config, network = run.info["config"], Network.open(run)
    answers = {}
    for split in ("val", "test"):
        entries = manifest.of_split(split)
        if not entries and split == "val":
            raise DataError("E301", "the run has no validation image", path=root)
        if entries:
            answers[split] = ask(
                network,
                entries,
                root,
                image_px=config["image_px"],
                max_pixels=config["scan"]["max_pixels"],
            )
    return answers
