"""Train a byte-level BPE tokenizer like CLIP's (lower case, `</w>` at a word's end) on the data set's prompts."""

import json
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import CLIPTokenizer

from mlc_controlnet.checkpoint.tokenizer import BEGIN, END

# CLIP splits a prompt into contractions, runs of letters, single digits and runs of other characters.
CLIP_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def train_tokenizer(prompts: list[str], directory: Path, vocabulary: int = 768, length: int = 77) -> CLIPTokenizer:
    """Learn merges from `prompts`, write CLIPTokenizer's files into `directory` and load the tokenizer from there.

    Args:
        prompts: the texts to learn from.
        directory: the folder to write; created if it does not exist.
        vocabulary: the number of tokens at most, with the two special ones.
        length: tokens of a prompt at most, with the two special ones.
    """
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=END))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer.pre_tokenizer = _pre_tokenizer()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=alphabet + [letter + "</w>" for letter in alphabet] + [BEGIN, END],
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(prompts, trainer)
    learned = json.loads(tokenizer.to_str())["model"]
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in learned["merges"]]
    # The alphabet was passed as special tokens only to number it first. The final tokenizer has just two of them.
    final = Tokenizer(models.BPE(vocab=learned["vocab"], merges=merges, end_of_word_suffix="</w>", unk_token=END))
    final.normalizer = tokenizer.normalizer
    final.pre_tokenizer = _pre_tokenizer()
    final.decoder = decoders.ByteLevel()
    final.add_special_tokens([BEGIN, END])
    begin, end = learned["vocab"][BEGIN], learned["vocab"][END]
    final.post_processor = processors.RobertaProcessing(
        (END, end), (BEGIN, begin), trim_offsets=False, add_prefix_space=False
    )
    directory.mkdir(parents=True, exist_ok=True)
    final.save(str(directory / "tokenizer.json"))
    (directory / "vocab.json").write_text(json.dumps(learned["vocab"], ensure_ascii=False), encoding="utf-8")
    (directory / "merges.txt").write_text(
        "#version: 0.2\n" + "\n".join(" ".join(m) for m in merges) + "\n", encoding="utf-8"
    )
    return CLIPTokenizer.from_pretrained(_write_config(directory, length))


def _pre_tokenizer() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(CLIP_PATTERN), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _write_config(directory: Path, length: int) -> Path:
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": length,
        "bos_token": BEGIN,
        "eos_token": END,
        "unk_token": END,
        "pad_token": END,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return directory
