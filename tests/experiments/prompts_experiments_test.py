"""The smoke variant of emoji through its binaries, on squares of named colours."""

import functools
import itertools
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from absl.testing import absltest
from absl.testing import parameterized

from configs import digits
from configs import emoji
from experiments import app
from experiments import builders
from experiments import collect_statistics
from experiments import evaluate_prompts
from experiments import frontier
from experiments import report
from experiments import sampling
from experiments import train_clip
from experiments import train_denoiser
from experiments import train_guidance
from experiments import validation
from experiments import workdirs
from lgd import errors
from lgd.training import checkpoints
from tests import helpers

COLOURS = {'red': (255, 0, 0), 'green': (0, 255, 0), 'blue': (0, 0, 255)}
PLACES = {'top': slice(0, 4), 'middle': slice(2, 6), 'bottom': slice(4, 8)}


def write_pairs(path, num=60):
  """8x8 images, white but for a bar that the caption describes, and numbers."""
  rng = np.random.default_rng(0)
  kinds = list(itertools.product(COLOURS, PLACES))
  image, caption = np.full((num, 8, 8, 3), 255, np.uint8), []
  for i in range(num):
    colour, place = kinds[i % len(kinds)]
    image[i, PLACES[place], rng.integers(4) :] = COLOURS[colour]
    caption.append(f'{colour} bar at the {place} {i}')
  np.savez(path, image=image, caption=np.array(caption))


def shrunk(file):
  """The smoke variant, smaller still."""
  config = emoji.get_config('smoke')
  config.data.update(file=str(file), size=8, vocab_size=280, caption_length=20)
  config.denoiser.update(num_steps=4, batch_size=8)
  config.clip.update(num_steps=4, patch_size=4)
  config.guidance.num_steps = 4
  config.frontier.gammas = (0.0, 1.0)
  config.statistics.update(num_data=16, batch_size=8, shard_size=8)
  config.evaluation.update(num_seeds=1, num_prompts=5, num_steps=2, constants=(1.0,))
  config.fid.batch_size = 8
  return config


