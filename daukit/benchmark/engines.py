"""Other engines for dense networks, where they are installed: onnxruntime and openvino."""

from __future__ import annotations

import importlib
import importlib.util
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from daukit.models.usercode import FAILURES, in_one_line

Task = Callable[[], object]


def dense_engines(network: nn.Module, image: Tensor) -> tuple[dict[str, Task], list[str]]:
    """Inference of ``network`` on ``image`` by each engine that is here, on as many threads as torch has.

    Returns:
        Tasks by engine, and a sentence for each engine that is left out.
    """
    tasks, left_out = {}, []
    for engine, (packages, load) in _ENGINES.items():
        missing = [name for name in packages if importlib.util.find_spec(name) is None]
        if missing:
            left_out.append(f"{engine} is left out: {' and '.join(missing)} not installed")
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # exporters tell of their own future
                tasks[engine] = load(network, image)
        except FAILURES as error:
            left_out.append(f"{engine} is left out: it does not take a network ({in_one_line(error)})")
    return tasks, left_out


def _onnxruntime(network: nn.Module, image: Tensor) -> Task:
    runtime: Any = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    # Threads that wait busily would slow down what is timed next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "network.onnx")
        # The newer exporter, by torch.export, takes half a minute and onnxscript, for the same graph.
        torch.onnx.export(network, (image,), file, dynamo=False)
        session = runtime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    inputs = {session.get_inputs()[0].name: image.numpy()}
    return lambda: session.run(None, inputs)


def _openvino(network: nn.Module, image: Tensor) -> Task:
    openvino: Any = importlib.import_module("openvino")
    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    converted = openvino.convert_model(network, example_input=image)
    compiled = openvino.compile_model(converted, "CPU", settings)
    request = compiled.create_infer_request()
    return lambda: request.infer([image.numpy()], share_inputs=True)


_ENGINES: dict[str, tuple[tuple[str, ...], Callable[[nn.Module, Tensor], Task]]] = {
    "onnxruntime": (("onnxruntime", "onnx"), _onnxruntime),
    "openvino": (("openvino",), _openvino),
}
"""Engines by name: the packages that each needs, and what makes a task of a network and its input."""
