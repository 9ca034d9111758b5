"""Where arrays live: a mesh of devices, and one rule for parameters.

The mesh has the axes 'data' and 'fsdp'. Batches are split over both. Parameters are
copied along 'data' and split along 'fsdp', each array along one axis; whoever computes
with one gathers it first, and gradients come back split (fully sharded data parallel).
With fsdp = 1 every device has all parameters. `jit` takes the shardings and makes the
communication. Several processes run the same program, each on its own devices and on
its share of the data.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType
from jax.sharding import Mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec

_MIN_SIZE = 2**14  # Elements: smaller arrays cost more to gather than to keep.


def make_mesh(devices: Sequence[jax.Device] | None = None, *, fsdp: int = 1) -> Mesh:
  """A mesh 'data' x 'fsdp' over `devices`, by default all.

  Args:
    devices: of the mesh.
    fsdp: how many devices share one copy of the parameters.

  Raises:
    ValueError: `fsdp` does not divide the number of devices.
  """
  devices = jax.devices() if devices is None else devices
  if len(devices) % fsdp:
    raise ValueError(f'fsdp={fsdp}: must divide the {len(devices)} devices.')
  return jax.make_mesh(
    (len(devices) // fsdp, fsdp),
    ('data', 'fsdp'),
    axis_types=(AxisType.Auto, AxisType.Auto),
    devices=devices,
  )


def replicated(mesh: Mesh) -> NamedSharding:
  """The same value on every device."""
  return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
  """The leading axis split over all devices."""
  return NamedSharding(mesh, PartitionSpec(mesh.axis_names))


def fsdp(tree: Any, mesh: Mesh) -> Any:
  """A sharding for every array of parameters, optimiser state or their average.

  An array is split along its longest axis that the devices of 'fsdp' divide, the first
  of equals; small ones, and those without such an axis, are copied.

  Args:
    tree: pytree of arrays or of `jax.ShapeDtypeStruct`.
    mesh: of `make_mesh`.
  """
  num = mesh.shape['fsdp']

  def sharding(x):
    if num > 1 and x.size >= _MIN_SIZE:
      for axis in sorted(range(x.ndim), key=lambda i: -x.shape[i]):
        if x.shape[axis] % num == 0:
          return NamedSharding(mesh, PartitionSpec(*axis * [None], 'fsdp'))
    return replicated(mesh)

  return jax.tree.map(sharding, tree)


def process_share(batch: Any) -> Any:
  """This process's rows of a host batch that all processes have: a contiguous part."""
  num, index = jax.process_count(), jax.process_index()

  def share(x):
    rows = len(x) // num
    return x[index * rows : (index + 1) * rows]

  return jax.tree.map(share, batch)


def of_this_process(numbers: Sequence[int]) -> list[int]:
  """The numbers of those pieces of work that this process does.

  By their numbers, not by their places in a list of what is missing: other processes
  may have done some of it before this one looks.
  """
  num, index = jax.process_count(), jax.process_index()
  return [i for i in numbers if i % num == index]


def global_batch(share: Any, mesh: Mesh) -> Any:
  """Every process's share of a batch as one global array, split over all devices."""
  return jax.tree.map(
    lambda x: jax.make_array_from_process_local_data(split(mesh), x), share
  )


def replicate(tree: Any, mesh: Mesh) -> Any:
  """Host values that all processes have, on every device.

  What `jax.device_put` makes of them across processes Orbax cannot read (jax 0.10).
  """
  return jax.jit(lambda x: x, out_shardings=replicated(mesh))(jax.device_get(tree))


def to_host(x: jax.Array) -> np.ndarray:
  """The whole of a global array, on every process; all must call this."""
  if x.is_fully_addressable or x.is_fully_replicated:
    return np.asarray(x)
  return multihost_utils.process_allgather(x, tiled=True)


def of_first_process(x: Any) -> np.ndarray:
  """Process 0's value, on every process; all must call this."""
  if jax.process_count() == 1:
    return np.asarray(x)
  return multihost_utils.broadcast_one_to_all(np.asarray(x))


def wait_for_processes(name: str) -> None:
  """Returns when all processes have come here; `name` tells the places apart."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)
