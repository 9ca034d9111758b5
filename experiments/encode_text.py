r"""Embeds all captions of a data set once, by an encoder of published weights.

  F="--config=configs/coco512.py --config.data.encoded_dir=DIR"
  python -m experiments.encode_text $F --encoder=clip_l14 --weights=clip.npz \
      --tokenizer=tokenizer.json
  pip install -r requirements-text.txt         # PyTorch and transformers, for T5.
  python -m experiments.encode_text $F --encoder=t5_xxl --weights=T5_DIRECTORY

Writes DIR/ENCODER/, in shards; the same command again resumes. Captions that do not fit
into `config.data.caption_length` tokens are refused, or cut with --truncate. Several
processes (--distributed) share the shards.
"""

import jax
import numpy as np
from absl import flags
from ml_collections import config_dict

from experiments import app
from experiments import builders
from experiments import judges
from experiments import validation
from lgd import arrays
from lgd import errors
from lgd.data.prompts import captions as captions_lib
from lgd.data.prompts import embeddings
from lgd.storage import files
from lgd.storage import shards
from lgd.training import sharding


def run(
  config: config_dict.ConfigDict,
  *,
  encoder: str,
  weights: str,
  tokenizer: str = '',
  truncate: bool = False,
  batch_size: int = 64,
  shard_size: int = 4096,
) -> None:
  """Embeds, or resumes.

  Raises:
    errors.InputError: an encoder that the config has not, captions that do not fit, or
      as in `text_encoders.load`.
    errors.FileError: embeddings of something else are there.
    errors.NonFiniteError: an embedding that float16 cannot hold.
  """
  validation.validate(config)
  section = config.data
  if encoder not in section.encoders:
    raise errors.InputError(
      f'--encoder={encoder}: must be one of config.data.encoders={section.encoders}.'
    )
  if not section.encoded_dir:
    raise errors.InputError(
      "data.encoded_dir='': must say where to write, as in"
      ' --config.data.encoded_dir=DIR.'
    )
  network = judges.text_encoders.load(
    encoder,
    weights=weights,
    tokenizer=tokenizer,
    length=section.caption_length,
    truncate=truncate,
  )
  captioned = builders.captions.captions(config)
  tokens, lengths = tokenize(network, captioned)
  layout = shards.Layout(len(captioned.texts), shard_size)
  directory = files.user_path(section.encoded_dir) / encoder
  if jax.process_index() == 0:
    sha256 = embeddings.captions_sha256(captioned.texts)
    shards.begin(
      directory, {**network.identity, 'captions_sha256': sha256, **layout._asdict()}
    )
  sharding.wait_for_processes('encode_text')
  names = tuple(embeddings.fields(embeddings.ENCODERS[encoder]))

  def make(shard):
    rows = np.array(layout.rows(shard))
    embedded = encode_shard(network, tokens[rows], lengths[rows], batch_size)
    finite = finite_rows(embedded)
    if not finite.all():
      bad = rows[np.argmin(finite)]
      raise errors.NonFiniteError(
        f'shard {shard}: caption {bad}, {captioned.texts[bad]!r}: embeddings are'
        ' not finite in float16; nothing of it was written; check the weights.'
      )
    shards.write(directory, shard, embedded)
    return len(rows)

  missing = shards.missing(directory, names, layout)
  app.shard_loop.run(
    directory, missing, layout.num_shards, make, unit='captions', split=True
  )


def finite_rows(embedded: dict[str, np.ndarray]) -> np.ndarray:
  """`[n]`: which captions have finite embeddings, pooled and of all their tokens."""
  of_tokens = np.isfinite(embedded['tokens']).all(axis=1)
  first = np.cumsum(embedded['length']) - embedded['length']
  return np.isfinite(embedded['pooled']).all(axis=1) & np.array(
    [of_tokens[i : i + n].all() for i, n in zip(first, embedded['length'], strict=True)]
  )


def encode_shard(
  network: judges.text_encoders.TextEncoder,
  tokens: np.ndarray,
  lengths: np.ndarray,
  batch_size: int,
) -> dict[str, np.ndarray]:
  """The arrays of `embeddings.fields` of captions, whatever the batches.

  Args:
    network: the encoder.
    tokens: `[n, length]`.
    lengths: `[n]`.
    batch_size: captions in a call.
  """
  pooled, hidden = [], []
  for index in arrays.whole_batches(len(tokens), batch_size):
    n = min(batch_size, len(tokens) - index[0])  # The rest fills the batch.
    p, h = network.encode(tokens[index], lengths[index])
    pooled.append(p[:n])
    hidden.append(h[:n][np.arange(h.shape[1]) < lengths[index[:n], None]])
  with np.errstate(over='ignore'):  # The caller looks for what is not finite.
    return {
      'pooled': np.concatenate(pooled).astype(embeddings.DTYPE),
      'tokens': np.concatenate(hidden).astype(embeddings.DTYPE),
      'length': lengths.astype(np.int32),
    }


def tokenize(
  network: judges.text_encoders.TextEncoder, captioned: captions_lib.Captioned
) -> tuple[np.ndarray, np.ndarray]:
  """Tokens of all captions and their lengths: before hours are spent on the first.

  Raises:
    errors.InputError: a caption that holds no text or does not fit, and its image.
  """
  try:
    return network.tokenize(captioned.texts)
  except errors.CaptionError:
    for i, caption in enumerate(captioned.texts):
      try:
        network.tokenize([caption])
      except errors.CaptionError as error:
        reason = str(error).removeprefix('caption 0 is ')
        raise errors.InputError(
          f'{captioned.images[i]}: caption {i}, {reason} Or cut it with --truncate.'
        ) from error
    raise


if __name__ == '__main__':
  ENCODER = flags.DEFINE_string('encoder', '', 'One of config.data.encoders.')
  WEIGHTS = flags.DEFINE_string('weights', '', 'Of the encoder: .npz, or T5 directory.')
  TOKENIZER = flags.DEFINE_string('tokenizer', '', 'tokenizer.json, of CLIP.')
  TRUNCATE = flags.DEFINE_bool('truncate', False, 'Whether to cut long captions.')
  BATCH_SIZE = flags.DEFINE_integer('batch_size', 64, 'Captions in a call.', 1)
  SHARD_SIZE = flags.DEFINE_integer('shard_size', 4096, 'Captions in a file.', 1)
  app.main(
    lambda f: run(
      f.config,
      encoder=ENCODER.value,
      weights=WEIGHTS.value,
      tokenizer=TOKENIZER.value,
      truncate=TRUNCATE.value,
      batch_size=BATCH_SIZE.value,
      shard_size=SHARD_SIZE.value,
    ),
    needs_config=True,
    needs_workdir=False,
  )
