#!/usr/bin/env bash
# The shipped model from nothing: corpus, tokenizers, shards, transformer.
# 2 CPU cores: about 10 minutes, 45 minutes, 4 minutes, and as long as you like.
# Every line goes on where it was when it is run again.
set -euo pipefail

cm3leon data build corpus
cm3leon train text-tokenizer data=corpus run=runs/tokenizers size=3072
cm3leon train image-tokenizer configs/image_tokenizer/shipped.toml run=runs/image_tokenizer
cp -R runs/image_tokenizer/image_tokenizer runs/tokenizers/

# The decoder alone goes on; no code changes, so this may also be done at the very end.
cm3leon train image-tokenizer data=corpus run=runs/decoder freeze=codes \
    start=runs/image_tokenizer/image_tokenizer steps=1000 batch=48 \
    learning_rate=6e-4 reconstruction.squared=1.0 reconstruction.edges=0.1 \
    reconstruction.log=0.02
cp runs/decoder/image_tokenizer/* runs/tokenizers/image_tokenizer/

for split in train val_concept test_style test_concept; do
    cm3leon data shards corpus shards/$split --split $split --tokenizers runs/tokenizers
done

cm3leon train pretrain configs/pretrain/shipped.toml
cm3leon generate "a red apple" --model runs/shipped/model

# what ships is that folder, with its card and the options docs/log.md settled
# cp -R runs/shipped/model/. src/cm3leon/shipped/
