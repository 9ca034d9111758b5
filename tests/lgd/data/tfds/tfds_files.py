"""Data sets in TFDS's own layout, written without TensorFlow."""

import io
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

from lgd.data.tfds import catalog

VERSION = '1.0.0'


def write(
  data_dir: str,
  name: str,
  official: dict[str, Sequence[dict[str, Any]]],
  features: dict[str, Any],
  *,
  num_shards: int = 1,
  version: str = VERSION,
  file_format: str = 'array_record',
) -> pathlib.Path:
  """Writes examples of every official split; returns the directory of the version.

  Args:
    data_dir: the TFDS directory.
    name: of the data set, with its config after a slash.
    official: split -> examples; an image is a uint8 array, or bytes as they are.
    features: TFDS's, as their `FeaturesDict` takes them.
    num_shards: files of a split, of nearly equal numbers of examples.
    version: of the data set.
    file_format: what `dataset_info.json` says it is.
  """
  directory = pathlib.Path(data_dir) / name / version
  directory.mkdir(parents=True)
  tfds.features.FeaturesDict(features).save_config(directory)
  splits = []
  for split, examples in official.items():
    shards = [[examples[i] for i in part] for part in _parts(len(examples), num_shards)]
    for i, shard in enumerate(shards):
      stem = f'{name.split("/", maxsplit=1)[0]}-{split}.{file_format}'
      path = directory / f'{stem}-{i:05d}-of-{num_shards:05d}'
      writer = array_record_module.ArrayRecordWriter(str(path), 'group_size:1')
      for example in shard:
        writer.write(_serialize(example))
      writer.close()
    splits.append(
      {
        'name': split,
        'shardLengths': [str(len(shard)) for shard in shards],
        'numBytes': '1',
        'filepathTemplate': '{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}',
      }
    )
  info = {
    'name': name.split('/', maxsplit=1)[0],
    'version': version,
    'fileFormat': file_format,
    'splits': splits,
  }
  if '/' in name:
    info['configName'] = name.split('/')[1]
  (directory / 'dataset_info.json').write_text(json.dumps(info))
  return directory


def labelled(shape: tuple[int | None, ...], num_classes: int) -> dict[str, Any]:
  """Features of images with a class."""
  return {
    'image': tfds.features.Image(shape=shape),
    'label': tfds.features.ClassLabel(num_classes=num_classes),
  }


def faces(
  n: int,
) -> tuple[np.ndarray, np.ndarray, list[dict[str, Any]], dict[str, Any]]:
  """Images and attributes as celeb_a has them, their examples, and its features."""
  rng = np.random.default_rng(1)
  bits = rng.integers(0, 2, (n, 40))
  # Smooth, so that PNG is small; the first pixel tells the image.
  x = np.zeros((n, 218, 178, 3), np.uint8) + np.arange(178, dtype=np.uint8)[:, None]
  x += np.arange(n, dtype=np.uint8)[:, None, None, None]
  examples = [
    {'image': image, 'attributes': dict(zip(catalog.ATTRIBUTES, row, strict=True))}
    for image, row in zip(x, bits, strict=True)
  ]
  features = {
    'image': tfds.features.Image(shape=(218, 178, 3)),
    'attributes': {name: np.bool_ for name in catalog.ATTRIBUTES},
  }
  return x, bits, examples, features


def captioned(
  captions: Sequence[Sequence[str]], size: tuple[int, int] = (40, 48)
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
  """Examples as coco_captions has them, image i of the value 8 i, and its features."""
  examples = [
    {
      'image': np.full((*size, 3), 8 * i, np.uint8),
      'image/filename': f'{i:012d}.jpg'.encode(),
      'captions': {
        'text': [text if isinstance(text, bytes) else text.encode() for text in texts]
      },
    }
    for i, texts in enumerate(captions)
  ]
  features = {
    'image': tfds.features.Image(shape=(None, None, 3)),
    'image/filename': tfds.features.Text(),
    'captions': tfds.features.Sequence({'text': tfds.features.Text()}),
  }
  return examples, features


def png(image: np.ndarray) -> bytes:
  """The file of an image."""
  stream = io.BytesIO()
  array = image[..., 0] if image.shape[-1] == 1 else image
  Image.fromarray(array).save(stream, format='PNG')
  return stream.getvalue()


def _parts(n: int, num_parts: int) -> list[np.ndarray]:
  return np.array_split(np.arange(n), num_parts)


def _serialize(example: dict[str, Any]) -> bytes:
  proto = tf_example_pb2.Example()
  _fill(proto, example, '')
  return proto.SerializeToString()


def _fill(proto: tf_example_pb2.Example, example: dict[str, Any], prefix: str) -> None:
  for key, value in example.items():
    if isinstance(value, dict):
      _fill(proto, value, f'{prefix}{key}/')
      continue
    feature = proto.features.feature[f'{prefix}{key}']
    if isinstance(value, np.ndarray):
      feature.bytes_list.value.append(png(value))
    elif isinstance(value, bytes):
      feature.bytes_list.value.append(value)
    elif isinstance(value, list):
      feature.bytes_list.value.extend(value)
    else:
      feature.int64_list.value.append(int(value))
