"""Networks for other programs: ONNX files of baked networks, and what onnxruntime makes of them."""

from daukit.export.onnx import OPSET as OPSET
from daukit.export.onnx import OnnxNetwork as OnnxNetwork
from daukit.export.onnx import to_onnx as to_onnx
from daukit.export.pixels import FromPixels as FromPixels
from daukit.export.runtime import OnnxSession as OnnxSession