@pytest.mark.slow
class PromptsTest(helpers.WorkdirCase):
  @classmethod
  def fill(cls):
    write_pairs(cls.root / 'pairs.npz')
    cls.config = config = shrunk(cls.root / 'pairs.npz')
    cls.workdir = cls.root / 'run'
    train_denoiser.run(config, cls.workdir)
    with cls().assertRaisesRegex(errors.InputError, 'train_clip with --model=reward'):
      collect_statistics.run(config, cls.workdir)
    for model in train_clip.MODELS:
      train_clip.run(config, cls.workdir, model=model)
    collect_statistics.run(config, cls.workdir)
    frontier.run(config, cls.workdir)

  def test_statistics_keep_prompts_and_clip_scores(self):
    directory = self.workdir / 'statistics' / 'particles_reward_validation'
    shard = np.load(directory / 'shard-00001.npz')
    self.assertEqual(shard['label'].shape, (8, 20))
    self.assertEqual(shard['profile'].shape, (8, 2, len(self.config.reward.nodes)))
    self.assertBetween(np.abs(shard['profile'][:, 0]).max(), 1e-4, 1.0)
    stored = json.loads((directory / 'config.json').read_text())
    self.assertEqual(stored['reward_model']['step'], 4)

  def test_weights_read_the_prompt(self):
    config, session = self.config, helpers.session(self.workdir, self.config)
    learned = workdirs.weights.load_all(session)
    names = {'self_consistency_validation', 'self_consistency_reward1_validation'}
    self.assertEqual(set(learned), names)
    clip = workdirs.clip.load(session, 'reward')
    label = builders.data.load(config).test.label[:3]
    embedding, _ = clip.net.apply(clip.params, label, method='encode_text')
    for weight in learned.values():
      omega = sampling.sampler.tabulate_learned(config, weight, label)
      t = np.asarray(builders.models.time_grid(config))
      for i in range(len(t) - 1):
        s, t_i = np.full(3, t[i + 1]), np.full(3, t[i])
        now = weight({'clip': {'pooled': embedding}}, s, t_i)
        np.testing.assert_allclose(omega[:, i], now, rtol=1e-5, atol=1e-7)
    self.assertGreater(np.ptp(omega[:, 0]), 0.0)

  def test_weights_share_one_clip(self):
    """Loaded once for all, but for no config or place that it does not belong to."""
    session = helpers.session(self.workdir, self.config)
    with absltest.mock.patch.object(
      workdirs.clip, 'load', wraps=workdirs.clip.load
    ) as load:
      learned = workdirs.weights.load_all(session)
    self.assertLen(learned, 2)
    load.assert_called_once()
    readers = workdirs.clip.Readers()
    read = readers.of(session)
    other = self.config.copy_and_resolve_references()
    self.assertIs(readers.of(session.with_config(other)), read)
    other.clip.dim = 4
    with self.assertRaisesRegex(errors.InputError, 'clip.dim=4'):
      readers.of(session.with_config(other))
    with self.assertRaisesRegex(errors.InputError, 'none.*: holds no CLIP'):
      readers.of(helpers.session(self.workdir / 'none', self.config))

  def test_a_weight_goes_with_the_clip_that_it_reads(self):
    session = helpers.session(self.workdir, self.config)
    stored = workdirs.weights.load_record(session)
    stored['prompt_model']['clip']['width'] = 4096
    with self.assertRaisesRegex(errors.InputError, 'of the CLIP .* clip.width=.*4096'):
      workdirs.refuse.require_made_here(
        session, {**stored, 'reward_model': None}, session.workdir.path
      )
    fid_identity = sampling.images.sampling_identity(
      session, 'self_consistency_validation', 0
    )
    self.assertEqual(fid_identity['guidance_prompt_model']['step'], 4)
    other = self.config.copy_and_resolve_references()
    other.clip.dim = 4
    with self.assertRaisesRegex(errors.InputError, 'clip.dim=4'):
      workdirs.clip.make_read(session.with_config(other))

  def test_what_a_base_of_other_pairs_left_behind_is_refused(self):
    """Its config is the same: only the pairs tell them apart."""
    root = self.copy()
    config, workdir = shrunk(root / 'pairs.npz'), root / 'run'
    shutil.rmtree(workdir / 'denoiser')
    write_pairs(root / 'pairs.npz', num=50)
    train_denoiser.run(config, workdir)
    for run in (collect_statistics.run, train_guidance.run):
      with self.assertRaisesRegex(errors.InputError, 'encoded.pairs_sha256=.* with'):
        run(config, workdir)

  def test_a_weight_is_restored_on_fewer_devices(self):
    load = checkpoints.load_config

    def of_two_devices(path):
      stored = load(path)
      stored['config']['mesh']['fsdp'] = 2
      return stored

    name = 'self_consistency_validation'
    with absltest.mock.patch.object(checkpoints, 'load_config', of_two_devices):
      weight = workdirs.weights.load(helpers.session(self.workdir, self.config), name)
    label = np.ones((3, 20), np.int32)
    self.assertEqual(weight.read(label)['clip']['pooled'].shape, (3, 8))

  def test_a_bag_of_tokens_needs_no_clip(self):
    config = self.config.copy_and_resolve_references()
    config.guidance.prompts = 'tokens'
    read = workdirs.clip.make_read(helpers.session(self.workdir / 'none', config))
    label = np.ones((2, 20), np.int32)
    np.testing.assert_array_equal(read(label), label)
    model = builders.models.weight_model(config, builders.data.spec(config))
    params = model.init(jax.random.key(0))
    table = params['params']['embed']['table']['embedding']
    self.assertEqual(table.shape[0], config.data.vocab_size)

  def test_evaluation(self):
    with absltest.mock.patch.object(report.prompts, 'write') as write:
      evaluate = functools.partial(evaluate_prompts.run, self.config, self.workdir)
      with absltest.mock.patch.object(app.Pieces, 'remove'):
        rows = evaluate()
      # As if cut short before the last piece, and run again: the same rows and samples.
      kept = [*(self.workdir / 'unfinished' / 'evaluate_prompts').iterdir()]
      self.assertLen(kept, len(rows) - 1)
      kept[0].unlink()
      self.assertEqual(helpers.pieces_made(evaluate), 1)
      self.assertFalse((self.workdir / 'unfinished').exists())
    (first, again), once = write.call_args_list, write.call_args_list[0].kwargs
    self.assertEqual(again.args[1], first.args[1])
    np.testing.assert_equal(again.kwargs['samples'], once['samples'])
    real, *rest = rows
    self.assertLess(real['metrics']['frechet_judge'], 1e-3)  # The same images.
    count = {
      split: sum(r['split'] == split for r in rest) for split in ('validation', 'test')
    }
    self.assertEqual(count, {'validation': 3, 'test': 5})  # Grids; learned ones, too.
    self.assertEqual({r['nfe'] for r in rest if r['method'] == 'unguided'}, {2.0})
    self.assertEqual({r['nfe'] for r in rest if r['method'] == 'constant'}, {4.0})
    captions = write.call_args.kwargs['prompts']
    self.assertLen(captions, 5)
    self.assertIn(' bar at the ', captions[0])
    path = pathlib.Path(self.create_tempdir().full_path)
    report.prompts.write(path, rows, **write.call_args.kwargs)
    table = (path / 'results.md').read_text()
    self.assertIn('| constant(omega=1), chosen on validation | 2 |', table)
    for name in ('prompts', 'omega_curves', 'frontier'):
      self.assertTrue((path / 'plots' / f'{name}.png').exists())

  def test_batches_change_no_sample(self):
    session = helpers.session(self.workdir, self.config)
    params = workdirs.base_model.load_denoiser(session)
    config = session.config
    method = sampling.methods.grid_methods(config, 1)[1]
    label = builders.data.load(config).test.label[:5]
    samples = []
    omega = evaluate_prompts.omega_of(method, 5)
    of_rule = sampling.methods.Samplers(session, params).of(method.rule)
    for size in (8, 16):
      x = of_rule.draw(omega, label, name='constant', seed=3, batch_size=size)
      samples.append(x)
    np.testing.assert_allclose(*samples, atol=1e-5)

  def test_another_clip_is_refused(self):
    workdir = self.copy() / 'run'
    config = self.config.copy_and_resolve_references()
    config.clip.num_steps = 6
    train_clip.run(config, workdir, model='reward')
    for binary in (collect_statistics, train_guidance):
      with self.assertRaisesRegex(
        errors.InputError, 'of the CLIP .* step=6: .* with 4'
      ):
        binary.run(config, workdir)
    config.clip.width = 8
    with self.assertRaisesRegex(errors.InputError, r'clip.width=8: .* with 16'):
      train_clip.run(config, workdir, model='reward')

  def test_other_data_are_refused(self):
    config = self.config.copy_and_resolve_references()
    config.data.vocab_size = 290
    with self.assertRaisesRegex(errors.InputError, 'vocab_size=290: .* with 280'):
      workdirs.clip.load(helpers.session(self.workdir, config), 'judge')


