#!/usr/bin/env bash
# ILSVRC12 from the downloaded archives to a trained Inception-ResNet-v2.
#
# Usage: examples/imagenet/train.sh DOWNLOADS FOLDER [BUILD-NET OPTIONS...]
#
# DOWNLOADS holds ILSVRC2012_img_train.tar (138 GB), ILSVRC2012_img_val.tar and
# ILSVRC2012_devkit_t12.tar.gz as they were downloaded; nothing is unpacked to disk. Databases, nets
# and the run go to FOLDER. Run it again after an interruption: every step goes on where it was.
#
#   GPUS=0,1       that train together; none is the CPU
#   RESIZE=328     side of the stored images
#   ENCODED=none   raw records, 415 GB for the training images at 328; jpg is a fraction of it, and
#                  costs the decoding of every image in every epoch
#
# Examples: the published network with momentum, by the recipe that is slim's in Caffe's terms
#   examples/imagenet/train.sh ~/Downloads ~/imagenet --recipe paper-sgd
# the run of 2016 to the letter, and the same with the scaling that it was suspected to lack
#   examples/imagenet/train.sh ~/Downloads ~/seed --recipe seed
#   examples/imagenet/train.sh ~/Downloads ~/paper --variant paper --batch-size 16 --iter-size 2
set -euo pipefail

if [ $# -lt 2 ]; then
    sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "$0"
    exit 2
fi
downloads=$(realpath "$1")
folder=$2
shift 2
gpus=${GPUS:-0,1} resize=${RESIZE:-328} encoded=${ENCODED:-none}
mkdir -p "$folder" && cd "$folder"

# 1. The databases. Labels are the places of the sorted WordNet IDs; training images are shuffled.
[ -d train_lmdb ] ||
    irv2caffe make-lmdb "$downloads/ILSVRC2012_img_train.tar" train_lmdb \
        --resize "$resize" --encoded "$encoded"
[ -d val_lmdb ] ||
    irv2caffe make-lmdb "$downloads/ILSVRC2012_img_val.tar" val_lmdb --split val \
        --devkit "$downloads/ILSVRC2012_devkit_t12.tar.gz" --labels train_lmdb \
        --resize "$resize" --encoded "$encoded"
irv2caffe inspect-lmdb train_lmdb --peek train.png

# 2. The net, and what is wrong with it before a GPU-day is spent.
[ -f net/solver.prototxt ] ||
    irv2caffe build-net --out net --train-lmdb train_lmdb --val-lmdb val_lmdb --gpus "$gpus" "$@"
irv2caffe check net/solver.prototxt || [ $? -eq 3 ] # findings are shown; train decides

# 3. Training, with snapshots every 10 epochs by the recipes; Ctrl-C writes one and stops.
if [ -d run ]; then
    irv2caffe train --gpus "$gpus" --run-dir run --resume
else
    irv2caffe train --gpus "$gpus" --solver net/solver.prototxt --run-dir run
fi

# 4. What happened, beside the run of 2016 and one that worked.
irv2caffe plot-log run --out run/plot.png --html run/report.html --reference original-2016 lim0606
