#!/usr/bin/env bash
# What is measured on a GPU, in ten minutes at most; run from the project's root.
#
#   benchmarks/gpu.sh OUT [--data FOLDER] [--textures FOLDER] [--smoke]
#
# OUT gets what each part has written when it ends or its time is over. FOLDER
# is a class in MVTec layout, such as magnetic tiles. --smoke runs tiny sizes,
# also on a CPU, to see that the script works.
set -u
out=${1:?Usage: benchmarks/gpu.sh OUT [--data FOLDER] [--textures FOLDER] [--smoke]}
shift
mkdir -p "$out"
python=${PYTHON:-python}
export TF_CPP_MIN_LOG_LEVEL=3 CUDA_VISIBLE_DEVICES=${CUDA_VISIBLE_DEVICES-0}
budget=paper
layer=(--channels 64 256 512 --sizes 16 64 --batch 8 --seconds 0.4)
case " $* " in
*" --smoke "*)
    budget=cpu
    layer=(--channels 8 --sizes 8 --batch 2 --seconds 0)
    ;;
esac

# part NAME SECONDS COMMAND...
part() {
    local name=$1 seconds=$2
    shift 2
    echo "== $name"
    timeout --signal=INT --kill-after=20 "$seconds" "$@" \
        >"$out/$name.txt" 2>"$out/$name.err"
    local code=$?
    echo "$code" >"$out/$name.code"
    tail -n 40 "$out/$name.txt"
    [ "$code" = 0 ] || tail -n 5 "$out/$name.err"
}

part table6 150 "$python" -m keras_sspcab.cli reproduce table6 \
    --budget "$budget" --out "$out/table6"
part layer 120 "$python" -m benchmarks.layer "${layer[@]}" --no-memory \
    --precision float32 tf32 bfloat16 --output "$out/layer.csv"
part draem 230 "$python" -m benchmarks.gpu draem --out "$out" "$@"
part serving 90 "$python" -m benchmarks.gpu serving --out "$out" "$@"
grep -qv '^0$' "$out"/*.code && exit 1
exit 0