class ValidationTest(parameterized.TestCase):
  def test_captions_are_needed(self):
    config, workdir = digits.get_config('smoke'), self.create_tempdir().full_path
    message = "data.name='digits': has no captions"
    with self.assertRaisesRegex(errors.InputError, message):
      train_clip.run(config, workdir, model='judge')
    with (
      absltest.mock.patch.object(
        workdirs, 'open_trained', lambda *_: helpers.session(workdir, config)
      ),
      self.assertRaisesRegex(errors.InputError, message),
    ):
      evaluate_prompts.run(None, workdir)

  def test_names_without_gamma(self):
    """Weights from different data keep names that figures can tell apart."""
    config = emoji.get_config('smoke')
    for split, common in (
      ('train', 'self_consistency'),
      ('validation', 'self_consistency_validation'),
    ):
      config.statistics.split = split
      for gamma in (0.0, 0.5, 3000.0, 1e7):
        config.guidance.gamma = gamma
        name = workdirs.layout.guidance_name(config)
        self.assertEqual(workdirs.layout.without_gamma(name, gamma), common)

  def test_prompts_make_no_classes(self):
    config = emoji.get_config('smoke')
    with self.assertRaisesRegex(errors.InputError, "'pairs': .*evaluate_prompts"):
      builders.data.load_classes(config, builders.data.spec(config))

  @parameterized.parameters(
    ({'data.file': '/nowhere.npz'}, "data.file='/nowhere.npz': no such file"),
    ({'denoiser.network': 'mlp'}, "denoiser.network='mlp': 'mmdit' reads prompts"),
    (
      {'denoiser.patch_size': 3},
      'patch_size=3: must divide the side of data, 8',
    ),
    ({'denoiser.text_width': 12}, 'text_width=12: must be a multiple of .*head_dim=8'),
    ({'guidance.source': 'direct'}, "prompts='clip': is for .*prompts=tokens"),
    ({'clip.patch_size': 3}, 'clip.patch_size=3: must divide data.size=8'),
    ({'reward.weights': 'a.npz'}, "reward.weights='a.npz': is of .* leave it out"),
    ({'fid.labels': 'balanced'}, "fid.labels='balanced': prompts and vectors"),
  )
  def test_rules(self, change, message):
    path = pathlib.Path(self.create_tempdir().full_path) / 'pairs.npz'
    write_pairs(path, num=20)
    config = shrunk(path)
    config.update_from_flattened_dict(change)
    with self.assertRaisesRegex(errors.InputError, message):
      validation.validate(config)

  def test_captions_belong_to_pairs(self):
    config = digits.get_config('smoke')
    config.reward.name = 'clip'
    with self.assertRaisesRegex(errors.InputError, 'reward.name=.*scores captions'):
      validation.validate(config)
    config.reward.name = ''
    config.denoiser.network = 'mmdit'
    with self.assertRaisesRegex(errors.InputError, "'digits' has none"):
      validation.validate(config)


if __name__ == '__main__':
  absltest.main()
