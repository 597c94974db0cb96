#!/usr/bin/env bash
# A model of the paper's size from captioned pictures, on NODES machines of GPUS each that
# see one disk: data and tokenizers on this machine, then the same line on every machine.
#   NODE=0 HOST=first-machine DATA=/data/pictures bash runs/cluster.sh
# Untested on a cluster. Every line goes on where it was when it is run again.
set -euo pipefail
: "${DATA:?a folder that cm3leon data check can read}" "${HOST:?the first machine}"
: "${NODE:?0 on the first machine, then 1, 2, …}"
NODES=${NODES:-64} GPUS=${GPUS:-8} SIZE=${SIZE:-7b}

if [ "$NODE" = 0 ]; then
    cm3leon plan configs/pretrain/$SIZE.toml --gpus $((NODES * GPUS))
    cm3leon train text-tokenizer data="$DATA" run=runs/tokenizers size=56320
    cm3leon train image-tokenizer configs/image_tokenizer/vqgan-8192.toml \
        data="$DATA" run=runs/image_tokenizer
    cp -R runs/image_tokenizer/image_tokenizer runs/tokenizers/
    cm3leon data shards "$DATA" shards/train --tokenizers runs/tokenizers
fi

# A machine that is early waits for the first one; one that fails is started again by
# torchrun, and the run goes on from its last checkpoint.
until [ -e shards/train/index.json ]; do sleep 10; done
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1  # or new processes look for the dead
exec torchrun --nnodes="$NODES" --nproc-per-node="$GPUS" --max-restarts=3 \
    --shutdown-timeout=240 \
    --rdzv-backend=c10d --rdzv-endpoint="$HOST:29500" --rdzv-id="$SIZE" \
    -m cm3leon train pretrain configs/pretrain/$SIZE.toml
