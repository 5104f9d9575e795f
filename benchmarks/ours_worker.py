"""Our side of the comparison with peers; started by `benchmarks.peers`."""

import jax

from benchmarks import worker
from benchmarks.workloads import WORKLOADS, Timer

if __name__ == "__main__":
    worker.serve(
        {"system": "mbpo_jax", "jax": jax.__version__, "threads": worker.num_threads()},
        {name: Timer(make()) for name, make in WORKLOADS.items()},
    )
