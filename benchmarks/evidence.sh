#!/usr/bin/env bash
# Runs what evidence_plan.md says; run from the project's root.
#
#   benchmarks/evidence.sh DATA OUT [A] [B1] [B2] [B3] [C1] [C2] [D] [E]
#
# DATA holds ucsd_ped2, magnetic_tile, mvtec_screw and dtd_part. Without letters
# everything is run. It can be stopped at any time; the same command continues.
set -eu
data=$(realpath "$1") out=$2
shift 2
python=${PYTHON:-python}
mkdir -p "$out"

run() {
    "$python" -m keras_sspcab.cli "$@"
}

crops() { # OUT TABLE OPTIONS...: the auto-encoder on objects of Ped2
    local to=$1 table=$2
    shift 2
    run reproduce "$table" --budget cpu --data "$data/ucsd_ped2" \
        --out "$out/$to" --set "objects.folder=$(realpath "$out")/objects64" "$@"
}

A() {
    run compare --models hf2vad --sspcab off,on --seeds 3,4,5,6,7,8,9,10,11,12 \
        --data "$data/ucsd_ped2" --config benchmarks/ped2_objects.toml \
        --out "$out/A"
}

B1() { crops B1 table4 --seeds 5; }

B2() { crops B2 table5 --seeds 5; }

B3() {
    run compare --models object_autoencoder --sspcab off,late --seeds 5 \
        --data "$data/ucsd_ped2" --out "$out/B3" \
        --set data.step=5 --set objects.motion_closing=5 \
        --set training.epochs=36 \
        --set "objects.folder=$(realpath "$out")/objects64"
}

C1() {
    run compare --models cutpaste --seeds 5 --data "$data/magnetic_tile" \
        --metric image_auroc --metric pixel_auroc --out "$out/C1"
}

C2() {
    # 321 images are trained on: 122 epochs of 41 steps.
    for rate in 1e-4 1e-3; do
        run compare --models draem --seeds 5 --data "$data/magnetic_tile" \
            --set data.image_size=128 --set training.epochs=122 \
            --set "training.learning_rate=$rate" \
            --set "model.texture_folder=$data/dtd_part" --out "$out/C2-$rate"
        "$python" -m benchmarks.transfer "$out/C2-$rate/runs"/*/* \
            --output "$out/C2-$rate/transfer.csv"
    done
}

D() { crops D table1 --seeds 2; }

E() {
    local sets=$out/sets
    [ -d "$sets/screw" ] ||
        "$python" -m benchmarks.correct_gain "$data/mvtec_screw" "$sets/screw"
    [ -e "$sets/magnetic_tile" ] || ln -s "$data/magnetic_tile" "$sets/"
    "$python" - "$sets" "$data/dtd_part" <<'P'
import os, sys
from keras_sspcab.data import write_texture_folder

sets, dtd = sys.argv[1:]
for texture, size in (
    *(("brick", 128), ("grass", 128), ("gravel", 128)),
    (f"{dtd}/braided/braided_0006.jpg", 112),
    (f"{dtd}/crosshatched/crosshatched_0010.jpg", 112),
):
    name = os.path.basename(texture).partition(".")[0]
    write_texture_folder(f"{sets}/{name}", texture, size)
P
    run compare --models multiscale_padim --sspcab off,on --seeds 5 \
        --data "$sets" --metric image_auroc --metric aupro --out "$out/E"
}

for part in "${@:-A B1 B2 B3 C1 C2 D E}"; do
    for name in $part; do
        echo "== $name"
        "$name"
    done
done
