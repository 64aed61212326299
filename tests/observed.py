"""What torch does inside a block: operations by name, and those for which the host would wait for a GPU."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from daukit.ops import dispatch

# Results, or the sizes of results, that depend on values.
WAITING = {
    "aten._local_scalar_dense", "aten.item", "aten.equal", "aten.is_nonzero", "aten.nonzero", "aten.masked_select",
    "aten._unique2", "aten.unique_consecutive", "aten.bincount",
}  # fmt: skip
# Views and allocations cost the host a little, the device nothing.
FREE = {
    "aten.view", "aten._unsafe_view", "aten.reshape", "aten.permute", "aten.transpose", "aten.expand", "aten.detach",
    "aten.select", "aten.slice", "aten.unsqueeze", "aten.squeeze", "aten.split", "aten.unfold", "aten.alias",
    "aten.t", "aten.view_as_real", "aten._reshape_alias", "aten.empty", "aten.new_empty", "aten.empty_like",
    "aten.empty_strided", "aten.as_strided", "aten.unbind", "aten.lift_fresh",
}  # fmt: skip
BODIES = {"daukit.dau_conv2d": dispatch.forward, "daukit.dau_conv2d_backward": dispatch.backward}


class Observed(TorchDispatchMode):
    """Attributes:
    operations: names of what ran on the device, in order, without views and allocations.
    waits: those of them for which the host would wait.
    """

    def __init__(self):
        super().__init__()
        self.operations, self.waits = [], []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = str(function).rsplit(".", 1)[0]
        if name in BODIES:  # torch would hide what happens inside
            with self:
                return BODIES[name](*args, **kwargs)
        result = function(*args, **kwargs)
        if name not in FREE and result is not args[0]:  # a conversion to what it is already does nothing
            self.operations.append(name)
        by_mask = name in ("aten.index", "aten.index_put", "aten.index_put_") and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        repeats = str(function) == "aten.repeat_interleave.Tensor" and kwargs.get("output_size") is None
        if name in WAITING or by_mask or repeats:
            self.waits.append(name)
        return result
