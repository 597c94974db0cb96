#!/usr/bin/env bash
# The shipped model from nothing: corpus, tokenizers, shards, transformer.
# 2 CPU cores: about 10 minutes, 45 and 25 minutes, 4 minutes, and as long as you like.
# Every line goes on where it was when it is run again.
set -euo pipefail

cm3leon data build corpus
cm3leon train text-tokenizer data=corpus run=runs/tokenizers size=3072
cm3leon train image-tokenizer configs/image_tokenizer/shipped.toml run=runs/image_tokenizer
cp -R runs/image_tokenizer/image_tokenizer runs/tokenizers/

# The decoder alone goes on; no code changes, so this may also be done at the very end.
cm3leon train image-tokenizer configs/image_tokenizer/shipped-onward.toml
cp runs/image_tokenizer_onward/image_tokenizer/* runs/tokenizers/image_tokenizer/

for split in train val_concept test_style test_concept; do
    cm3leon data shards corpus shards/$split --split $split --tokenizers runs/tokenizers
done

cm3leon train pretrain configs/pretrain/shipped.toml
cm3leon generate "a red apple" --model runs/shipped/model

# what ships is that folder, with its card and the options docs/log.md settled
# cp -R runs/shipped/model/. src/cm3leon/shipped/
