#!/bin/sh
# A program that starts trainings must run on a node of the Ray cluster. Where RAY_ADDRESS names one
# (host:port), this container joins it as a node without CPUs and GPUs, so that it gets no work.
set -eu
if [ -n "${RAY_ADDRESS:-}" ] && [ "${1:-}" != ray ]; then
  ray start --address="$RAY_ADDRESS" --num-cpus=0 --num-gpus=0
fi
exec "$@"
