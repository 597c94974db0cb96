#!/usr/bin/env bash
# The whole pipeline in a small size: read it, or run it from a clone's own folder.
#
#     python3 -m venv .venv && .venv/bin/pip install -c constraints.txt -e '.[data,training]'
#     runs/laptop.sh
#
# The sizes below are meant for half an hour on 2 CPU cores; pictures come out as blots
# of about the right colours. Every line goes on where it was when it is run again.
set -euo pipefail
PATH="$PWD/.venv/bin:$PATH"

WORK=${WORK:-laptop}                    # everything goes here
SOURCES=${SOURCES-noto,twemoji,fluent-emoji-flat}  # "": the pictures in $WORK/corpus
LIMIT=${LIMIT:-500}                     # pictures of each source
PROMPT=${PROMPT:-a red apple}
PRESET=${PRESET:-shipped}               # of image tokenizer, bi-encoder, transformer
TEXT_IDS=${TEXT_IDS:-1024}
IMAGE_STEPS=${IMAGE_STEPS:-800}         # of 32 pictures
ENCODER_STEPS=${ENCODER_STEPS:-200}
ENCODER_BATCH=${ENCODER_BATCH:-128}     # pairs of caption and picture
STEPS=${STEPS:-400}                     # of the transformer
ROWS=${ROWS:-32}                        # documents to a step
MATCHED=${MATCHED:-64}                  # pictures of each split to match with captions

corpus=$WORK/corpus tokenizers=$WORK/tokenizers run=$WORK/run model=$WORK/run/model

# Captioned pictures, in four splits.
if [ -n "$SOURCES" ]; then
    cm3leon data build "$corpus" --only "$SOURCES" --limit "$LIMIT"
fi
cm3leon data check "$corpus"

# Text <-> ids, pictures <-> codes, documents -> vectors.
cm3leon train text-tokenizer data="$corpus" run="$tokenizers" size="$TEXT_IDS"
cm3leon train image-tokenizer data="$corpus" run="$WORK/image_tokenizer" \
    preset="$PRESET" steps="$IMAGE_STEPS" muon_learning_rate=0.01 \
    quantise_from=$((IMAGE_STEPS / 8)) revive_every=$((IMAGE_STEPS / 8))
cp -R "$WORK/image_tokenizer/image_tokenizer" "$tokenizers/"
cm3leon train bi-encoder data="$corpus" run="$WORK/bi_encoder" preset="$PRESET" \
    text_tokenizer="$tokenizers/text_tokenizer.json" steps="$ENCODER_STEPS" \
    batch="$ENCODER_BATCH" optimizer.warmup_steps=$((ENCODER_STEPS / 10))
encoder=$WORK/bi_encoder/bi_encoder

# What may stand before a document, and the documents with it. With --ray auto any
# number of machines do these two.
cm3leon memory build "$corpus" "$WORK/bank" --encoder "$encoder" \
    --tokenizers "$tokenizers"
for split in train val_concept test_style test_concept; do
    cm3leon data shards "$corpus" "$WORK/shards/$split" --split "$split" \
        --tokenizers "$tokenizers" --memory "$WORK/bank" --encoder "$encoder"
done

# The transformer; stopped at its first checkpoint, as by Ctrl-C, it goes on from there.
pretrain=(cm3leon train pretrain configs/pretrain/tiny.toml "run=$run"
    "tokenizers=$tokenizers" "held_out=$WORK/shards/val_concept"
    "stream.shards=$WORK/shards/train" "stream.rows=$ROWS"
    "stream.neighbours=[0.5, 0.0, 0.5]" "model.preset=$PRESET" model.context=512
    objective.whole_segment_share=0.5 optimizer.kind=muon optimizer.learning_rate=5e-3
    "loop.steps=$STEPS" "loop.checkpoint_every=$((STEPS / 4))")
"${pretrain[@]}" &
while kill -0 $! 2>/dev/null && ! ls "$run"/checkpoints/0* >/dev/null 2>&1; do
    sleep 0.2
done
kill $! 2>/dev/null || true
wait $! || true
"${pretrain[@]}"

# A model folder holds all that drawing needs.
rm -rf "$model/memory" "$model/bi_encoder"
cp -R "$WORK/bank" "$model/memory"
cp -R "$encoder" "$model/bi_encoder"
cm3leon generate "$PROMPT" --model "$model" --seed 0 --out "$WORK/drawn.png"
python benchmarks/heldout_loss.py --shards "$WORK/shards" --model "$model" \
    --pictures "$MATCHED"
