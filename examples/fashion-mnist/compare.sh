#!/bin/sh
# Every training and pruning behind docs/results.md: sh compare.sh DATA RUNS [SEED ...]
# DATA is the folder of the full Fashion-MNIST, RUNS where results go. One thread a run, so that several can run at once.
set -e
data=$1 runs=$2
shift 2
export OMP_NUM_THREADS=1
here=$(dirname "$0")

train() { # NAME SEED OPTIONS...
    name=$1 seed=$2
    shift 2
    mkdir -p "$runs/$name"
    daukit train --data "$data" --classes "$here/classes.txt" --channels 32,32,64 --epochs 10 --mu-lr-factor 100 \
        --seed "$seed" "$@" -o "$runs/$name/$seed.safetensors"
}

sweep() { # NAME SEED
    daukit prune "$runs/$1/$2.safetensors" --thresholds 0,0.01,0.02,0.05,0.1,0.15,0.2,0.25,0.3 --data "$data" --json \
        > "$runs/$1/$2.json"
}

for seed in ${@:-0}; do
    train conv "$seed" --model shallow
    dau="--sigma 0.5 --model-arg mu_gradient=gaussian"
    for units in 1 2 4 6; do
        train "k$units" "$seed" --units "$units" $dau
        sweep "k$units" "$seed"
    done
    for sigma in 0.3 0.8; do # 0.5 is k2
        train "sigma$sigma" "$seed" --units 2 $dau --sigma "$sigma"
    done
    train learned "$seed" --units 2 $dau --learn-sigma layer
done
