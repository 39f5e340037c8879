"""A node in a process of its own whose segmentation is a fake that takes a given time.

python -m tests.node.fake_node QUEUE AE@HOST:PORT SECONDS    # -1: a minute that nothing ends
"""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path

from fastbts.node.node import Node, stop_by_signals
from fastbts.node.queue import Queue
from fastbts.node.receive import Address
from fastbts.node.send import Destination
from fastbts.progress import Progress
from tests.node.nodes import fake_process


def main(queue: str, destination: str, seconds: str) -> None:
    def slow_process(images: Path, out: Path, progress: Progress) -> list[Path]:
        if float(seconds) < 0:
            time.sleep(60)
        for _ in range(int(100 * float(seconds))):
            time.sleep(0.01)
            progress("slow", 0.5)
        return fake_process(images, out, progress)

    logging.basicConfig(level=logging.INFO)
    node = Node(
        Queue(queue), slow_process, Address(port=0), Destination.parse(destination), quiet_s=0.5
    )
    stop_by_signals(node)
    node.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
