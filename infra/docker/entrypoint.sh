#!/bin/sh
# A program that starts trainings must run on a node of the Ray cluster. Where RAY_ADDRESS names one
# (host:port), this container joins it as a node without CPUs and GPUs, so that it gets no work.
set -eu
case "${RAY_ADDRESS:-}" in
  "" | http://* | https://*) ;; # none, or a job server, which is used from outside
  *) [ "${1:-}" = ray ] || ray start --address="$RAY_ADDRESS" --num-cpus=0 --num-gpus=0 ;;
esac
exec "$@"
