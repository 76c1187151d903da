#!/usr/bin/env bash
# How long a controller takes from its start until it may decide, when the one before was killed in the middle of
# SERVICES rollouts (100). Real processes: one replica of the stable release and one of the candidate for each service.
# BINARY: the program, default target/release/evenkeel.
set -euo pipefail
cd "$(dirname "$0")/.."
services=${SERVICES:-100} rounds=${ROUNDS:-3}
binary=$(realpath "${BINARY:-target/release/evenkeel}")
folder=$(mktemp -d)
state=$folder/state
run() { "$binary" --state "$state" "$@"; }
count() { run status --json | { grep -o "\"state\":\"$1\"" || true; } | wc -l; }
trap 'run down >/dev/null 2>&1 || true; rm -rf "$folder"' EXIT

echo '{"version":"1","fail_percent":0,"delay_ms":0}' >"$folder/release.json"
for ((number = 0; number < services; number++)); do
  cat >"$folder/$number.yaml" <<SPEC
service: s$number
command: [$binary, demo-service]
artefact: release.json
env: { DEMO_RECORDS: $folder }
replicas: 1
listen: 127.0.0.1:$((31000 + number))
probes: { readiness: { http: /health } }
strategy: { canary: { steps: [{ weight: 5%, hold: 1h }] } }
objectives: [error_rate < 5%]
SPEC
done
run up --file "$folder/0.yaml" --api 127.0.0.1:0 >/dev/null
for version in 1 2; do
  echo "{\"version\":\"$version\",\"fail_percent\":0,\"delay_ms\":0}" >"$folder/release.json"
  for ((number = 0; number < services; number++)); do
    run deploy --file "$folder/$number.yaml" --version "$version" --detach >/dev/null
  done
  wanted=$([ "$version" = 1 ] && echo promoted || echo watching)
  for ((look = 0; look < 60; look++)); do
    there=$(count "$wanted")
    [ "$there" -lt "$services" ] || break
    sleep 0.2
  done
  echo "version $version: $there of $services are $wanted"
done

log=$folder/log
for ((round = 1; round <= rounds; round++)); do
  for seat in "$state"/controllers/*; do kill -9 "$(basename "$seat" | cut -d- -f1)" 2>/dev/null || true; done
  sleep 0.5
  : >"$log"
  began=$(date +%s%N)
  "$binary" controller --state "$state" --api 127.0.0.1:0 >"$log" 2>&1 &
  disown
  until grep -q "decides from here on" "$log"; do sleep 0.05; done
  ms() { echo $((($(date -d "$(grep -m1 "$1" "$log" | cut -d' ' -f1)" +%s%N) - began) / 1000000)); }
  in_flight=$(count watching)
  echo "round $round: read and taken over after $(ms ready) ms, decides after $(ms 'decides from here') ms;" \
    "$in_flight of $services rollouts in flight"
done
