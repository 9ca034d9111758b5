"""Weights of CLIP from transformers' names, and the command that converts a file."""

import dataclasses
import importlib.util
import json
import pathlib
import unittest
from unittest import mock

import chex
import numpy as np
from absl.testing import absltest
from absl.testing import parameterized

from experiments import convert_clip
from lgd import errors
from lgd import networks
from lgd.networks import published
from lgd.storage import files
from tests.lgd.networks import clip_states


class ClipWeightsTest(parameterized.TestCase):
  @parameterized.parameters(*clip_states.PUBLISHED)
  def test_published_layouts_are_known_by_their_shapes(self, config, num_published):
    shapes = clip_states.shapes(config)
    self.assertEqual(
      sum(int(np.prod(shape)) for shape in shapes.values()), num_published
    )
    state = {name: np.broadcast_to(0.0, shape) for name, shape in shapes.items()}
    self.assertEqual(published.clip.infer_config(state), config)

  def test_infer_config_names_what_is_wrong(self):
    state = dict(clip_states.state())
    with self.assertRaisesRegex(
      errors.FileError, 'no published layout: image_width=32'
    ):
      published.clip.infer_config(state)
    state['text_projection.weight'] = np.zeros(3, np.float32)
    with self.assertRaisesRegex(errors.FileError, 'text_projection.weight of rank 2'):
      published.clip.infer_config(state)
    del state['vision_model.embeddings.patch_embedding.weight']
    with self.assertRaisesRegex(errors.FileError, 'no array vision_model.*of rank 4'):
      published.clip.infer_config(state)

  def test_numbers_of_positions_are_left_out(self):
    state = dict(clip_states.state())
    before = published.clip.arrays_from_transformers(state, clip_states.CONFIG)
    for tower in ('text_model', 'vision_model'):
      state[f'{tower}.embeddings.position_ids'] = np.arange(7)[None]
    after = published.clip.arrays_from_transformers(state, clip_states.CONFIG)
    self.assertEqual(before.keys(), after.keys())

  @parameterized.parameters(
    ('missing', 'has no array text_model.encoder.layers.1.mlp.fc1.weight'),
    ('extra', 'text_model.encoder.layers.2.mlp.fc1.weight is no array of CLIP with 2'),
    ('misshapen', r'layers.1.mlp.fc1.weight is float32 \(16, 64\);.* \(64, 16\)'),
    ('half', 'layers.1.mlp.fc1.weight is float16'),
  )
  def test_names_what_is_wrong_with_a_state_dict(self, what, message):
    state = dict(clip_states.state())
    key = 'text_model.encoder.layers.1.mlp.fc1.weight'
    if what == 'missing':
      del state[key]
    elif what == 'extra':
      state[key.replace('1', '2', 1)] = state[key]
    elif what == 'misshapen':
      state[key] = state[key].T
    else:
      state[key] = state[key].astype(np.float16)
    with self.assertRaisesRegex(errors.FileError, message):
      published.clip.from_transformers(state, clip_states.CONFIG)

  def test_file(self):
    """Every array comes back; sha256; another config; cut short by a byte."""
    path = pathlib.Path(self.create_tempdir()) / 'clip.npz'
    files.write_npz(
      path,
      published.clip.arrays_from_transformers(clip_states.state(), clip_states.CONFIG),
    )
    params = published.clip.load(path, clip_states.CONFIG, sha256=files.sha256(path))
    expected = published.clip.from_transformers(clip_states.state(), clip_states.CONFIG)
    chex.assert_trees_all_equal(params, expected)
    with self.assertRaisesRegex(errors.FileError, 'sha256 starts with'):
      published.clip.load(path, clip_states.CONFIG, sha256='0' * 64)
    with self.assertRaisesRegex(
      errors.FileError, 'clip.npz: has no array image/block_2'
    ):
      published.clip.load(path, dataclasses.replace(clip_states.CONFIG, image_layers=3))
    path.write_bytes(path.read_bytes()[:-1])
    with self.assertRaisesRegex(errors.FileError, 'clip.npz: is cut short'):
      published.clip.load(path, clip_states.CONFIG)


class _DamagedError(Exception):
  pass


class ConvertClipTest(absltest.TestCase):
  # As `infer_config` finds it: 64 per head, the last token ends texts.
  config = networks.ClipConfig(8, 16, 8, 64, 1, 64, 1, length=5, vocab_size=11, eot=10)

  def setUp(self):
    super().setUp()
    rng = np.random.default_rng(0)
    self.state = {
      name: np.asarray(rng.normal(size=shape), np.float32)
      for name, shape in clip_states.shapes(self.config).items()
    }
    self.directory = pathlib.Path(self.create_tempdir())
    self.source = self.directory / 'model.safetensors'
    self.output = self.directory / 'clip.npz'

  def _write(self, state):
    """The format: 8 bytes that say how long the JSON after it is, and the data."""
    header, data = {}, b''
    for name, array in state.items():
      offsets = [len(data), len(data) + array.nbytes]
      header[name] = {'dtype': 'F32', 'shape': array.shape, 'data_offsets': offsets}
      data += array.tobytes()
    text = json.dumps(header).encode()
    self.source.write_bytes(len(text).to_bytes(8, 'little') + text + data)

  def _check_output(self):
    expected = published.clip.from_transformers(self.state, self.config)
    actual = published.clip.load(self.output, self.config)
    chex.assert_trees_all_equal(actual, expected)

  def test_converts_what_safetensors_reads(self):
    self.source.write_bytes(b'of some kind')
    library = mock.Mock()
    library.numpy.load.return_value = self.state
    digest = files.sha256(self.source)
    with mock.patch.object(published.clip, 'safetensors', library):
      convert_clip.run(self.source, self.output, sha256=digest)
    library.numpy.load.assert_called_once_with(b'of some kind')
    self._check_output()

  def test_errors_are_one_line_and_write_nothing(self):
    self.source.write_bytes(b'of some kind')
    missing = mock.Mock(spec=[])
    type(missing).numpy = mock.PropertyMock(side_effect=ImportError)
    damaged, foreign, empty = (mock.Mock(SafetensorError=_DamagedError) for _ in '123')
    damaged.numpy.load.side_effect = _DamagedError('header too small')
    foreign.numpy.load.side_effect = KeyError('BF16')
    empty.numpy.load.return_value = {}
    for library, message in (
      (missing, 'safetensors is needed to read it; pip install -r requirements-text'),
      (damaged, 'damaged or no safetensors .header too small'),
      (foreign, "arrays of type 'BF16', which NumPy lacks"),
      (empty, 'has no array vision_model.*; must be that of a CLIPModel'),
    ):
      with mock.patch.object(published.clip, 'safetensors', library):
        with self.assertRaisesRegex(errors.InputError, message):
          convert_clip.run(self.source, self.output, sha256=None)
    with self.assertRaisesRegex(errors.InputError, 'sha256 starts with'):
      convert_clip.run(self.source, self.output, sha256='0' * 8)
    with self.assertRaisesRegex(errors.InputError, '--output: missing'):
      convert_clip.run('a', None, sha256=None)
    self.assertFalse(self.output.exists())

  @unittest.skipUnless(importlib.util.find_spec('safetensors'), 'is optional')
  def test_file(self):
    self._write(self.state)
    convert_clip.run(self.source, self.output, sha256=None)
    self._check_output()
    self.source.write_bytes(self.source.read_bytes()[:-1])
    with self.assertRaisesRegex(errors.InputError, 'cut short'):
      convert_clip.run(self.source, self.output, sha256=None)


if __name__ == '__main__':
  absltest.main()
