"""Prepare a network for inference: a copy that works out once what a forward needs of its frozen layers."""

from daukit.preparation.layer import PreparedDAUConv2d as PreparedDAUConv2d
from daukit.preparation.network import PreparedNetwork as PreparedNetwork
from daukit.preparation.network import prepare as prepare
from daukit.preparation.report import PreparationReport as PreparationReport
from daukit.preparation.report import PreparedLayer as PreparedLayer
