"""What Model Explorer makes of a model and reads as node data; run by a Python that has it, and nothing of layerdiff.

``python adapter.py MODEL FOLDER`` prints as JSON: of every file of the folder its keys and how many name a node.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def main() -> int:
    from model_explorer_onnx.main import ONNXAdapter

    model, folder = sys.argv[1:]
    graphs: list[Any] = ONNXAdapter().convert(model, {})["graphs"]
    nodes = {graph.id: {node.id for node in graph.nodes} for graph in graphs}
    found = []
    for file in sorted(Path(folder).glob("*.json")):
        for graph, data in json.loads(file.read_text("utf-8")).items():
            missing = sorted(key for key in data["results"] if key not in nodes.get(graph, ()))
            found.append({"file": file.name, "graph": graph, "keys": len(data["results"]), "missing": missing})
    json.dump({"graphs": {name: len(held) for name, held in nodes.items()}, "found": found}, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
