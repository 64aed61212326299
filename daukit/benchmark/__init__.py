"""Times of layers and networks beside their peers, interleaved in one run: only ratios of one run mean anything."""

from daukit.benchmark.layers import BACKEND_CASES as BACKEND_CASES
from daukit.benchmark.layers import REACH as REACH
from daukit.benchmark.layers import SHAPES as SHAPES
from daukit.benchmark.layers import bench_backends as bench_backends
from daukit.benchmark.layers import bench_layer as bench_layer
from daukit.benchmark.networks import INFERENCE as INFERENCE
from daukit.benchmark.networks import bench_gamma as bench_gamma
from daukit.benchmark.networks import bench_inference as bench_inference
from daukit.benchmark.networks import bench_training as bench_training
from daukit.benchmark.sparse import DENSITIES as DENSITIES
from daukit.benchmark.sparse import SPARSE as SPARSE
from daukit.benchmark.sparse import SparseCase as SparseCase
from daukit.benchmark.sparse import bench_sparse as bench_sparse
from daukit.benchmark.sparse import crossover as crossover
from daukit.benchmark.sparse import layer_cases as layer_cases
from daukit.benchmark.sparse import network_cases as network_cases
from daukit.benchmark.timing import Quartiles as Quartiles
from daukit.benchmark.timing import busy as busy
from daukit.benchmark.timing import interleave as interleave
from daukit.benchmark.timing import machine as machine
from daukit.benchmark.timing import quartiles as quartiles
