"""Embeddings of captions: resumption, what is refused, and the encoders themselves."""

import importlib.util
import pathlib
import shutil
import unittest

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest
from absl.testing import parameterized
from flax import traverse_util

from configs import common
from experiments import app
from experiments import builders
from experiments import encode_text
from experiments import judges
from lgd import errors
from lgd import networks
from lgd.data.prompts import text
from lgd.networks import published
from lgd.storage import files
from tests.lgd.data.tfds import tfds_files

COCO = 'coco_captions/2014'
HAS_T5 = all(map(importlib.util.find_spec, ('torch', 'transformers')))
if HAS_T5:
  import torch
  import transformers
WORDS = 'a red green blue dog cat sits runs on the grass roof'.split()


def write_data(data_dir, n=24):
  """Images with two captions each of some words; returns all words used."""
  rng = np.random.default_rng(0)

  def captions(n):
    return [
      [' '.join(rng.choice(WORDS, rng.integers(1, 7))) for _ in range(2)]
      for _ in range(n)
    ]

  examples = {
    s: tfds_files.captioned(captions(k))[0] for s, k in (('train', n), ('val', 6))
  }
  tfds_files.write(data_dir, COCO, examples, tfds_files.captioned([])[1])


def write_clip(directory):
  """A tokenizer of the words and random weights of the tiny CLIP; flags for both."""
  tokenizer = text.train(WORDS, vocab_size=400, length=24)
  tokenizer.encoding.save(str(directory / 'tokenizer.json'))
  net, rng = (
    networks.CLIP(judges.text_encoders.CLIP['clip_tiny']),
    np.random.default_rng(0),
  )
  args = jnp.zeros((1, 32, 32, 3)), jnp.zeros((1, 24), jnp.int32)
  shapes = jax.eval_shape(net.init, jax.random.key(0), *args)['params']
  arrays = {
    name: rng.normal(size=x.shape, scale=0.2).astype(np.float32)
    for name, x in traverse_util.flatten_dict(shapes, sep='/').items()
  }
  files.write_npz(directory / 'clip.npz', arrays)
  return {
    'weights': str(directory / 'clip.npz'),
    'tokenizer': str(directory / 'tokenizer.json'),
  }


def make_config(data_dir, encoded_dir):
  config = common.get_default()
  config.data.update(
    name=COCO,
    dir=str(data_dir),
    in_memory=False,
    size=16,
    caption_length=12,
    encoders=('clip_tiny',),
    encoded_dir=str(encoded_dir),
  )
  config.denoiser.update(network='mmdit', head_dim=32)
  config.fid.labels = 'test'
  return config


class EncodeTextTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.root = pathlib.Path(cls().create_tempdir().full_path)
    write_data(str(cls.root / 'data'))
    cls.clip = write_clip(cls.root)
    cls.config = make_config(cls.root / 'data', cls.root / 'encoded')
    cls.run_clip(cls.config)

  @classmethod
  def run_clip(cls, config, **kwargs):
    settings = {**cls.clip, 'batch_size': 8, 'shard_size': 20, **kwargs}
    encode_text.run(config, encoder='clip_tiny', **settings)

  def copy(self):
    directory = pathlib.Path(self.create_tempdir().full_path) / 'encoded'
    shutil.copytree(self.root / 'encoded', directory)
    return directory, make_config(self.root / 'data', directory)

  def test_is_what_clip_gives_without_padding(self):
    """One caption at a time, its row as long as it is, in the whole of float32."""
    texts = builders.captions.captions(self.config).texts
    cond = builders.captions.lookup(self.config)(np.arange(len(texts)))['clip_tiny']
    tokenizer = text.load(self.clip['tokenizer'], length=24)
    net = networks.CLIP(judges.text_encoders.CLIP['clip_tiny'])
    params = published.clip.load(self.clip['weights'], net.config)
    apply = jax.jit(lambda tokens: net.apply(params, tokens, method='encode_text'))
    lengths = cond['mask'].sum(axis=1)
    for i in (np.argmin(lengths), np.argmax(lengths), 7, len(texts) - 1):
      row = tokenizer([texts[i]])[0]
      n = int(np.flatnonzero(row == net.config.eot)[0]) + 1
      pooled, hidden = apply(row[None, :n])
      tolerance = {'rtol': 1e-3, 'atol': 1e-3}  # Of float16.
      np.testing.assert_allclose(cond['pooled'][i], pooled[0], **tolerance)
      np.testing.assert_allclose(cond['tokens'][i, :n], hidden[0], **tolerance)
      np.testing.assert_array_equal(cond['mask'][i], np.arange(12) < n)
    self.assertGreater(np.std(cond['pooled'].astype(float), axis=0).mean(), 0.02)

  def test_resumes_to_the_same_bytes(self):
    directory, config = self.copy()
    whole = {p.name: p.read_bytes() for p in (directory / 'clip_tiny').iterdir()}
    kept = directory / 'clip_tiny' / 'pooled-00000.npy'
    before = kept.stat().st_mtime_ns
    for name in ('pooled', 'tokens'):
      (directory / 'clip_tiny' / f'{name}-00001.npy').unlink()
    self.run_clip(config)
    self.assertEqual(
      whole, {p.name: p.read_bytes() for p in (directory / 'clip_tiny').iterdir()}
    )
    self.assertEqual(kept.stat().st_mtime_ns, before)

  def test_processes_that_look_one_after_the_other(self):
    """The second sees what the first has made, and leaves nothing out."""
    directory = pathlib.Path(self.create_tempdir().full_path)
    with (
      absltest.mock.patch.object(encode_text.sharding, 'wait_for_processes'),
      absltest.mock.patch.object(app.preemption, 'check'),
      absltest.mock.patch.object(jax, 'process_count', return_value=2),
      absltest.mock.patch.object(jax, 'process_index') as process_index,
    ):
      for process_index.return_value in (0, 1):
        self.run_clip(make_config(self.root / 'data', directory))
    made, whole = (
      {path.name for path in (root / 'clip_tiny').iterdir()}
      for root in (directory, self.root / 'encoded')
    )
    self.assertEqual(made, whole)

  def test_of_other_weights(self):
    _, config = self.copy()
    other = pathlib.Path(self.create_tempdir().full_path)
    arrays = files.read_npz(self.clip['weights'])
    files.write_npz(other / 'clip.npz', {**arrays, 'logit_scale': np.float32(1.0)})
    with self.assertRaisesRegex(
      errors.FileError, "weights is '.*', not '.*encode again"
    ):
      self.run_clip(config, weights=str(other / 'clip.npz'))

  def test_captions_that_changed(self):
    _, config = self.copy()
    config.data.dir = self.create_tempdir().full_path
    write_data(config.data.dir, n=23)
    with self.assertRaisesRegex(errors.InputError, 'of other captions: .*num_rows is'):
      builders.data.load(config)

  def test_too_long(self):
    directory = pathlib.Path(self.create_tempdir().full_path)
    config = make_config(self.root / 'data', directory)
    config.data.caption_length = 5
    with self.assertRaisesRegex(
      errors.InputError,
      r'^0000000000\d\d.jpg: caption \d+, .*tokens, 3 fit.* --truncate',
    ):
      self.run_clip(config)
    self.run_clip(config, truncate=True)
    mask = builders.captions.lookup(config)(np.arange(60))['clip_tiny']['mask']
    self.assertEqual(mask.sum(axis=1).max(), 5)

  def test_which_caption_is_not_finite(self):
    """In one of its tokens, or pooled."""
    length = np.array([2, 1, 3])
    embedded = {'pooled': np.ones((3, 4)), 'tokens': np.ones((6, 4)), 'length': length}
    np.testing.assert_array_equal(encode_text.finite_rows(embedded), [True] * 3)
    embedded['tokens'][2, 1] = np.nan
    np.testing.assert_array_equal(
      encode_text.finite_rows(embedded), [True, False, True]
    )
    embedded['pooled'][0, 3] = np.inf
    np.testing.assert_array_equal(
      encode_text.finite_rows(embedded), [False, False, True]
    )

  def test_not_finite(self):
    """A pooled embedding above the range of float16."""
    arrays = files.read_npz(self.clip['weights'])
    arrays['text/projection/kernel'] = arrays['text/projection/kernel'] * 1e7
    directory = pathlib.Path(self.create_tempdir().full_path)
    files.write_npz(directory / 'clip.npz', arrays)
    config = make_config(self.root / 'data', directory)
    with self.assertRaisesRegex(
      errors.NonFiniteError, 'caption 0, .* not finite in float16; nothing of it'
    ):
      self.run_clip(config, weights=str(directory / 'clip.npz'))
    self.assertEmpty(list((directory / 'clip_tiny').glob('*.npy')))

  @parameterized.parameters(
    ({'encoder': 't5_xxl'}, "--encoder=t5_xxl: must be one of .*'clip_tiny'"),
    (
      {'tokenizer': '/none.json'},
      '--tokenizer=/none.json: .*no tokenizer.json|No such',
    ),
    ({'weights': '/none.npz'}, '--weights: /none.npz: no such file'),
  )
  def test_refused(self, changes, message):
    config = make_config(self.root / 'data', self.create_tempdir().full_path)
    settings = {'encoder': 'clip_tiny', **self.clip, **changes}
    with self.assertRaisesRegex(errors.InputError, message):
      encode_text.run(config, **settings)

  def test_tokenizer_of_other_weights(self):
    directory = pathlib.Path(self.create_tempdir().full_path)
    more = text.train([str(i) for i in range(9999)], vocab_size=1200, length=24)
    more.encoding.save(str(directory / 'tokenizer.json'))
    config = make_config(self.root / 'data', directory)
    with self.assertRaisesRegex(
      errors.InputError, 'has 1200 tokens and ends texts with'
    ):
      self.run_clip(config, tokenizer=str(directory / 'tokenizer.json'))

  def test_no_place_to_write(self):
    with self.assertRaisesRegex(errors.InputError, "encoded_dir='': must say where"):
      self.run_clip(make_config(self.root / 'data', ''))


