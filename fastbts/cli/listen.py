"""`fastbts listen` and `fastbts queue`: a DICOM node."""

from __future__ import annotations

import logging
import sys
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastbts.cli.common import (
    Backend,
    Device,
    EngineOption,
    Precision,
    Threads,
    app,
    reported_errors,
)
from fastbts.cli.results import (
    AllowMissing,
    BrainEngine,
    Focus,
    Fractional,
    MinPart,
    Mode,
    Overlap,
    Passes,
    Reference,
    Register,
    Strip,
    TrustedKey,
    new_segmenter,
)
from fastbts.errors import InputError, OptionsError
from fastbts.options import SegmenterOptions

if TYPE_CHECKING:
    from fastbts.node.node import Node

QUEUE = Path("queue")
PemFile = Annotated[Path | None, typer.Option(help="PEM file")]


@app.command()
def listen(
    to: Annotated[
        str, typer.Option(metavar="AE@HOST:PORT", help="node that gets the segmentations")
    ],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one")] = 11112,
    aet: Annotated[str, typer.Option(help="AE title by which others must call this node")] = (
        "FASTBTS"
    ),
    host: Annotated[
        str, typer.Option(help="address to listen on; 0.0.0.0 for all of this machine")
    ] = "127.0.0.1",
    allow: Annotated[
        list[str] | None, typer.Option(help="AE title that may send, repeatable; default: all")
    ] = None,
    queue: Annotated[Path, typer.Option(help="folder of the studies")] = QUEUE,
    quiet_s: Annotated[
        float, typer.Option(min=0, help="a study is complete when no image came for so long")
    ] = 30.0,
    max_studies: Annotated[int, typer.Option(min=1, help="most studies that wait")] = 100,
    max_gb: Annotated[
        float, typer.Option(min=0.1, help="most that the queue takes on disk")
    ] = 20.0,
    keep: Annotated[
        bool, typer.Option("--keep", help="keep images and results of studies that are done")
    ] = False,
    tls_cert: PemFile = None,
    tls_key: PemFile = None,
    tls_ca: PemFile = None,
    to_tls: Annotated[
        bool, typer.Option("--to-tls", help="TLS also to the node that gets the segmentations")
    ] = False,
    reference: Reference = "t1ce",
    allow_missing: AllowMissing = False,
    register: Register = True,
    strip: Strip = True,
    fractional: Fractional = False,
    report: Annotated[
        bool, typer.Option("--report/--no-report", help="send the structured report, too")
    ] = True,
    engine: EngineOption = None,
    brain_engine: BrainEngine = None,
    backend: Backend = "auto",
    device: Device = "auto",
    precision: Precision = "auto",
    trusted_key: TrustedKey = None,
    threads: Threads = 0,
    mode: Mode = "auto",
    overlap: Overlap = SegmenterOptions.overlap,
    passes: Passes = 1,
    focus: Focus = False,
    min_part_mm3: MinPart = None,
) -> None:
    """Runs a DICOM node that segments studies.

    It receives them, and sends DICOM-SEG and a structured report to another node.

    A study waits in the queue until it is quiet, and its result until it was accepted; both survive
    the end of the process at any moment. Logs do not name the patient.
    """
    from fastbts.node.node import Node
    from fastbts.node.process import segmenting
    from fastbts.node.queue import Limits, Queue
    from fastbts.node.receive import Address
    from fastbts.node.send import Destination
    from fastbts.node.tls import Tls
    from fastbts.study.stripping import brain_engine as loaded_engine

    with reported_errors(), ExitStack() as opened:
        tls = Tls(*_pair(tls_cert, tls_key), tls_ca) if tls_cert or tls_key or tls_ca else None
        if to_tls and not tls:
            raise OptionsError("--to-tls needs --tls-cert and --tls-key")
        destination = Destination.parse(to, tls if to_tls else None)
        studies = opened.enter_context(
            closing(Queue(queue, Limits(max_studies, int(max_gb * 1e9), keep)))
        )
        opened.enter_context(studies.temporary_files())
        segmenter = new_segmenter(
            engine,
            {"backend": backend, "device": device, "precision": precision},
            trusted_key,
            background=False,  # an engine that cannot be used is found before anything is received
            mode=mode,
            overlap=overlap,
            passes=passes,
            focus=focus,
            n_threads=threads,
            allow_missing=allow_missing,
            min_part_mm3=min_part_mm3,
        )
        address = Address(aet, port, host, tuple(allow or ()), tls)
        loaded = loaded_engine(brain_engine, threads, trusted_key)
        brain = opened.enter_context(loaded) if strip else None
        process = segmenting(
            segmenter,
            fractional=fractional,
            report=report,
            reference=reference,
            register=register,
            strip=strip,
            brain_engine=brain,
            n_threads=threads,
        )
        _run(Node(studies, process, address, destination, quiet_s))


def _run(node: Node) -> None:
    """Until the process is asked to end."""
    from fastbts.node.node import stop_by_signals

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log = logging.getLogger("fastbts.node")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    logging.getLogger().addHandler(logging.NullHandler())  # libraries may name the patient
    stop_by_signals(node)
    node.run()


@app.command(name="queue")
def show_queue(
    folder: Annotated[Path, typer.Argument(help="folder of `fastbts listen --queue`")] = QUEUE,
    retry: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="failed study to try again, repeatable; `all` for all"),
    ] = None,
) -> None:
    """Lists the studies of a DICOM node. Says why some failed; also while it runs."""
    from fastbts.node import listing

    with reported_errors():
        if not (folder / "incoming").is_dir():
            raise InputError(f"{folder}: not a queue of `fastbts listen`; give its --queue")
        if retry:
            again = listing.retry(folder, () if "all" in retry else retry)
            typer.echo(f"waiting again: {', '.join(again) or 'none'}")
    for row in listing.rows(folder):
        typer.echo(f"{row.study}  {row.state:8}  {row.n_images:4} images  {row.reason}".rstrip())


def _pair(cert: Path | None, key: Path | None) -> tuple[Path, Path]:
    if not cert or not key:
        raise OptionsError("TLS needs both --tls-cert and --tls-key")
    return cert, key
