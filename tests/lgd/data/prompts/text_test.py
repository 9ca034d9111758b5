"""Prompts as tokens."""

import unicodedata

import numpy as np
import tokenizers
from absl.testing import absltest
from absl.testing import parameterized
from tokenizers import models

from lgd import errors
from lgd.data.prompts import text

CAPTIONS = ['red apple', 'green apple', 'red square', 'two green squares']
AWKWARD = (
  'Crème Brûlée', 'e\u0301tude', '日本語', '👩🏽‍🚀 in space', 'مرحبا', 
  "don't &amp; won't",   'tabs\tand\nnewlines', '#1: 50% — off!', '\x07bell', 'x' * 40,
  '<pad>', 'a <|endoftext|> b',
)  # fmt: skip


def _trained(length=60):
  return text.train(CAPTIONS, vocab_size=300, length=length)


class TokenizerTest(parameterized.TestCase):
  def test_a_row_is_start_text_end_padding(self):
    tokenizer = _trained(length=12)
    row = tokenizer(['red apple'])[0]
    start, end = (
      tokenizer.encoding.token_to_id(name) for name in (text.START, text.END)
    )
    stop = list(row).index(end)
    self.assertEqual(row.dtype, np.int32)
    self.assertEqual(row[0], start)
    pieces = [tokenizer.encoding.id_to_token(i) for i in row[1:stop]]
    self.assertEqual(''.join(pieces), 'ĠredĠapple')
    np.testing.assert_array_equal(row[stop + 1 :], 0)

  @parameterized.parameters(*AWKWARD)
  def test_nothing_of_a_caption_is_lost_but_case(self, caption):
    (decoded,) = _trained(length=200).decode(_trained(length=200)([caption]))
    self.assertEqual(decoded, unicodedata.normalize('NFC', caption).lower())

  @parameterized.parameters(*AWKWARD)
  def test_text_holds_no_special_token(self, caption):
    row = list(_trained(length=200)([caption])[0])
    end = row.index(2)
    self.assertTrue(all(token > 2 for token in row[1:end]))
    self.assertFalse(any(row[end + 1 :]))

  def test_sizes_that_hold_no_text_are_refused(self):
    with self.assertRaisesRegex(ValueError, 'length=2: must be at least 3'):
      _trained(length=2)
    with self.assertRaisesRegex(ValueError, 'vocab_size=258: must be at least 259'):
      text.train(CAPTIONS, vocab_size=258, length=9)

  def test_frequent_pairs_are_one_token(self):
    known, unknown = _trained()(['green apple', 'tango zebra'])
    self.assertLess(np.sum(known != 0), np.sum(unknown != 0))

  def test_the_same_captions_give_the_same_tokenizer(self):
    np.testing.assert_array_equal(_trained()(AWKWARD[:3]), _trained()(AWKWARD[:3]))

  @parameterized.parameters('', '   ', '\n')
  def test_an_empty_caption_is_refused(self, caption):
    with self.assertRaisesRegex(errors.CaptionError, 'caption 1 is .*holds no text'):
      _trained()(['red apple', caption])

  def test_a_long_caption_is_refused_or_cut(self):
    tokenizer = _trained(length=6)
    with self.assertRaisesRegex(errors.CaptionError, 'has 10 tokens, 4 fit'):
      tokenizer(['tangozeb1'])
    cut = text.Tokenizer(tokenizer.encoding, 6, truncate=True)(['tangozeb1'])[0]
    whole = text.Tokenizer(tokenizer.encoding, 20)(['tangozeb1'])[0]
    np.testing.assert_array_equal(cut[:5], whole[:5])
    self.assertEqual(cut[5], tokenizer.encoding.token_to_id(text.END))


class LoadTest(absltest.TestCase):
  def _write(self, content):
    return self.create_tempfile(content=content).full_path

  def test_what_was_trained_comes_back(self):
    trained = _trained()
    loaded = text.load(self._write(trained.encoding.to_str()), length=60)
    np.testing.assert_array_equal(loaded(AWKWARD[:4]), trained(AWKWARD[:4]))

  def test_without_a_padding_the_end_fills_the_row(self):
    vocab = {text.START: 0, text.END: 1, 'a': 2}
    encoding = tokenizers.Tokenizer(models.BPE(vocab, []))
    tokenizer = text.load(self._write(encoding.to_str()), length=5)
    np.testing.assert_array_equal(tokenizer(['a']), [[0, 2, 1, 1, 1]])

  def test_rows_alone_cut_and_fill(self):
    """Whatever the file says of it, as transformers leaves it there."""
    encoding = tokenizers.Tokenizer(
      models.BPE({text.START: 0, text.END: 1, 'a': 2, 'b': 3}, [])
    )
    encoding.enable_truncation(2)
    encoding.enable_padding(length=8, pad_id=1, pad_token=text.END)
    path = self._write(encoding.to_str())
    actual = text.load(path, length=6)(['abba', 'b'])
    np.testing.assert_array_equal(actual, [[0, 2, 3, 3, 2, 1], [0, 3, 1, 1, 1, 1]])

  def test_other_files_are_refused(self):
    with self.assertRaisesRegex(ValueError, 'is no tokenizer.json'):
      text.load(self._write('{"a": 1}'), length=5)
    encoding = tokenizers.Tokenizer(models.BPE({'a': 0}, []))
    with self.assertRaisesRegex(ValueError, 'has no token <|startoftext|>'):
      text.load(self._write(encoding.to_str()), length=5)


if __name__ == '__main__':
  absltest.main()