class T5Test(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.root = pathlib.Path(self.create_tempdir().full_path)

  def test_of_another_size(self):
    (self.root / 'config.json').write_text('{"d_model": 512}')
    for weights, found in ((str(self.root), 512), ('/none', None)):
      with self.assertRaisesRegex(
        errors.InputError, f'd_model=4096 in its config.json, here it is {found}'
      ):
        self.load('t5_xxl', weights)

  @parameterized.parameters(b'', b'{"d_model": 5', b'{"d_model": "\xff"}', b'[512]')
  def test_damaged_config(self, content):
    (self.root / 'config.json').write_bytes(content)
    with self.assertRaisesRegex(
      errors.InputError, f'^--weights={self.root}: '
    ) as caught:
      self.load('t5_small', str(self.root))
    self.assertIn('config.json', str(caught.exception))
    self.assertNotIn('\n', str(caught.exception))

  @unittest.skipIf(HAS_T5, 'of an installation without transformers')
  def test_says_what_to_install(self):
    (self.root / 'config.json').write_text('{"d_model": 512}')
    with self.assertRaisesRegex(errors.InputError, 'requirements-text.txt'):
      self.load('t5_small', str(self.root))

  @unittest.skipUnless(HAS_T5, 'needs requirements-text.txt')
  def test_is_what_transformers_gives_one_by_one(self):
    torch.manual_seed(0)
    encoding = text.train(WORDS, vocab_size=300, length=9).encoding
    transformers.PreTrainedTokenizerFast(
      tokenizer_object=encoding, eos_token=text.END, pad_token=text.PAD
    ).save_pretrained(self.root)
    config = transformers.T5Config(
      vocab_size=300, d_model=512, d_kv=16, d_ff=32, num_layers=2, num_heads=2
    )
    model = transformers.T5EncoderModel(config).eval()
    model.save_pretrained(self.root)
    encoder = self.load('t5_small', str(self.root))
    captions = ['a red dog', 'the cat sits on the grass', 'roof']
    tokens, lengths = encoder.tokenize(captions)
    pooled, hidden = encoder.encode(tokens, lengths)
    for i, caption in enumerate(captions):
      ids = encoding.encode(caption, add_special_tokens=False).ids
      self.assertEqual(list(tokens[i, : lengths[i]]), ids)
      with torch.no_grad():
        expected = model(input_ids=torch.tensor([ids])).last_hidden_state[0].numpy()
      np.testing.assert_allclose(hidden[i, : lengths[i]], expected, atol=1e-4)
      np.testing.assert_allclose(pooled[i], expected.mean(axis=0), atol=1e-4)
    with self.assertRaisesRegex(errors.CaptionError, 'caption 1 .* tokens, 12 fit'):
      encoder.tokenize(['a', 'roof ' * 40])

  def load(self, name, weights):
    return judges.text_encoders.load(
      name, weights=weights, tokenizer='', length=12, truncate=False
    )


if __name__ == '__main__':
  absltest.main()
