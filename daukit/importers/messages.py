"""The protobuf messages of Caffe and of TensorFlow's checkpoints: only the fields that an importer reads.

The descriptors are built here, so that no generated code and no ``.proto`` file is needed; protobuf itself is an extra.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

from daukit.errors import CheckpointError, DaukitError

Message = Any
"""A protobuf message: its fields are attributes, which no type checker can know."""

# "number name type", a * for repeated, "= value" for a default other than protobuf's own.
_CAFFE = {
    "NetParameter": "2 layers V1LayerParameter*; 100 layer LayerParameter*",
    "V1LayerParameter": "4 name string",
    "LayerParameter": (
        "1 name string; 2 type string; 7 blobs BlobProto*; 100 transform_param TransformationParameter; "
        "106 convolution_param ConvolutionParameter; 117 inner_product_param InnerProductParameter; "
        "1106 dau_conv_param DAUConvolutionParameter"
    ),
    # A packed list of numbers lies in the file as bytes do: read as bytes, it needs no pass over single numbers.
    "BlobProto": (
        "1 num int32; 2 channels int32; 3 height int32; 4 width int32; 5 data bytes*; 7 shape BlobShape; "
        "8 double_data bytes*"
    ),
    "BlobShape": "1 dim int64*",
    "TransformationParameter": "1 scale float =1; 3 crop_size uint32; 4 mean_file string; 5 mean_value float*",
    "InnerProductParameter": "1 num_output uint32; 2 bias_term bool =true; 6 transpose bool",
    "ConvolutionParameter": (
        "1 num_output uint32; 2 bias_term bool =true; 3 pad uint32*; 4 kernel_size uint32*; 5 group uint32 =1; "
        "6 stride uint32*; 120 mu_filler FillerParameter; 122 number_gauss uint32*; 123 gmm_weight_normalization bool; "
        "124 gmm_gauss_normalization bool =true; 127 gmm_component_border_bound float; "
        "128 gmm_sigma_lower_bound float =0.1; 129 gmm_square_gauss_normalization bool =true; "
        "135 gmm_discretize_mean bool; 136 gmm_use_fast_aproximation bool"
    ),
    "DAUConvolutionParameter": (
        "1 num_output uint32; 2 bias_term bool =true; 3 number_units uint32*; 4 pad uint32*; 5 kernel_size uint32*; "
        "6 stride uint32*; 9 mu_filler FillerParameter; 11 unit_normalization bool =true; "
        "12 square_unit_normalization bool; 15 component_border_bound float; 16 sigma_lower_bound float =0.1; "
        "20 use_already_centered_offsets bool =true"
    ),
    "FillerParameter": "1 type string; 3 min float; 4 max float =1",
}
_TENSORFLOW = {
    "BundleHeaderProto": "1 num_shards int32; 2 endianness int32",
    "BundleEntryProto": (
        "1 dtype int32; 2 shape TensorShapeProto; 3 shard_id int32; 4 offset int64; 5 size int64; "
        "6 crc32c fixed32; 7 slices bytes*"
    ),
    "TensorShapeProto": "2 dim Dim*",
    "Dim": "1 size int64",
    "CheckpointState": "1 model_checkpoint_path string",
}

# A comment, or (the group) a string, in which # begins none.
_COMMENT = re.compile(rb"""("(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')|#[^\n]*""")


def parse(message: str, data: bytes, path: Path) -> Message:
    """Decode ``data``, all or part of the file ``path``, as a message of that name.

    Raises:
        CheckpointError: it is damaged, or another kind of message.
    """
    decoder = _messages()[message]
    from google.protobuf.message import DecodeError

    try:
        return decoder.FromString(data)
    except (DecodeError, ValueError, RecursionError):  # UnicodeDecodeError is among them
        raise CheckpointError(
            f"{path}: not a complete {message}; was it cut short, or is it of another kind?"
        ) from None


def read_text_message(message: str, path: Path) -> Message:
    """Read a file in protobuf's text form; fields that an importer does not read are skipped.

    It must be UTF-8, with or without a byte order mark, outside of its comments: those may be in any encoding.

    Raises:
        CheckpointError: it cannot be read, or is no such message.
    """
    parsed = _messages()[message]()
    from google.protobuf import text_format

    try:
        text = _COMMENT.sub(lambda match: match[1] or b"", path.read_bytes()).decode("utf-8-sig")
        return text_format.Parse(text, parsed, allow_unknown_field=True)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CheckpointError(f"{path}: is not UTF-8 outside of its comments; save it as UTF-8 and try again") from None
    except (text_format.ParseError, ValueError, TypeError, LookupError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a {message} in text form: {' '.join(str(error).split())}") from None


@functools.cache
def _messages() -> dict[str, Any]:
    """The classes of all messages by name."""
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    except ImportError:
        raise DaukitError(
            'reading files of Caffe and checkpoints of TensorFlow needs protobuf: pip install "daukit[caffe]" or '
            '"daukit[tensorflow]"'
        ) from None
    file = descriptor_pb2.FileDescriptorProto(name="daukit.proto", package="daukit", syntax="proto2")
    for name, fields in {**_CAFFE, **_TENSORFLOW}.items():
        message = file.message_type.add(name=name)
        for text in fields.split("; "):
            _add_field(message, text)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"daukit.{name}"))
        for name in (*_CAFFE, *_TENSORFLOW)
    }


def _add_field(message: Any, text: str) -> None:
    match = re.fullmatch(r"(\d+) (\w+) (\w+)(\*?)(?: =(\S+))?", text)
    assert match is not None, text
    number, name, kind, repeated, default = match.groups()
    field = message.field.add(name=name, number=int(number), label=3 if repeated else 1)
    if kind[0].isupper():
        field.type, field.type_name = field.TYPE_MESSAGE, f".daukit.{kind}"
    else:
        field.type = getattr(field, f"TYPE_{kind.upper()}")
    if default is not None:
        field.default_value = default
