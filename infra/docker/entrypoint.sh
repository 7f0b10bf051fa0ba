#!/bin/sh
# A program that starts trainings must run on a node of the Ray cluster. Where RAY_ADDRESS names one
# (host:port), this container joins it as a node without CPUs and GPUs, so that it gets no work.
# The node leaves when the head is replaced, and nothing here can join the new one: the program is
# then asked to end, and with it the container, which whoever started it starts again.
set -eu

program_works() { grep -qs '^State:[[:space:]]*[RSDTtI]' "/proc/$$/status"; }

stays_a_node() {
  while grep -qsx raylet /proc/[0-9]*/comm; do
    sleep 1
    program_works || return 0
  done
  echo "entrypoint: this node has left the Ray cluster at $RAY_ADDRESS: ending, to join again" >&2
  kill -TERM $$
}

case "${RAY_ADDRESS:-}" in
  "" | http://* | https://*) ;; # none, or a job server, which is used from outside
  *)
    if [ "${1:-}" != ray ]; then
      ray start --address="$RAY_ADDRESS" --num-cpus=0 --num-gpus=0
      stays_a_node & # `exec` keeps the process id that it knows
    fi
    ;;
esac
exec "$@"
